"""A small server that speaks the NATS protocol and says what it is told to: for what a real one can't be brought to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from tests.support.waiting import until


class _Connection(NamedTuple):
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    subscribed: dict[str, str]

    def fail(self, text: str, *, close: bool) -> None:
        self.writer.write(b"-ERR '%s'\r\n" % text.encode())
        if close:
            self.writer.close()


class ScriptedNats:
    """`connections` counts all. A test speaks to the newest one, or cuts it. An older one may still be read, and is
    answered by itself.

    A switch that is flipped also counts for connections whose next line is not read yet. Before a test flips one that
    decides about new connections, it waits until none is on its way: see `idle`.
    """

    def __init__(self, port: int, info: dict[str, Any]) -> None:
        self.port = port
        self.url = f"nats://127.0.0.1:{port}"
        self.info = info
        self.connections = 0
        self.connects: list[dict[str, Any]] = []
        """The CONNECT commands."""
        self.refuses = ""
        """Said to each CONNECT, before the end of the connection; empty: it is accepted."""
        self.silent = False
        """It takes connections and says nothing."""
        self.mute = False
        """It answers no PING."""
        self.pings = 0
        """Of all connections, answered or not."""
        self.published = 0
        """Messages that were read, of all connections."""
        self.ended = 0
        """Connections that are over, and all that they brought is read."""
        self.on_subscribed: Callable[[str], object] = lambda subject: None
        """Called with the subject of each subscription, before anything that comes after it is read."""
        self.reads = asyncio.Event()
        """Unset: it hangs, and reads nothing."""
        self.reads.set()
        self._present: _Connection | None = None

    @property
    def subscribed(self) -> dict[str, str]:
        """The subjects of the present connection, by id."""
        return {} if self._present is None else self._present.subscribed

    @property
    def idle(self) -> bool:
        """Whether there is no connection, nor anything of one that is still to be read."""
        return self.ended == self.connections

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        present = self._present = _Connection(reader, writer, {})
        if not self.silent:
            writer.write(b"INFO " + json.dumps(self.info).encode() + b"\r\n")
        try:
            while line := await reader.readline():
                await self._take(line.split(), line, present)
                await self.reads.wait()
        except (ConnectionError, EOFError):
            pass
        finally:
            self.ended += 1
            writer.close()

    async def _take(self, words: list[bytes], line: bytes, by: _Connection) -> None:
        match words[0]:
            case b"CONNECT":
                self.connects.append(json.loads(line[8:]))
                if self.refuses:
                    by.fail(self.refuses, close=True)
            case b"PING":
                self.pings += 1
                if not self.mute and not by.writer.is_closing():
                    by.writer.write(b"PONG\r\n")
            case b"SUB":
                by.subscribed[words[-1].decode()] = words[1].decode()
                self.on_subscribed(words[1].decode())
            case b"UNSUB":
                by.subscribed.pop(words[1].decode(), None)
            case b"PUB" | b"HPUB":
                await by.reader.readexactly(int(words[-1]) + 2)
                self.published += 1

    @property
    def _connection(self) -> _Connection:
        assert self._present is not None, "nobody is connected"
        return self._present

    def write(self, data: bytes) -> None:
        self._connection.writer.write(data)

    def fail(self, text: str, *, close: bool = True) -> None:
        """Says `-ERR`, and ends the connection, as nats-server mostly does."""
        self._connection.fail(text, close=close)

    def cut(self) -> None:
        self._connection.writer.close()

    def send(self, subject: str, payload: bytes) -> None:
        """A message to whoever has subscribed to `subject`."""
        for sid, wanted in self.subscribed.items():
            if wanted == subject:
                self.write(b"MSG %s %s %d\r\n%s\r\n" % (subject.encode(), sid.encode(), len(payload), payload))

    async def has_subscriber(self, subject: str) -> None:
        await until(lambda: subject in self.subscribed.values(), f"{subject} is subscribed to")

    async def aclose(self) -> None:
        """Ends the connection that there is, and returns when nothing is read any more. A reader that the loop's end
        cancels is logged by asyncio as an error."""
        self.reads.set()
        if self._present is not None:
            self.cut()
        await until(lambda: self.idle, "its connections are over")


@asynccontextmanager
async def scripted_nats(**info: Any) -> AsyncIterator[ScriptedNats]:
    """Listens on a free port of loopback; `info` is added to what it says of itself."""
    told = {"server_id": "scripted", "version": "2.15.1", "headers": True, "max_payload": 1 << 20, "proto": 1, **info}
    scripted = ScriptedNats(0, told)
    server = await asyncio.start_server(scripted.accept, "127.0.0.1", 0)
    scripted.port = server.sockets[0].getsockname()[1]
    scripted.url = f"nats://127.0.0.1:{scripted.port}"
    try:
        yield scripted
    finally:
        server.close()
        await scripted.aclose()
