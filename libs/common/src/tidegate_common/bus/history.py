"""What the event stream keeps: its present position, and the events after one, read by direct batch get."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import NamedTuple

import msgspec
from nats import errors as nats_errors

from tidegate_common.bus import headers
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.streams import epoch_of
from tidegate_common.errors import BrokerUnavailable

PAGE = 256
"""Messages asked for at once: bounds what a replay holds in memory."""

AT_ONCE = 64
"""Pages that are asked for at the same time: a storm of returning clients must not drown the server's live work."""

TIMEOUT_SECONDS = 5.0


class Position(NamedTuple):
    """The stream at one moment: it keeps sequences `first` to `last`, those that limits dropped left out."""

    epoch: str
    first: int
    last: int


class Stored(NamedTuple):
    """One stored event: its sequence, the tail that it addressed, its raw header block and its payload."""

    sequence: int
    tail: str
    header: bytes
    payload: bytes


class _State(msgspec.Struct):
    first_seq: int
    last_seq: int


class _Info(msgspec.Struct):
    created: str = ""
    state: _State | None = None


_INFO = msgspec.json.Decoder(_Info)


class History:
    """Reads the event stream."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._stream = bus.subjects.events_stream
        self._asked: asyncio.Task[Position] | None = None
        self._next: asyncio.Task[Position] | None = None
        self._places = asyncio.Semaphore(AT_ONCE)
        self.pages = 0
        """Pages read so far."""

    async def position(self) -> Position:
        """The stream's position at some moment after this call. Raises BrokerUnavailable.

        Callers share a request: one that is under way may have been answered before this call, so all that come
        meanwhile wait for the one after it. 10,000 connections at once cost a few requests.
        """
        if self._asked is None or self._asked.done():
            self._asked = task = asyncio.create_task(self._ask())
        elif self._next is None or self._next.done():
            self._next = task = asyncio.create_task(self._ask_after(self._asked))
        else:
            task = self._next
        return await asyncio.shield(task)

    async def _ask_after(self, earlier: asyncio.Task[Position]) -> Position:
        await asyncio.wait([earlier])
        self._asked, self._next = asyncio.current_task(), None
        return await self._ask()

    async def _ask(self) -> Position:
        try:
            if not self._bus.connected:
                raise BrokerUnavailable("NATS is away")
            answer = await self._bus.client.request(f"$JS.API.STREAM.INFO.{self._stream}", b"", timeout=TIMEOUT_SECONDS)
        except (nats_errors.Error, TimeoutError) as error:
            raise BrokerUnavailable("NATS does not say the stream's position") from error
        info = _INFO.decode(answer.data)
        if info.state is None:
            raise BrokerUnavailable(f"the stream {self._stream} does not exist")
        return Position(epoch_of(self._stream, info.created), info.state.first_seq, info.state.last_seq)

    async def after(self, tail: str, sequence: int, upto: int) -> AsyncIterator[Stored]:
        """Events on `tail` (wildcards allowed) with sequences over `sequence` up to `upto`, in order, page by page.

        Raises BrokerUnavailable.
        """
        while sequence < upto:
            async with self._places:
                page = await self._page(tail, sequence + 1)
            for stored in page:
                if stored.sequence > upto:
                    return
                yield stored
            if len(page) < PAGE:
                return
            sequence = page[-1].sequence

    async def _page(self, tail: str, start: int) -> list[Stored]:
        """Up to PAGE events on `tail` from sequence `start` on."""
        client, subjects = self._bus.client, self._bus.subjects
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        page: list[Stored] = []
        skip = len(subjects.inbound(""))

        def receive(_: bytes, block: bytes, payload: bytes) -> None:
            code = headers.status(block)
            if code is None:
                sequence, subject = (
                    headers.field(block, headers.SEQUENCE),
                    headers.field(block, headers.SUBJECT),
                )
                if sequence and subject:
                    page.append(Stored(int(sequence), subject.decode()[skip:], block, payload))
            elif not done.done():
                # 204 ends a page, 404 says that there is nothing to be had: any other is a refusal.
                if code in (204, 404):
                    done.set_result(None)
                else:
                    done.set_exception(BrokerUnavailable(f"NATS refused to read the stream (status {code})"))

        if not self._bus.connected:
            raise BrokerUnavailable("NATS is away")
        self.pages += 1
        inbox: str = client.new_inbox()
        sid = client.subscribe_direct(inbox, receive)
        try:
            ask = msgspec.json.encode({"seq": start, "next_by_subj": subjects.inbound(tail), "batch": PAGE})
            await client.publish(f"$JS.API.DIRECT.GET.{self._stream}", ask, reply=inbox)
            async with asyncio.timeout(TIMEOUT_SECONDS):
                await done
        except (nats_errors.Error, TimeoutError) as error:
            raise BrokerUnavailable("NATS did not send the events that were missed") from error
        finally:
            client.unsubscribe_direct(sid)
        return page
