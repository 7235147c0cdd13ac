"""What the event stream keeps: its present position, and the events after one, read by direct batch get.

In a cluster any server that keeps a copy answers a direct get (ADR-31), a follower that is behind too, and its answer
does not show it. So there the leader is asked first for the last event on what is read, and a page counts as the last
one when that event, or a later one, has been seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

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

GATHER_SECONDS = 0.002
"""Between two questions for the position where many ask: those who come meanwhile share the next one."""

PROBE_SECONDS = 1.0
"""How long a probe waits for the leader."""

BEHIND_SECONDS = 0.05
"""Between two looks at a copy of the stream that is behind its leader."""

NOT_FOUND = 10037
"""JetStream's error code for no such message."""


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


class Latest(NamedTuple):
    """The last event on each subject, as the copy of the stream that was asked has it up to sequence `upto`."""

    sequences: dict[str, int]
    """By tail."""
    upto: int
    """0 where it has nothing at all on what was asked for: then it does not say how far it is."""


class _State(msgspec.Struct):
    first_seq: int
    last_seq: int


class _Cluster(msgspec.Struct):
    replicas: list[msgspec.Raw] = []


class _Info(msgspec.Struct):
    created: str = ""
    state: _State | None = None
    cluster: _Cluster | None = None


class _Message(msgspec.Struct):
    seq: int
    data: bytes = b""


class _Error(msgspec.Struct):
    err_code: int = 0


class _Found(msgspec.Struct):
    message: _Message | None = None
    error: _Error | None = None


_INFO = msgspec.json.Decoder(_Info)
_FOUND = msgspec.json.Decoder(_Found)


