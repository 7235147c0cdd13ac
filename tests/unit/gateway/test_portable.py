"""A stream within ASGI, on a server that keeps to the specification and has nothing beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.types import Message

from gateway import frame
from gateway.hub.endings import Ending
from gateway.hub.session import Session
from gateway.sse.portable import PortableStream
from tests.support.waiting import until
from tidegate_common.runtime.tasks import end

HELLO, BYE = frame.chunk(b"data: hello\n\n"), frame.chunk(b"data: bye\n\n")


class Exchange:
    """One request, as a server sees it; the peer reads what is sent while `reading` is set."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.gone = asyncio.Event()
        self.reading = asyncio.Event()
        self.reading.set()
        self.lost: list[Session] = []
        self.stream = PortableStream(self.send, None, 1000)
        self.stream.on_lost = self.lost.append

    async def send(self, message: Message) -> None:
        await self.reading.wait()
        self.sent.append(message)
        if not message.get("more_body", True):
            self.gone.set()

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    async def run(self, opening: Callable[[], Awaitable[None]] | None = None) -> None:
        await self.stream.run(self.receive, (opening or self.stream.start)())


async def test_what_is_sent_before_the_head_is_out_comes_after_it() -> None:
    own = Exchange()
    own.reading.clear()
    running = asyncio.create_task(own.run())
    await asyncio.sleep(0)
    own.stream.send(HELLO)
    own.stream.close(Ending.DRAIN, BYE)
    own.reading.set()
    await running
    assert [message["type"] for message in own.sent[:2]] == ["http.response.start", "http.response.body"]
    assert own.body == b"data: hello\n\ndata: bye\n\n"
    assert (own.lost, own.stream.ending) == ([own.stream], Ending.DRAIN)


async def test_a_client_that_leaves_while_it_is_attached_is_told_of_at_once_and_sent_nothing() -> None:
    own, attached = Exchange(), asyncio.Event()

    async def opening() -> None:
        await attached.wait()
        await own.stream.start()

    running = asyncio.create_task(own.run(opening))
    own.gone.set()
    await until(lambda: own.lost == [own.stream], "its leaving is known")
    attached.set()
    await running
    assert (own.sent, own.stream.ending) == ([], Ending.CLIENT)


async def test_a_stream_whose_attaching_fails_after_its_head_is_ended_with_a_word() -> None:
    own = Exchange()

    async def opening() -> None:
        await own.stream.start()
        own.stream.close(Ending.FEED, BYE)
        raise RuntimeError("a fault of ours")

    with pytest.raises(RuntimeError):
        await own.run(opening)
    assert own.body == b"data: bye\n\n"
    assert own.lost == [own.stream]


async def test_who_does_not_read_its_farewell_is_left_to_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its place is free, though nothing can be cut off here."""
    monkeypatch.setattr(PortableStream, "linger_seconds", 0.01)
    own = Exchange()
    running = asyncio.create_task(own.run())
    await until(lambda: bool(own.sent), "its head is out")
    own.reading.clear()
    own.stream.send(frame.chunk(b"x" * 2000))
    assert own.stream.paused
    own.stream.close(Ending.SLOW, BYE)
    await running
    assert (own.lost, own.stream.ending) == ([own.stream], Ending.SLOW)
    assert own.body == b""


async def test_a_stream_of_which_nothing_is_waited_for_has_one_task_beside_its_requests() -> None:
    own = Exchange()
    before = asyncio.all_tasks()
    running: asyncio.Task[Any] = asyncio.create_task(own.run())
    own.stream.send(HELLO)
    await until(lambda: own.body == b"data: hello\n\n", "it is written")
    await until(lambda: len(asyncio.all_tasks() - before) == 2, "the request's own, and one that listens")
    await end([running])
    assert own.lost == [own.stream]
