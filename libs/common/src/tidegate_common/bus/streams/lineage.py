"""Notes the event stream's life in its metadata, and begins a new one if the stream was restored.

That a stream was restored by JetStream's API shows: it has another time of creation than was noted, and no two
processes can take that for different lives. A copy of the store's files that is put back does not show, unless this
process has seen what is missing: the operator says it (`TIDEGATE_EVENTS_RESTORED`). One service alone writes notes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any, NamedTuple

from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.history import History, Position
from tidegate_common.bus.streams.advisories import on_update
from tidegate_common.bus.streams.definitions import StreamLimits, epoch_of, events_config
from tidegate_common.bus.streams.differences import differences
from tidegate_common.bus.streams.lives import Life, Notes
from tidegate_common.errors import BrokerUnavailable
from tidegate_common.telemetry.trouble import Trouble

log = logging.getLogger(__name__)

EVERY_SECONDS = 5.0
"""Between two looks: a stream that was made anew has its note after so long."""


START_SECONDS = 10.0
"""How long a start waits for the note of a restore that it was told of."""

START_AGAIN_SECONDS = 0.2


class _Seen(NamedTuple):
    created: str
    life: Life
    last: int


class Lineage:
    """Keeps the notes of one event stream."""

    def __init__(self, bus: Bus, history: History, restored: str = "") -> None:
        """`restored` is the operator's word for the last time when he put back a copy of the store; any text."""
        self._bus = bus
        self._history = history
        self._restored = restored
        self._told = restored
        """His word until it is noted. One that another process notes after that is a newer one."""
        self._api = bus.api
        self._stream = bus.subjects.events_stream
        self._wanted = events_config(bus.subjects, StreamLimits())
        self._seen = _Seen("", Life(""), 0)
        self._soon = asyncio.Event()
        self._due = True
        """Whether something is to be noted, as far as is known."""
        self._unnoted = Trouble(
            log,
            "the stream's epoch can't be noted in its metadata, so backups won't have it",
            "the stream's epoch is noted",
        )
        bus.on_reconnect.append(self._look_soon)
        on_update(bus, self._soon.set)  # by another process perhaps, whose update has undone a note

    async def start(self, seconds: float = START_SECONDS) -> None:
        """The first look. If nothing can be noted yet, a later one does it.

        But a restore that the operator tells of has to be noted before anything is stored, or ids are given again.
        Raises BrokerUnavailable if it can't be for `seconds`.
        """
        deadline = asyncio.get_running_loop().time() + seconds
        while not await self._try() and self._told:
            if asyncio.get_running_loop().time() > deadline:
                raise BrokerUnavailable("the restore that TIDEGATE_EVENTS_RESTORED tells of can't be noted")
            await asyncio.sleep(START_AGAIN_SECONDS)

    async def run(self, every_seconds: float = EVERY_SECONDS) -> None:
        """Looks until it is cancelled, and at once after a reconnect: the server may have another store by then."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(every_seconds):
                    await self._soon.wait()
            self._soon.clear()
            if self._bus.connected:
                await self._try()

    async def _try(self) -> bool:
        """One look; whether all is noted. If NATS does not answer and nothing was to be noted, nothing is lost."""
        try:
            noted = await self.look()
            self._unnoted.over()
            return noted
        except BrokerUnavailable as error:
            if self._due:
                self._unnoted.note(error)
            return False

    async def look(self) -> bool:
        """Notes what is not noted yet; whether all is then. Raises BrokerUnavailable."""
        info = await self._api.call(f"STREAM.INFO.{self._stream}")
        position = await self._history.position()
        if any(each.fixed for each in differences(self._wanted, info["config"])):
            return True  # none of ours, a mirror for instance, whose ids are another stream's: it is left as it is
        created, last = str(info["created"]), int(info["state"]["last_seq"])
        notes = Notes.parse(info["config"].get("metadata"))
        life, heard = self._life(info, position, notes), notes.restored if notes else ""
        wanted = Notes(life, created, self._told or heard or self._restored)
        self._due = notes != wanted
        if self._due and not await self._note(info["config"], wanted):
            return False  # another process has just changed something: the next look has it
        if notes is not None and notes.life.epoch != life.epoch:
            log.warning(
                "the stream %s was restored, with its events up to %d: ids of before hold up to that place",
                self._stream,
                life.shared(notes.life.epoch) or 0,
                extra={"epoch": life.epoch, "before": notes.life.epoch},
            )
        self._seen, self._told, self._due = _Seen(created, life, last), "", False
        return True

    def _life(self, info: dict[str, Any], position: Position, notes: Notes | None) -> Life:
        """The life that the stream is in; another than its position tells if only this process can know."""
        created, last, life, seen = str(info["created"]), int(info["state"]["last_seq"]), position.life, self._seen
        told = self._told if self._told != (notes.restored if notes else "") else ""
        same = seen.created == created and not position.copies
        lost = same and last < seen.last
        if notes is None and same and not lost and life.epoch == seen.life.epoch:
            return seen.life  # with those before it, which another process's update has taken from the notes
        # Notes of before the life that was seen: a copy of then was put back, or another process's update undid them.
        before = seen.life.shared(life.epoch) if same else None
        if not lost and before is None and not (told and (last or notes)):
            return life
        # His word makes one epoch in all processes, but is no new one if it has been taken already.
        mark = info.get("ts") if lost or before is not None else told
        epoch = epoch_of(self._stream, f"{created} {mark} {life.epoch}")
        return life.followed(epoch, last if before is None else min(last, before))

    async def _note(self, config: dict[str, Any], notes: Notes) -> bool:
        """Whether it could be noted on a stream that is as `config` says still."""
        async with self._api.changing:
            now = await self._api.call(f"STREAM.INFO.{self._stream}")
            if now["config"] != config or str(now["created"]) != notes.created:
                return False
            metadata = {**config.get("metadata", {}), **notes.metadata()}
            await self._api.call(f"STREAM.UPDATE.{self._stream}", {**config, "metadata": metadata})
        return True

    async def _look_soon(self) -> None:
        self._soon.set()
