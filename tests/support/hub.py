"""A hub without sockets and NATS: peers that remember what was written to them."""

from __future__ import annotations

from collections.abc import Callable

from gateway.hub.endings import Ending
from gateway.hub.hub import Audience, Hub
from gateway.hub.session import Session

Schedule = Callable[[Callable[[], None]], object]


class Peer(Session):
    """The far end of a session: remembers every write."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.send = self.writes.append

    def close(self, ending: Ending, farewell: bytes) -> None:
        self.ending = ending
        self.writes.append(farewell)

    def age_seconds(self, now: float) -> float:
        return now


class Wire:
    """What the hub listens to."""

    def __init__(self) -> None:
        self.audiences: dict[str, Audience] = {}

    def subscribe(self, audience: Audience) -> None:
        assert audience.tail not in self.audiences, "a tail is subscribed to once"
        self.audiences[audience.tail] = audience

    def unsubscribe(self, audience: Audience) -> None:
        del self.audiences[audience.tail]


class World:
    """A hub whose passes end when the test says so."""

    def __init__(self, max_held_bytes: int = 1000, schedule: Schedule | None = None) -> None:
        """`schedule` is an event loop's `call_soon`, where passes are to end by themselves."""
        self.scheduled: list[Callable[[], None]] = []
        self.hub = Hub(schedule or self.scheduled.append, lambda ending: ending.reason.encode(), max_held_bytes)
        self.wire = Wire()
        self.hub.interest = self.wire

    def peer(self, *tails: str, overlapping: bool = False, live: bool = True) -> Peer:
        peer = Peer()
        self.hub.add(peer, tails, overlapping=overlapping)
        if live:
            self.hub.release(peer)
        return peer

    def durable(self, tail: str, sequence: int, chunk: bytes | None = None) -> None:
        self.hub.durable(self.wire.audiences[tail], sequence, chunk or b"%d;" % sequence)

    def volatile(self, tail: str, volatile_id: bytes, chunk: bytes | None = None) -> None:
        self.hub.volatile(self.wire.audiences[tail], volatile_id, chunk or volatile_id + b";")

    def end_pass(self) -> None:
        scheduled, self.scheduled[:] = list(self.scheduled), []
        for call in scheduled:
            call()