class History:
    """Reads the event stream."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._stream = bus.subjects.events_stream
        self._asking: asyncio.Task[None] | None = None
        self._waiting: list[asyncio.Future[Position]] = []
        """For an answer to a question that has not been asked yet."""
        self._places = asyncio.Semaphore(AT_ONCE)
        self._copies = False
        """Whether servers beside the leader answer for the stream."""
        self.pages = 0
        """Pages read so far."""

    async def position(self) -> Position:
        """The stream's position at some moment after this call. Raises BrokerUnavailable.

        Callers share a request: one that is under way may have been answered before this call, so all that come
        meanwhile wait for the one after it. 10,000 connections at once cost a few requests.
        """
        answer: asyncio.Future[Position] = asyncio.get_running_loop().create_future()
        self._waiting.append(answer)
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_for_all())
        return await answer

    async def _ask_for_all(self) -> None:
        """Asks as long as somebody waits; whoever comes while a question is under way is answered by the next."""
        asked = False
        while self._waiting:
            if asked:
                await asyncio.sleep(GATHER_SECONDS)
            asked = True
            waiting, self._waiting = self._waiting, []
            try:
                position = await self._ask()
            except Exception as error:
                for answer in waiting:
                    if not answer.done():
                        answer.set_exception(error)
            else:
                for answer in waiting:
                    if not answer.done():  # cancelled: it does not wait any more
                        answer.set_result(position)

    async def answers(self) -> None:
        """Returns when the stream's leader has answered just now. Raises BrokerUnavailable, soon enough for a probe."""
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await self.position()
        except TimeoutError as error:
            raise BrokerUnavailable("NATS does not answer for the stream") from error

    async def _ask(self) -> Position:
        info = _INFO.decode(await self._request("STREAM.INFO", b""))
        if info.state is None:
            raise BrokerUnavailable(f"the stream {self._stream} does not exist")
        self._copies = info.cluster is not None and bool(info.cluster.replicas)
        return Position(epoch_of(self._stream, info.created), info.state.first_seq, info.state.last_seq)

    async def after(self, tail: str, sequence: int, upto: int) -> AsyncIterator[Stored]:
        """Events on `tail` (wildcards allowed) with sequences over `sequence` up to `upto`, in order, page by page.

        Raises BrokerUnavailable, also where only a copy of the stream answers that stays behind its leader.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + TIMEOUT_SECONDS
        goal = await self.last_on(tail) if self._copies else 0
        while sequence < upto and not (self._copies and sequence >= goal):
            async with self._places:
                page = await self._page(tail, sequence + 1)
            for stored in page:
                if stored.sequence > upto:
                    return
                yield stored
            sequence = max(sequence, page[-1].sequence if page else 0)
            if len(page) == PAGE:
                continue
            if not self._copies:
                return
            if sequence < goal:
                if loop.time() > deadline:
                    raise BrokerUnavailable("the copy of the stream that NATS reads from is behind")
                await asyncio.sleep(BEHIND_SECONDS)
                goal = await self.last_on(tail)  # it may have been removed from the stream

    async def last_on(self, tail: str) -> int:
        """Sequence of the last event on `tail` by the leader's word; 0 for none. Raises BrokerUnavailable."""
        return (await self.last(tail))[0]

    async def last(self, tail: str) -> tuple[int, bytes]:
        """As `last_on`, and its payload."""
        ask = msgspec.json.encode({"last_by_subj": self._bus.subjects.inbound(tail)})
        async with self._places:
            found = _FOUND.decode(await self._request("STREAM.MSG.GET", ask))
        if found.message is not None:
            return found.message.seq, found.message.data
        if found.error is not None and found.error.err_code == NOT_FOUND:
            return 0, b""
        raise BrokerUnavailable(f"NATS does not say what is last on {tail}")

    async def _request(self, call: str, body: bytes) -> bytes:
        """Asks the stream's leader. Raises BrokerUnavailable."""
        try:
            if not self._bus.connected:
                raise BrokerUnavailable("NATS is away")
            subject = f"$JS.API.{call}.{self._stream}"
            answer = await self._bus.client.request(subject, body, timeout=TIMEOUT_SECONDS)
        except (nats_errors.Error, TimeoutError) as error:
            raise BrokerUnavailable("NATS does not answer for the stream") from error
        return answer.data

    async def latest(self, tails: Sequence[str], after: int) -> Latest | None:
        """The last event on each subject of `tails` (wildcards allowed), where its sequence is over `after`.

        None where they match more than 1,024 subjects. Raises BrokerUnavailable.
        """
        subjects = [self._bus.subjects.inbound(tail) for tail in tails]
        async with self._places:
            found, block = await self._direct({"multi_last": subjects, "seq": after + 1}, (204, 404, 413))
        if headers.status(block) == 413:
            return None
        upto = headers.field(block, headers.UP_TO_SEQUENCE)
        return Latest({stored.tail: stored.sequence for stored in found}, int(upto or 0))

    async def _page(self, tail: str, start: int) -> list[Stored]:
        """Up to PAGE events on `tail` from sequence `start` on."""
        self.pages += 1
        ask = {"seq": start, "next_by_subj": self._bus.subjects.inbound(tail), "batch": PAGE}
        return (await self._direct(ask, (204, 404)))[0]

    async def _direct(self, ask: dict[str, Any], ends: tuple[int, ...]) -> tuple[list[Stored], bytes]:
        """A direct get: the messages, and the header block of the status that ended them, which is one of `ends`.

        204 ends an answer, 404 says that there is nothing to be had. Raises BrokerUnavailable for any other.
        """
        client = self._bus.client
        done: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        found: list[Stored] = []
        skip = len(self._bus.subjects.inbound(""))

        def receive(_: bytes, block: bytes, payload: bytes) -> None:
            code = headers.status(block)
            if code is None:
                sequence, subject = (
                    headers.field(block, headers.SEQUENCE),
                    headers.field(block, headers.SUBJECT),
                )
                if sequence and subject:
                    found.append(Stored(int(sequence), subject.decode()[skip:], block, payload))
            elif not done.done():
                if code in ends:
                    done.set_result(block)
                else:
                    done.set_exception(BrokerUnavailable(f"NATS refused to read the stream (status {code})"))

        if not self._bus.connected:
            raise BrokerUnavailable("NATS is away")
        inbox: str = client.new_inbox()
        sid = client.subscribe_direct(inbox, receive)
        try:
            await client.publish(f"$JS.API.DIRECT.GET.{self._stream}", msgspec.json.encode(ask), reply=inbox)
            async with asyncio.timeout(TIMEOUT_SECONDS):
                return found, await done
        except (nats_errors.Error, TimeoutError) as error:
            raise BrokerUnavailable("NATS did not send the events that were missed") from error
        finally:
            client.unsubscribe_direct(sid)
