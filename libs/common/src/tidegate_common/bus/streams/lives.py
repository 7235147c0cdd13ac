"""The lives of a stream: which epoch its ids are of, and which ids of earlier lives name events of this one.

A stream that is made anew counts from 1 again, and one that is restored from a backup goes on from an earlier place: in
both cases sequences come again, for other events. So it gets another epoch. After a restore the ids of the life before
hold up to the restored place; those past it name events that are gone. That is the *lineage*, which stands with the
epoch in the stream's metadata, so that it is saved and restored with the stream itself. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from tidegate_common.contract.ids import EventId

EPOCH, CREATED, EARLIER, RESTORED = "tidegate-epoch", "tidegate-created", "tidegate-earlier", "tidegate-restored"
"""Keys of the stream's metadata."""

MOST_EARLIER = 16
"""Lives that are remembered: an id of one before those gets a gap."""

_EPOCH = re.compile(r"[a-z0-9]{1,32}")
_EARLIER = re.compile(r"([a-z0-9]{1,32}):(0|[1-9][0-9]{0,19})")


class Earlier(NamedTuple):
    """A life before this one. Its ids up to the sequence `upto` name the same events in this one."""

    epoch: str
    upto: int


class Life(NamedTuple):
    """The present life, and those before it, the oldest first."""

    epoch: str
    earlier: tuple[Earlier, ...] = ()

    def shared(self, epoch: str) -> int | None:
        """The sequence up to which this life is that of `epoch` too; None if it is not known."""
        for each in reversed(self.earlier):
            if each.epoch == epoch:
                return each.upto
        return None

    def place(self, event_id: EventId) -> int | None:
        """The sequence of the event of that id in this life; None if the id can't be one of its."""
        if event_id.epoch == self.epoch:
            return event_id.sequence
        upto = self.shared(event_id.epoch)
        return event_id.sequence if upto is not None and event_id.sequence <= upto else None

    def followed(self, epoch: str, upto: int) -> Life:
        """The life of `epoch` that began with what this one had up to the sequence `upto`."""
        kept = tuple(Earlier(each.epoch, min(each.upto, upto)) for each in self.earlier)
        return Life(epoch, (*kept, Earlier(self.epoch, upto))[-MOST_EARLIER:])


class Notes(NamedTuple):
    """What stands in the stream's metadata: its life, and the time of its creation when that was noted."""

    life: Life
    created: str
    restored: str = ""
    """The operator's word for the last restore that he told of."""

    @classmethod
    def parse(cls, metadata: Mapping[str, str] | None) -> Notes | None:
        """None if nothing is noted, or nothing that can be read."""
        metadata = metadata or {}
        epoch, created = metadata.get(EPOCH, ""), metadata.get(CREATED, "")
        words = metadata.get(EARLIER, "").split()
        earlier = [match for word in words if (match := _EARLIER.fullmatch(word))]
        if not _EPOCH.fullmatch(epoch) or not created or len(earlier) != len(words):
            return None
        life = Life(epoch, tuple(Earlier(match[1], int(match[2])) for match in earlier))
        return cls(life, created, metadata.get(RESTORED, ""))

    def metadata(self) -> dict[str, str]:
        """As it stands in the stream's metadata."""
        earlier = " ".join(f"{each.epoch}:{each.upto}" for each in self.life.earlier)
        return {EPOCH: self.life.epoch, CREATED: self.created, EARLIER: earlier, RESTORED: self.restored}
