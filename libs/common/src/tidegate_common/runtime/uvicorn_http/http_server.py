"""uvicorn, as a protocol sees it that stands before its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from uvicorn import Config
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.server import ServerState


class HttpServer:
    """What a connection's first protocol needs of uvicorn, which stands behind it."""

    def __init__(self, usual: type[Any], *, config: Config, server_state: ServerState, **more: Any) -> None:
        """With the arguments that uvicorn makes its protocols with; `usual` makes those."""
        self._make: Callable[[], Any] = lambda: usual(config=config, server_state=server_state, **more)
        self._state = server_state
        self.connections: set[Any] = server_state.connections
        app = config.loaded_app
        self._trusted = app.trusted_hosts if isinstance(app, ProxyHeadersMiddleware) else None

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """The server's own headers: the date."""
        return self._state.default_headers

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs `work` as a request, which the server waits for when it stops."""
        task = asyncio.get_running_loop().create_task(work)
        self._state.tasks.add(task)
        task.add_done_callback(self._state.tasks.discard)

    def client(self, peer: str, headers: list[tuple[bytes, bytes]]) -> str:
        """The client's address: what a trusted proxy names, by uvicorn's own rules, or the peer's."""
        if self._trusted is not None and peer in self._trusted:
            named = [value for name, value in headers if name == b"x-forwarded-for"]
            if named:
                host, _ = self._trusted.get_trusted_client_address(b", ".join(named).decode("latin-1"))
                return host or peer
        return peer

    def hand_over(self, transport: asyncio.Transport, data: bytes) -> None:
        """Gives a connection to uvicorn's own protocol, with all that has come on it."""
        usual = self._make()
        transport.set_protocol(usual)
        usual.connection_made(transport)
        usual.data_received(data)
