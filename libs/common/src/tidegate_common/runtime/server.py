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

    def __init__(self, config: uvicorn.Config, drain: Drain | None = None, write_timeout_seconds: int = 0) -> None:
        super().__init__(config)
        self._drain = drain
        self._write_timeout = write_timeout_seconds

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for server in self.servers:
            for listening in server.sockets:
                set_write_timeout(listening, self._write_timeout)

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
    write_timeout_seconds: int = 0,
) -> Server:
    """A server for `app` as the settings say; its access log is off, since streams and probes would fill it.

    `write_timeout_seconds`: a peer that has taken nothing for so long is cut off; 0 leaves it to the kernel.
    """
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
    return Server(config, drain, write_timeout_seconds)


def set_write_timeout(listening: socket.socket, seconds: int) -> None:
    """Connections accepted on `listening` end with ETIMEDOUT when the peer acknowledges nothing for `seconds`.

    The kernel watches (TCP_USER_TIMEOUT, RFC 5482; Linux): no timer, and no system call for a connection, since it
    inherits the option. Where there is no such option, a peer without a FIN is found when its buffers are full.
    """
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if option is not None and seconds:
        with socket.fromfd(listening.fileno(), listening.family, listening.type) as own:  # uvloop's is no real one
            own.setsockopt(socket.IPPROTO_TCP, option, seconds * 1000)


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
