"""How far each tail has been heard: the numbers that an audience carries, read, moved and copied here alone.

An audience's `heard` says up to where its tail was heard, `complete_from` from where on nothing is missing in that.
What lies before is for the stream to tell: whoever becomes live has to have read up to there.

One rule holds at every moment: each live session has had all that is due to it on its tail up to `heard`. So a repair
may begin there for all of them. Whatever moves `heard` past something that is missing first holds those who are live,
and raises `complete_from` for those who are about to be.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from gateway.hub.hub import Audience, Hub
from gateway.hub.tails import split
from tidegate_common.contract.subjects import covers

UNKNOWN = 1 << 64


class Heard(NamedTuple):
    """Up to where a tail was heard with nothing missing: `base`, and of each of `subjects` its own sequence.

    Only a tail with wildcards has `subjects`: there one number would hide what is missing on a quieter subject.
    """

    base: int
    subjects: Mapping[bytes, int]

    def has(self, subject: bytes, sequence: int) -> bool:
        return sequence <= self.base or sequence <= self.subjects.get(subject, 0)


class Places:
    """How far some tails were heard at the moment when their sessions were held. A repair begins there.

    On each tail at its own place, and not at the session's last id: events on faster tails have overtaken what is
    missing on a slower one.
    """

    def __init__(self, audiences: Iterable[Audience], outbound: str) -> None:
        """`outbound` is what stands before a tail in the subjects that are heard."""
        self._outbound = outbound
        self._places = {each.tail: Heard(each.heard, dict(each.heard_by_subject or {})) for each in audiences}

    def start(self, tail: str) -> int:
        """Nothing up to here is missing on any subject of `tail`."""
        return self._places[tail].base

    def had(self, tails: Sequence[str], tail: str, sequence: int) -> bool:
        """Whether somebody who listened to `tails` has had the event of `sequence` that was sent to `tail`.

        If two tails match it, NATS sends it once for each. A connection that breaks off between the two copies has
        brought it all the same: what one of the tails has heard is missing on none.
        """
        # Any bytes: a tail that is no text was decoded so (bus/requests/pages.py), and is its bytes again.
        subject = f"{self._outbound}{tail}".encode("utf-8", "surrogateescape")
        return any(self._places[each].has(subject, sequence) for each in tails if matches(each, tail))

    def missing(self, tail: str, lasts: Mapping[str, int] | None) -> int:
        """Of the `lasts` that the stream has on `tail`, the highest that was not heard there: 0 for none.

        `UNKNOWN`, which is over all sequences, if the stream does not tell.
        """
        if lasts is None:
            return UNKNOWN
        return max((last for name, last in lasts.items() if not self.had((tail,), name, last)), default=0)


def matches(listened: str, tail: str) -> bool:
    """Whether who listens to `listened` hears what is sent to `tail`."""
    real, _ = split(listened)
    return real == tail or covers(real, tail)


def settle(hub: Hub, tails: Iterable[str], place: int) -> bool:
    """Whether a session that has everything on `tails` up to `place` may be live. If not, it has to read once more."""
    audiences = [audience for tail in tails if (audience := hub.audience(tail)) is not None]
    if any(audience.complete_from > place for audience in audiences):
        return False
    for audience in audiences:
        # Only if nobody is live there: to others it would hide what they lack. Who is about to join with an earlier
        # place must not take it for its own: `complete_from` tells it to read once more.
        if not audience.live and audience.heard < place:
            audience.heard = audience.complete_from = place
    return True


def verified(audience: Audience, place: int) -> None:
    """The audience has heard everything up to `place`: the stream was asked."""
    audience.heard = max(audience.heard, place)
    by_subject = audience.heard_by_subject
    if by_subject is not None:
        for subject in [subject for subject, sequence in by_subject.items() if sequence <= place]:
            del by_subject[subject]


def forget(hub: Hub) -> None:
    """What comes from now on does not follow on what came before: another connection, or another life of the stream."""
    for audience in hub.everyone():
        audience.heard = audience.complete_from = -1
        if audience.heard_by_subject is not None:
            audience.heard_by_subject.clear()
