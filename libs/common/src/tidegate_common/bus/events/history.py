"""What the event stream keeps: its present position, and the events after one, read by direct batch get.

In a cluster any server that keeps a copy answers a direct get (ADR-31), a follower that is behind too, and its answer
does not show it. So there the leader is asked first for the last event on what is read, and a page counts as the last
one when that event, or a later one, has been seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from tidegate_common.bus.connection import Bus
from tidegate_common.bus.requests.jetstream import STREAM_NOT_FOUND, Found, JetStreamError
from tidegate_common.bus.requests.pages import AT_ONCE, TIMEOUT_SECONDS, Page, Pages, Stored
from tidegate_common.bus.streams.definitions import epoch_of
from tidegate_common.bus.streams.leaders import Leaders, leader_of
from tidegate_common.bus.streams.lives import CREATED, EARLIER, EPOCH, Earlier, Life, Notes
from tidegate_common.contract.ids import EventId
from tidegate_common.contract.subjects import covers
from tidegate_common.errors import BrokerUnavailable, NotSent

__all__ = ["PAGE", "History", "Position", "Stored"]

PAGE = 256
"""Events on a page at most."""

GATHER_SECONDS = 0.002
"""Between two questions for the position if many ask: those who come meanwhile share the next one."""

POSITION_SECONDS = 2.0
"""How long the leader has to tell the stream's position: if there is none, nobody answers."""

BEHIND_SECONDS = 0.05
"""Between two looks at a copy of the stream that is behind its leader."""


class Position(NamedTuple):
    """The stream at one moment: it keeps sequences `first` to `last`, those that limits dropped left out."""

    epoch: str
    first: int
    last: int
    per_subject: int = -1
    """Events that the stream keeps of one subject at the most; -1 for no limit."""
    copies: bool = False
    """Whether servers beside the leader have the stream: one that is cut off may speak for it for a while."""
    earlier: tuple[Earlier, ...] = ()
    """The lives before this one: the stream was restored since."""

    @property
    def life(self) -> Life:
        return Life(self.epoch, self.earlier)

    def place(self, event_id: EventId) -> int | None:
        """The sequence of that event here; None if it is of another life, or past the end."""
        place = self.life.place(event_id)
        return place if place is not None and place <= self.last else None


ASK_BYTES = 1024
"""Of a question for the last events, beside the subjects that it was made for."""


