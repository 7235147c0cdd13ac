"""uvicorn's server, with an end that drains first."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from tidegate_common.errors import ConfigError
from tidegate_common.runtime.protocol import LimitedHttpProtocol, limited
from tidegate_common.runtime.settings import CommonSettings

Drain = Callable[[], Awaitable[None]]


class Server(uvicorn.Server):
    """Stops in the right order: no new connections, `drain`, then uvicorn's own waiting.

    uvicorn alone waits for open streams before anything may end them, and raises the signal again at the end, so
    that a clean stop would look like a crash.
    """

    def __init__(self, config: uvicorn.Config, drain: Drain | None = None) -> None:
        super().__init__(config)
        self._drain = drain

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self._captured_signals.clear()  # a signal is a request to stop: the exit code of a clean stop is 0

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        if self._drain is not None:
            await self._drain()
        await super().shutdown(sockets)

    @property
    def port(self) -> int:
        """The port that is listened on, where the settings left the choice to the system."""
        return int(self.servers[0].sockets[0].getsockname()[1])


def server(
    app: ASGIApp,
    settings: CommonSettings,
    *,
    drain: Drain | None = None,
    protocol: type[LimitedHttpProtocol] = LimitedHttpProtocol,
) -> Server:
    """A server for `app` as the settings say; its access log is off, since streams and probes would fill it."""
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=limited(settings.max_header_bytes, protocol),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        timeout_graceful_shutdown=max(1, round(settings.drain_seconds)),
        backlog=4096,
    )
    return Server(config, drain)


def check_port_free(settings: CommonSettings) -> None:
    """Raises ConfigError where the address can't be listened on: said before anything else is started."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((settings.host, settings.port))
    except OSError as error:
        fault = f"{settings.host}:{settings.port} can't be listened on ({error.strerror})"
        raise ConfigError([f"{fault}: set TIDEGATE_PORT or TIDEGATE_HOST"]) from None
