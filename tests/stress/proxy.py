"""A TCP proxy on loopback that breaks connections when it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from enum import Enum
from typing import cast

Sieve = Callable[[bytes], bytes]
"""Takes what the server sends on one connection, piece by piece, and gives what is to go on."""

_NAME = re.compile(rb"[?&](?:client_id|_)=([^&\s]+)")
"""`_` is ignored by gateways, as what passes caches by: for a client whose ticket says who it is."""


class Cut(Enum):
    """RST throws away what is under way, FIN lets it arrive; MIDWAY sends a part of the next piece, then FIN."""

    RST = "rst"
    FIN = "fin"
    MIDWAY = "midway"


class _Side(asyncio.Protocol):
    """One end of a link. What comes here goes to the other end, no faster than that one takes it."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.transport: asyncio.Transport | None = None
        self.other: _Side | None = None
        self.early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if self is self.link.client:
            self.link.proxy.connect(self.link)

    def data_received(self, data: bytes) -> None:
        if self is self.link.client:
            self.link.look(data)
        elif self.link.midway is not None:
            share, self.link.midway = self.link.midway, None
            self._pass(data[: int(len(data) * share)])
            self.link.end(Cut.FIN)
            return
        elif self.link.sieve is not None:
            data = self.link.sieve(data)
        self._pass(data)

    def _pass(self, data: bytes) -> None:
        if self.other is None or self.other.transport is None:
            self.early.append(data)
        else:
            self.other.transport.write(data)

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None and not self.link.paused:
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self.link.end(Cut.RST if exc else Cut.FIN)


class Link:
    """One proxied connection."""

    def __init__(self, proxy: FaultProxy) -> None:
        self.proxy = proxy
        self.client = _Side(self)
        self.server = _Side(self)
        self.midway: float | None = None
        self.paused = False
        self.client_port = 0
        self.name: str | None = None
        """The `client_id` that its first request asks for; empty where it asks for none."""
        self.sieve = proxy.sieve() if proxy.sieve is not None else None

    def look(self, data: bytes) -> None:
        """The client's first piece has its request."""
        if self.name is None:
            found = _NAME.search(data)
            self.name = found[1].decode() if found else ""
            self.proxy.named(self)

    def join(self) -> None:
        """Both ends are there."""
        self.client.other, self.server.other = self.server, self.client
        for side in (self.client, self.server):  # NATS speaks first: its greeting may be here already
            early, side.early = side.early, []
            for data in early:
                side._pass(data)

    def end(self, how: Cut) -> None:
        """Ends both connections. Does nothing the second time."""
        if how is Cut.MIDWAY:
            self.midway = random.random()
            return
        self.proxy.forget(self)
        for side in (self.client, self.server):
            transport = side.transport
            if transport is None or transport.is_closing():
                continue
            if how is Cut.RST:
                raw = transport.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                transport.abort()
            else:
                transport.close()

    def pause(self, paused: bool) -> None:
        """Nothing from the server is read until it is told otherwise: the client is one that does not read."""
        self.paused = paused
        if self.server.transport is not None and not self.server.transport.is_closing():
            (self.server.transport.pause_reading if paused else self.server.transport.resume_reading)()


class FaultProxy:
    """Listens on `port` and passes on to loopback `upstream`."""

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.port = 0
        self.links: set[Link] = set()
        self.refusing = False
        """New connections are reset at once."""
        self.receive_bytes = 0
        """Receive buffer of the connections to the server; 0 leaves it to the kernel, which lets it grow."""
        self.sieve: Callable[[], Sieve] | None = None
        """Makes a sieve for each connection from now on."""
        self._by_port: dict[int, Link] = {}
        self._by_name: dict[str, Link] = {}
        self._joining: set[asyncio.Task[None]] = set()

    def cut_all(self, how: Cut) -> None:
        """Ends all connections at this moment."""
        for link in list(self.links):
            link.end(how)

    def link_of(self, client_port: int) -> Link | None:
        """The connection that comes from `client_port`."""
        return self._by_port.get(client_port)

    def link_for(self, name: str) -> Link | None:
        """The last connection that asked for the client id `name`, while it lives."""
        return self._by_name.get(name)

    def named(self, link: Link) -> None:
        """The link has told its name."""
        if link.name and link in self.links:
            self._by_name[link.name] = link

    def accept(self) -> asyncio.Protocol:
        return Link(self).client

    def connect(self, link: Link) -> None:
        """The client's end is there: makes the other."""
        assert link.client.transport is not None
        link.client_port = link.client.transport.get_extra_info("peername")[1]
        self.links.add(link)
        self._by_port[link.client_port] = link
        task = asyncio.get_running_loop().create_task(self._join(link))
        self._joining.add(task)
        task.add_done_callback(self._joining.discard)

    def forget(self, link: Link) -> None:
        """It has ended."""
        self.links.discard(link)
        if self._by_port.get(link.client_port) is link:
            del self._by_port[link.client_port]
        if link.name and self._by_name.get(link.name) is link:
            del self._by_name[link.name]

    async def _join(self, link: Link) -> None:
        if self.refusing:
            link.end(Cut.RST)
            return
        loop = asyncio.get_running_loop()
        upstream = socket.socket()
        upstream.setblocking(False)
        if self.receive_bytes:
            upstream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_bytes)
        try:
            await loop.sock_connect(upstream, ("127.0.0.1", self.upstream))
            await loop.create_connection(lambda: link.server, sock=upstream)
        except OSError:
            upstream.close()
            link.end(Cut.RST)
            return
        link.join()
        if link not in self.links:  # the client went meanwhile
            self.links.add(link)
            link.end(Cut.RST)


@asynccontextmanager
async def fault_proxy(upstream: int) -> AsyncIterator[FaultProxy]:
    """A proxy before loopback port `upstream`; at the end all its connections are cut."""
    proxy = FaultProxy(upstream)
    server = await asyncio.get_running_loop().create_server(proxy.accept, "127.0.0.1", 0, backlog=4096)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        proxy.cut_all(Cut.RST)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                await server.wait_closed()