class History:
    """Reads the event stream."""

    def __init__(self, bus: Bus, leaders: Leaders | None = None) -> None:
        """`leaders` is who waits for the stream to have one, if a caller does."""
        self._bus = bus
        self.leaders = leaders or Leaders(bus)
        self._stream = bus.subjects.events_stream
        self._asking: asyncio.Task[None] | None = None
        self._waiting: list[asyncio.Future[Position]] = []
        """For an answer to a question that has not been asked yet."""
        self._pages = Pages(bus, self._stream, bus.subjects.inbound(""))
        self._questions = asyncio.Semaphore(AT_ONCE)
        self._copies = False
        """Whether servers beside the leader answer for the stream."""
        self._life: tuple[tuple[str | None, ...], Life] = (), Life("")
        """What the stream told of its life, and which one that is."""
        self.pages = 0
        """Pages read so far."""

    async def patient_position(self) -> Position:
        """As `position`, but while NATS is away or the stream has no leader it is waited for, within bounds."""
        return await self.leaders.outlast(self._stream, self.position, repeatable=True)

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

    async def _ask(self) -> Position:
        try:
            info = await self._bus.api.call(f"STREAM.INFO.{self._stream}", seconds=POSITION_SECONDS)
        except JetStreamError as error:
            if error.code == STREAM_NOT_FOUND:
                raise NotSent(f"the stream {self._stream} does not exist") from error
            raise
        if leader_of(info) is None:
            raise NotSent(f"the stream {self._stream} has no leader")
        state, config = info["state"], info["config"]
        self._copies = bool((info.get("cluster") or {}).get("replicas"))
        life = await self._life_of(info["created"], config.get("metadata"), state["last_seq"])
        most = config.get("max_msgs_per_subject", -1)
        return Position(life.epoch, state["first_seq"], state["last_seq"], most, self._copies, life.earlier)

    async def _life_of(self, created: str, metadata: dict[str, str] | None, last: int) -> Life:
        """The stream's life, as all processes find it, whether it is noted yet or not."""
        told = (created, *map((metadata or {}).get, (EPOCH, CREATED, EARLIER)))
        if told != self._life[0]:
            notes = Notes.parse(metadata)
            life = Life(epoch_of(self._stream, created)) if notes is None else notes.life
            if notes is not None and notes.created != created:  # restored
                life = life.followed(epoch_of(self._stream, created), await self._last_before(created, last))
            self._life = told, life
        return self._life[1]

    async def _last_before(self, created: str, last: int) -> int:
        """Sequence of the last event that was restored: all that were stored here since are younger than the stream."""
        found = await self._bus.api.message(
            self._stream, start_time=created, next_by_subj=self._bus.subjects.inbound(">")
        )
        return last if found is None else found.sequence - 1

    async def after(self, tail: str, sequence: int, upto: int) -> AsyncIterator[Stored]:
        """Events on `tail` (wildcards allowed) with sequences over `sequence` up to `upto`, in order, page by page.

        Raises BrokerUnavailable, also if only a copy of the stream answers and stays behind its leader.
        """
        loop = asyncio.get_running_loop()
        goal = await self.last_on(tail) if self._copies else 0
        deadline = loop.time() + TIMEOUT_SECONDS
        while sequence < upto and not (self._copies and sequence >= goal):
            page = await self._page(tail, sequence + 1)
            for stored in page.events:
                if stored.sequence > upto:
                    return
                yield stored
            if page.events:
                sequence = page.events[-1].sequence
                deadline = loop.time() + TIMEOUT_SECONDS  # whoever reads may have taken its time
            if page.left:
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
        found = await self._last(tail)
        return (0, b"") if found is None else (found.sequence, found.payload)

    async def _last(self, tail: str) -> Found | None:
        async with self._questions:
            return await self._bus.api.message(self._stream, last_by_subj=self._bus.subjects.inbound(tail))

    async def latest(self, tails: Sequence[str], after: int, upto: int = 0) -> dict[str, int] | None:
        """The last event on each subject of `tails` (wildcards allowed), by tail, if its sequence is over `after`.

        The answer holds for everything up to `upto`. None if they match more than 1,024 subjects. Raises
        BrokerUnavailable, also if only a copy of the stream answers that stays behind its leader.
        """
        size = sum(len(self._bus.subjects.inbound(tail)) + 3 for tail in tails)  # in JSON, with quotes and a comma
        if len(tails) > 1 and size > self._bus.client.max_payload - ASK_BYTES:
            half = len(tails) // 2
            first, second = await self.latest(tails[:half], after, upto), await self.latest(tails[half:], after, upto)
            return None if first is None or second is None else first | second
        if not self._copies:
            return (await self._latest(tails, after))[0]
        deadline = asyncio.get_running_loop().time() + TIMEOUT_SECONDS
        while True:
            # A copy says how far it is if it has anything to send, and nothing else. So it is also asked for what is
            # the stream's last event by the leader's word, which makes its silence on the others an answer.
            probe = await self._last_tail()
            if probe is None or probe[1] <= after:
                return {}
            tail, _ = probe
            found, reached = await self._latest([*tails, tail], after)
            if found is None:
                return None
            if reached >= upto:
                return {each: last for each, last in found.items() if each != tail or _asked(tails, tail)}
            if asyncio.get_running_loop().time() > deadline:
                raise BrokerUnavailable("the copy of the stream that NATS reads from is behind")
            await asyncio.sleep(BEHIND_SECONDS)

    async def _latest(self, tails: Sequence[str], after: int) -> tuple[dict[str, int] | None, int]:
        """As `latest`, of whichever copy answers, and up to where that one is; 0 if it does not say."""
        subjects = [self._bus.subjects.inbound(tail) for tail in tails]
        sequences: dict[str, int] = {}
        upto: int | None = None
        while True:
            page = await self._pages.page({"multi_last": subjects, "seq": after + 1})
            if page.too_many:
                return None, 0
            sequences |= {stored.tail: stored.sequence for stored in page.events}
            upto = page.upto if upto is None else min(upto, page.upto)  # another copy may have sent this one
            if not page.left:
                return sequences, upto
            after = page.events[-1].sequence

    async def _last_tail(self) -> tuple[str, int] | None:
        """Which tail the stream's last event is on, and its sequence, by the leader's word; None for none."""
        found = await self._last(">")
        return None if found is None else (found.subject[len(self._bus.subjects.inbound("")) :], found.sequence)

    async def _page(self, tail: str, start: int) -> Page:
        """The first events on `tail` from sequence `start` on."""
        self.pages += 1
        return await self._pages.page({"seq": start, "next_by_subj": self._bus.subjects.inbound(tail), "batch": PAGE})


def _asked(tails: Sequence[str], tail: str) -> bool:
    return any(each == tail or covers(each, tail) for each in tails)
