"""What a client notes of its stream, whoever reads that for it: this program, or a client that Tidegate ships."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from tests.stress.ledger import NO_PLACE, Ledger, View
from tests.stress.wire import Frame


class Listening(NamedTuple):
    """What a client asks for. `covered`: topics that its wildcards stand for, as far as the load knows them."""

    user_id: str
    topics: tuple[str, ...]
    covered: tuple[str, ...] = ()

    def query(self, name: str) -> list[tuple[str, str]]:
        return [("client_id", name), ("user_id", self.user_id), *(("topic", topic) for topic in self.topics)]

    def targets(self, name: str) -> tuple[str, ...]:
        """As the ledger names them."""
        exact = (topic for topic in self.topics if "*" not in topic)
        topics = dict.fromkeys(f"topic:{topic}" for topic in (*exact, *self.covered))
        return (f"client:{name}", f"user:{self.user_id}", "all", *topics)


class Listener:
    """One client. `port` says where to connect (this time, where it may choose anew each time)."""

    def __init__(self, name: str, listening: Listening, ledger: Ledger, port: Callable[[], int]) -> None:
        self.name = name
        self.listening = listening
        self.view = View(listening.targets(name))
        self.port = port
        self.connected = False
        self.gateway_port = 0
        """Where it is, or was last."""
        self.last_id: str | None = None
        self.place = 0
        """Of its last id."""
        self.reconnects = -1
        self.refused = 0
        self.closings: Counter[str] = Counter()
        self.connects: list[float] = []
        """When it was told `connected`, on time.monotonic."""
        self.let_in = 0.0
        """When the attempt began that was last told `connected`: that may have been under way for a while."""
        self.replays: list[float] = []
        """Seconds from coming back until all was there that it had missed by then; nothing where that was nothing."""
        self.without_id: list[tuple[int, float]] = []
        """Numbers of events without an id, each with the start of the connection that it came on."""
        self.on_number: Callable[[int], None] | None = None
        self._ledger = ledger
        self._owned = 0
        """Place up to which it has all, before the present connection said where it starts."""
        self._goal: int | None = None
        self._came_back = self._began = 0.0

    def start(self) -> None:
        raise NotImplementedError

    async def stop(self) -> None:
        """Leaves for good. Raises what broke the client."""
        raise NotImplementedError

    @property
    def complete(self) -> bool:
        """Connected, with all that was accepted so far."""
        return self.connected and self.place >= self._ledger.latest(self.view.targets)

    def coming(self) -> None:
        """It is about to connect."""
        self._began = time.monotonic()
        latest = self._ledger.latest(self.view.targets)
        if self.view.start is not None and latest > self.place:
            self._goal, self._came_back = latest, time.perf_counter()

    def gone(self) -> None:
        """Its connection has ended."""
        self.connected, self._goal = False, None

    def take(self, frame: Frame) -> None:
        """One event of the stream, as it comes."""
        if frame.id is not None:
            self.last_id = frame.id
            self.place = self._ledger.place(frame.id)
        if frame.event == "connected":
            self._connected()
        elif frame.event == "gap":
            self._gap(frame.data)
        elif frame.event == "closing":
            self.closings[str(json.loads(frame.data)["reason"])] += 1
        elif frame.event == "expiring":
            pass  # each attempt asks for a token
        else:
            self._event(frame)
        if self._goal is not None and self.place >= self._goal:
            self.replays.append(time.perf_counter() - self._came_back)
            self._goal = None

    def _connected(self) -> None:
        self.connected = True
        self.connects.append(time.monotonic())
        self.let_in = self._began
        self.reconnects += 1
        if self.view.start is None:
            self.view.start = self._owned = self.place

    def _gap(self, data: str) -> None:
        told = json.loads(data)
        upto = self._ledger.place(told["to"])
        self.view.tell(told["reason"], self._owned, upto)
        self.place = self._owned = upto if told["reason"] == "epoch" else max(self.place, upto)

    def _event(self, frame: Frame) -> None:
        number = int(frame.data.partition(":")[0])
        self.view.numbers.append(number)
        self.view.places.append(NO_PLACE if frame.id is None else self.place)
        if frame.id is None:
            self.without_id.append((number, self.connects[-1]))
        self._owned = self.place
        if self.on_number is not None:
            self.on_number(number)
