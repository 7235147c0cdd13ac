"""Whether the live feed has brought everything: what was heard on each tail, held against what the stream says.

With each event the stream tells which one was before it on its subject. If that has not come, there is a hole, and who
listens reads it from the stream. Where no next event comes, the audit (audit.py) asks the stream for the last ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from gateway.hub.holding import Known, Wide
from gateway.hub.hub import Audience, Hub
from tidegate_common.contract.subjects import Subjects, covers

SUBJECTS_FOLLOWED = 10_000
"""Subjects of one wildcard tail whose last sequences are remembered; beyond that it starts anew."""


class HoleDetector:
    """Follows what each audience hears."""

    def __init__(self, hub: Hub, subjects: Subjects) -> None:
        self._hub = hub
        self._prefix = subjects.outbound("")
        self.on_hole: Callable[[Audience], None] | None = None
        """Called where an audience has not heard all; what was known of it before still stands then."""
        self.checked = 0
        """Up to this sequence of the stream the audit has found nothing missing."""
        self.filtered: dict[str, list[Audience]] = {}
        """The audiences of jobs' own streams, by the tail that their jobs' events address."""

    def follow(self, audience: Audience, subject: bytes, number: int, previous: int) -> None:
        """An event came. There is a hole if `previous`, the one before it on its subject, is not the last that came.

        A message before that was removed from the stream makes `previous` smaller, never larger.
        """
        by_subject = audience.heard_by_subject
        if by_subject is None:
            if previous > audience.heard:
                self._missing(audience, previous)
            audience.heard = number
            return
        last = by_subject.get(subject, 0)
        if previous > last and previous > audience.heard:
            self._missing(audience, previous)
        if not last and len(by_subject) >= SUBJECTS_FOLLOWED:
            by_subject.clear()
            audience.heard = number  # from here on, nothing is known of what came before
        by_subject[subject] = number

    def _missing(self, audience: Audience, previous: int) -> None:
        if not audience.placed:
            audience.since = max(audience.since, previous)
        elif self.on_hole is not None:
            self.on_hole(audience)

    def place(self, tails: Iterable[str], sequence: int) -> bool:
        """Whether a session on `tails` that has everything up to `sequence` misses nothing of what came live after it.

        If not, it has to read the stream once more. Places the audiences that had nobody live.
        """
        audiences = [audience for tail in tails if (audience := self._hub.audience(tail)) is not None]
        for audience in audiences:
            if audience.placed or audience.since > sequence:
                continue
            audience.placed = True
            if audience.heard_by_subject is not None or audience.heard < 0:
                # Of subjects that were not heard nothing is known but by the stream.
                audience.heard = audience.since = sequence
        return all(audience.placed and audience.since <= sequence for audience in audiences)

    def known(self, tails: Sequence[str], upto: int, shared: dict[str, Wide]) -> Known:
        """What a live session on `tails` has, where the feed has come to `upto`.

        `shared` keeps what is copied, for sessions that are held at the same moment.
        """
        tails_known = tuple(self._known(tail, shared) for tail in tails)
        return Known(max(upto, self.checked), self.checked, tails_known)

    def _known(self, tail: str, shared: dict[str, Wide]) -> int | Wide:
        audience = self._hub.audience(tail)
        assert audience is not None, "a session's tails have audiences"
        if audience.heard_by_subject is None:
            return audience.heard
        if tail not in shared:
            shared[tail] = Wide(audience.heard, dict(audience.heard_by_subject))
        return shared[tail]

    def new(self, known: Wide, tail: str, sequence: int) -> bool:
        """Whether the event of `sequence` on the subject of `tail` was not heard by who knows `known`."""
        return sequence > max(known.base, known.subjects.get(self._subject(tail), 0))

    def had(self, known: Known, tails: Sequence[str], tail: str, sequence: int) -> bool:
        """Whether a session on `tails` that overlap has had the event of `sequence` on the subject of `tail`.

        NATS sends it once for each of them. A connection that breaks off between two copies has brought it all the
        same: what one of the tails has heard is missing on none.
        """
        for each, place in zip(tails, known.tails, strict=True):
            if isinstance(place, Wide):
                if covers(each, tail) and not self.new(place, tail, sequence):
                    return True
            elif each == tail and sequence <= place:
                return True
        return False

    def behind(self, tail: str, sequence: int) -> list[Audience]:
        """Those who listen to the subject of `tail` and have not heard its event of `sequence`, though they should."""
        exact = self._hub.audience(tail)
        found = [exact] if exact is not None else []
        found += self.filtered.get(tail, ())
        found += [audience for audience in self._hub.wide() if covers(audience.tail, tail)]
        return [audience for audience in found if audience.placed and self._heard(audience, tail) < sequence]

    def missed(self, tail: str, sequence: int) -> None:
        """The stream's last event on the subject of `tail` is `sequence`: who has not heard it has a hole."""
        for audience in self.behind(tail, sequence):
            if self.on_hole is not None:
                self.on_hole(audience)
            if audience.heard_by_subject is None:
                audience.heard = sequence
            else:
                audience.heard_by_subject[self._subject(tail)] = sequence

    def forget(self) -> None:
        """What comes from now on does not follow on what came before: another connection, or another stream."""
        self.checked = 0
        for audience in self._hub.everyone():
            audience.heard = audience.since = -1
            audience.placed = False
            if audience.heard_by_subject is not None:
                audience.heard_by_subject.clear()

    def _heard(self, audience: Audience, tail: str) -> int:
        if audience.heard_by_subject is None:
            return audience.heard
        return max(audience.heard, audience.heard_by_subject.get(self._subject(tail), 0))

    def _subject(self, tail: str) -> bytes:
        return f"{self._prefix}{tail}".encode("utf-8", "surrogateescape")  # as bus/events/pages.py has decoded it
