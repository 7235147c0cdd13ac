"""uvicorn's server, with an end that drains first."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from types import FrameType
from typing import Any, NamedTuple, cast

import uvicorn
from starlette.types import ASGIApp

from tidegate_common.auth.origins import Origins
from tidegate_common.errors import ConfigError
from tidegate_common.runtime.environment import CommonSettings
from tidegate_common.runtime.guard import Guard
from tidegate_common.runtime.hosts import HostCheck, Hosts, Responder, problem
from tidegate_common.runtime.listening import cannot_listen, in_url, listening
from tidegate_common.runtime.origins import OriginCheck
from tidegate_common.runtime.uvicorn_http.protocol import limited

log = logging.getLogger(__name__)

VERSION = version("tidegate-common")

HEADERS = [("x-content-type-options", "nosniff")]
"""Of every answer: events, answers and records hold what others wrote."""

Drain = Callable[[], Awaitable[None]]

CUT_SHARE = 0.9
"""Part of the drain time after which what is still connected is cut: peers that don't read would hold up the end."""

LAST_SHARE = 0.05
"""Part of the drain time that requests then have to notice it."""

LAST_SECONDS = 0.25
"""But not less: uvicorn looks every tenth of a second."""


class SocketOptions(NamedTuple):
    """What every accepted connection inherits from the listening socket: no system call for any of them."""

    write_timeout_seconds: int = 0
    """A peer that acknowledges nothing for so long is lost (ETIMEDOUT); 0 leaves it to the kernel.

    The kernel watches (TCP_USER_TIMEOUT, RFC 5482; Linux), so that no timer of ours does. If there is no such
    option, a peer that is gone without a FIN is found when its buffers are full.
    """
    send_bytes: int = 0
    """The kernel's send buffer (it doubles the number); 0 leaves it to it: 4 MB for a peer that stalls."""

    def set(self, listening: socket.socket) -> None:
        timeout = getattr(socket, "TCP_USER_TIMEOUT", None)
        with socket.fromfd(listening.fileno(), listening.family, listening.type) as own:  # uvloop's is no real one
            if timeout is not None and self.write_timeout_seconds:
                own.setsockopt(socket.IPPROTO_TCP, timeout, self.write_timeout_seconds * 1000)
            if self.send_bytes:
                own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.send_bytes)


class Server(uvicorn.Server):
    """Stops in the right order: no new connections, `drain`, then uvicorn's own waiting, all in `drain_seconds`.

    uvicorn alone waits for open streams before anything may end them, and raises the signal again at the end, so
    that a clean stop would look like a crash. Its protocols have to have `abort`.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        drain_seconds: float,
        drain: Drain | None = None,
        sockets: SocketOptions | None = None,
        guard: Guard | None = None,
    ) -> None:
        super().__init__(config)
        self._guard = guard
        self._drain_seconds = drain_seconds
        self._drain = drain
        self._options = sockets or SocketOptions()
        self._signal: str | None = None
        self.on_started: Callable[[], None] | None = None
        """Called once, when connections are taken."""
        self.on_stopping: Callable[[float], None] | None = None
        """Called once, when the stop begins, with the time of `time.monotonic` at which all of it is to be over."""

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """On `sockets`, or on what the settings say. Raises ConfigError if that can't be listened on."""
        await super().serve(sockets or listening(self.config.host, self.config.port))

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        except OSError as error:  # two processes may hold one port, until one of them listens
            raise ConfigError([cannot_listen(in_url(self.config.host, self.config.port), error)]) from None
        where: list[str] = []
        for server in self.servers:
            for listener in server.sockets:
                self._options.set(listener)
                where.append("http://" + in_url(*listener.getsockname()[:2]))
        log.info("Tidegate %s is up at %s (process %d)", VERSION, ", ".join(where), os.getpid())
        if self.on_started is not None:
            self.on_started()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # uvicorn's own raises the signal again at the end: here it is a request to stop, and a clean stop's code is 0.
        self._signal = self._signal or signal.Signals(sig).name
        self.force_exit = self.force_exit or (self.should_exit and sig == signal.SIGINT)
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        if self._guard is not None:
            self._guard.stopping = True
        begun = time.monotonic()
        log.info(
            "%s: stopping, with %d connections, within %g s (TIDEGATE_DRAIN_SECONDS)",
            self._signal or "end of the work",
            len(self.server_state.connections),
            self._drain_seconds,
        )
        if self.on_stopping is not None:
            self.on_stopping(begun + self._drain_seconds)
        cut_at = loop.time() + self._drain_seconds * CUT_SHARE
        cutting = loop.call_at(cut_at, self._cut)
        for server in self.servers:
            server.close()
        try:
            if self._drain is not None:
                await self._drain()
            # uvicorn counts from here on, and not from the beginning: with the whole drain time it would wait again for
            # peers that do not read, and call that an error.
            last = max(LAST_SECONDS, self._drain_seconds * LAST_SHARE)
            waiting = max(0.0, cut_at - loop.time()) + last
            self.config.timeout_graceful_shutdown = waiting  # type: ignore[assignment]  # it takes fractions
            await super().shutdown(sockets)
        finally:
            cutting.cancel()
        log.info("stopped after %.1f s", time.monotonic() - begun)

    def _cut(self) -> None:
        left = len(self.server_state.connections)
        if left:
            log.warning("%d connections have not ended in time and are cut off", left)
        for connection in list(cast(set[Any], self.server_state.connections)):
            connection.abort()

    @property
    def port(self) -> int:
        """The port that is listened on, if the settings left the choice to the system."""
        return int(self.servers[0].sockets[0].getsockname()[1])


def server(
    app: ASGIApp,
    settings: CommonSettings,
    *,
    drain: Drain | None = None,
    guard: Guard | None = None,
    protocol: Any = None,
    sockets: SocketOptions | None = None,
    refusal: Responder = problem,
) -> Server:
    """A server for `app` as the settings say; its access log is off, since streams and probes would fill it.

    `guard` holds the connections to their limits, for its counts to be read by others; `protocol` makes uvicorn's
    protocols, if it is to be another than the usual one, which is given that guard; `refusal` makes the answer to a
    request for a host that is not ours, or from another site's page.
    """
    guard = guard or Guard(settings.http_limits())
    own_pages = OriginCheck(app, Origins(settings.cors_origins), refusal)
    config = uvicorn.Config(
        HostCheck(own_pages, Hosts(settings.allowed_hosts), refusal),
        host=settings.host,
        port=settings.port,
        http=protocol or limited(guard),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        headers=HEADERS,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        backlog=4096,
    )
    return Server(config, settings.drain_seconds, drain, sockets, guard)


def check_port_free(settings: CommonSettings) -> None:
    """Raises ConfigError if the address can't be listened on: said before anything else is started."""
    for bound in listening(settings.host, settings.port):
        bound.close()
