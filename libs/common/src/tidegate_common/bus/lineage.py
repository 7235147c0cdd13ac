"""Notes the event stream's life in its metadata, and begins a new one where the stream was restored.

That a stream was restored by JetStream's API shows: it has another time of creation than was noted, and no two
processes can take that for different lives. A copy of the store's files that is put back does not show, unless this
process has seen what is missing: the operator says it (`TIDEGATE_EVENTS_RESTORED`). One service alone writes notes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any, NamedTuple

from tidegate_common.bus.api import JetStreamApi
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.differences import differences
from tidegate_common.bus.history import History, Position
from tidegate_common.bus.lives import Life, Notes
from tidegate_common.bus.streams import StreamLimits, epoch_of, events_config
from tidegate_common.errors import BrokerUnavailable
from tidegate_common.telemetry.trouble import Trouble

log = logging.getLogger(__name__)

EVERY_SECONDS = 5.0
"""Between two looks: a stream that was made anew has its note after so long."""


class _Seen(NamedTuple):
    created: str
    epoch: str
    last: int


class Lineage:
    """Keeps the notes of one event stream."""

    def __init__(self, bus: Bus, history: History, restored: str = "") -> None:
        """`restored` is the operator's word for the last time when he put back a copy of the store; any text."""
        self._bus = bus
        self._history = history
        self._restored = restored
        self._api = JetStreamApi(bus)
        self._stream = bus.subjects.events_stream
        self._wanted = events_config(bus.subjects, StreamLimits())
        self._seen = _Seen("", "", 0)
        self._soon = asyncio.Event()
        self._due = True
        """Whether something is to be noted, as far as is known."""
        self._unnoted = Trouble(
            log,
            "the stream's epoch can't be noted in its metadata, so backups won't have it",
            "the stream's epoch is noted",
        )
        bus.on_reconnect.append(self._look_soon)

    async def start(self) -> None:
        """The first look. Where nothing can be noted yet, a later one does it."""
        await self._try()

    async def run(self, every_seconds: float = EVERY_SECONDS) -> None:
        """Looks until it is cancelled, and at once after a reconnect: the server may have another store by then."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(every_seconds):
                    await self._soon.wait()
            self._soon.clear()
            if self._bus.connected:
                await self._try()

    async def _try(self) -> None:
        """One look. Where NATS does not answer and nothing was to be noted, nothing is lost by it."""
        try:
            await self.look()
            self._unnoted.over()
        except BrokerUnavailable as error:
            if self._due:
                self._unnoted.note(error)

    async def look(self) -> None:
        """Notes what is not noted yet. Raises BrokerUnavailable."""
        info = await self._api.call(f"STREAM.INFO.{self._stream}")
        position = await self._history.position()
        if any(each.fixed for each in differences(self._wanted, info["config"])):
            return  # none of ours, a mirror for instance, whose ids are another stream's: it is left as it is
        created, last = str(info["created"]), int(info["state"]["last_seq"])
        notes = Notes.parse(info["config"].get("metadata"))
        life, restored = self._life(info, position, notes), self._restored or (notes.restored if notes else "")
        wanted = Notes(life, created, restored)
        self._due = notes != wanted
        if self._due and not await self._note(info["config"], wanted):
            return  # another process has just noted something: the next look has it
        if notes is not None and notes.life.epoch != life.epoch:
            log.warning(
                "the stream %s was restored, with its events up to %d: ids of before hold up to that place",
                self._stream,
                life.shared(notes.life.epoch) or 0,
                extra={"epoch": life.epoch, "before": notes.life.epoch},
            )
        self._seen, self._due = _Seen(created, life.epoch, last), False

    def _life(self, info: dict[str, Any], position: Position, notes: Notes | None) -> Life:
        """The life that the stream is in; another than its position tells where only this process can know."""
        created, last, life = str(info["created"]), int(info["state"]["last_seq"]), position.life
        told = self._restored if self._restored != (notes.restored if notes else "") else ""
        lost = self._seen[:2] == (created, life.epoch) and last < self._seen.last and not position.copies
        if not last or not (told or lost):
            return life
        return life.followed(epoch_of(self._stream, f"{created} {told or info.get('ts')} {life.epoch}"), last)

    async def _note(self, config: dict[str, Any], notes: Notes) -> bool:
        """Whether it could be noted on a stream that is as `config` says still."""
        now = await self._api.call(f"STREAM.INFO.{self._stream}")
        if now["config"] != config or str(now["created"]) != notes.created:
            return False
        metadata = {**config.get("metadata", {}), **notes.metadata()}
        await self._api.call(f"STREAM.UPDATE.{self._stream}", {**config, "metadata": metadata})
        return True

    async def _look_soon(self) -> None:
        self._soon.set()
