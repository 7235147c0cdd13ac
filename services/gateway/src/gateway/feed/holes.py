"""Sees that the live feed has left an event out. It only finds: repair.py mends.

With each event the stream tells which one was before it on its subject (`Nats-Last-Sequence`). If that one has not
come, there is a hole. If no next event comes, nothing shows it here: that is for the audit (audit.py).
"""

from __future__ import annotations

from gateway.feed.life import StreamLife
from gateway.feed.repair import Repairs
from gateway.hub.hub import Audience

SUBJECTS_FOLLOWED = 10_000
"""Subjects of one wildcard tail whose last sequences are remembered; beyond that it starts anew."""


class HoleDetector:
    """Follows what each audience hears."""

    def __init__(self, life: StreamLife, repairs: Repairs) -> None:
        self._life = life
        self._repairs = repairs

    def follow(self, audience: Audience, subject: bytes, number: int, previous: int) -> None:
        """An event came on `subject`; `previous` is the stream's word for the one before it there, 0 for none.

        Called before the event is handed on. If something is missing, those who are live are held first: what comes
        after the missing event must not overtake it on its own tail. (A message that was removed from the stream makes
        `previous` smaller, never larger.)
        """
        by_subject, heard = audience.heard_by_subject, audience.heard
        if by_subject is not None:
            heard = max(heard, by_subject.get(subject, 0))
        if number < self._life.highest or number <= heard:
            # A server writes to a connection in stream order over all subjects. So this event is late (the last words
            # of a stream's old leader come after the new one's), or the stream is another and begins anew. Nobody gets
            # it under an id before that is known: the repair asks for the stream's position, which tells.
            self._missing(audience, number)
            number = max(number, heard)  # what was heard is not unheard by a late event
        else:
            self._life.highest = number
            # If nothing was heard yet, the first event always comes here. That costs nothing: nobody is live then. Who
            # joins has asked for the position after the subscription, and so is past `previous` if nothing is missing.
            if previous > heard:
                self._repairs.holes += bool(audience.live)
                self._missing(audience, previous)
        # Past what is missing, too: it is told once. The repair has its own copy of the place before it.
        if by_subject is None:
            audience.heard = number
            return
        if len(by_subject) >= SUBJECTS_FOLLOWED and subject not in by_subject:
            by_subject.clear()
            audience.heard = max(audience.heard, number)  # from here on, nothing is known of what came before
        by_subject[subject] = number

    def _missing(self, audience: Audience, upto: int) -> None:
        """Something up to `upto` is missing. Who is about to be live sees that, and reads once more by itself."""
        audience.complete_from = max(audience.complete_from, upto)
        self._repairs.repair(audience.live, "a hole in the feed")
