"""Streams that have no leader for a while: who needs one waits for it, within bounds, instead of being refused.

In a cluster the servers that keep a stream elect another leader within seconds of losing it. Until then whatever is
sent to the stream is lost. So nobody sends while a leader is known to be missing: one question at a time finds out when
there is one, and all who wait go on then.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from tidegate_common.bus.connection import Bus
from tidegate_common.bus.streams.patience import WAITER, Patience, Wait, wait_for
from tidegate_common.errors import BrokerUnavailable, NotSent, TooManyWaiting

T = TypeVar("T")

LOOK_SECONDS = 0.2
"""Between two questions whether there is a leader."""

ANSWER_SECONDS = 1.0
"""A leader that does not answer within this time is looked for again."""

AGAIN_SECONDS = (0.05, 0.25)
"""Between two tries if no leader is known to be missing: NATS is away, or did not answer."""


NO_STREAM = ""
"""Of what needs NATS alone."""


class _Missing:
    """A stream without a leader."""

    def __init__(self, since: float, silent: bool) -> None:
        self.since = since
        self.silent = silent
        """Whether it has not answered, which may have another reason; else NATS says that nobody is there."""
        self.back = False
        self.waiting: set[asyncio.Future[None]] = set()
        """A future of its own for each: whoever leaves one that thousands share has to be looked for among them."""
        self.looking: asyncio.Task[None] | None = None


class Leaders:
    """What is known of the streams' leaders, and who waits for one."""

    def __init__(self, bus: Bus, patience: Patience | None = None) -> None:
        self._bus = bus
        self.patience = patience or Patience()
        self.copies = self.patience.copies
        self._missing: dict[str, _Missing] = {}
        self._doubtful: dict[str, tuple[float, float]] = {}
        """Since when it was missing, of a stream whose leader has answered, but stored nothing yet; and when that was.

        A server that was the leader answers for a while though it has lost the others.
        """
        self.waiting = self.waiting_bytes = 0

    def since(self, stream: str) -> float | None:
        """The loop's time from which on `stream` has had no leader, as far as is known."""
        missing = self._missing.get(stream)
        return None if missing is None else missing.since

    def passing(self, stream: str) -> bool:
        """Whether the stream has been without a leader for no longer than an election may take."""
        since = self.since(stream)
        return since is not None and self._now() < since + self.patience.election_seconds

    def gone(self, stream: str) -> bool:
        """Whether NATS has said that nobody speaks for `stream`."""
        missing = self._missing.get(stream)
        return missing is not None and not missing.silent

    def lost(self, stream: str, silent: bool = False) -> None:
        """Nobody speaks for `stream`."""
        missing = self._missing.get(stream)
        if missing is not None:
            missing.silent &= silent
            return
        since, answered = self._doubtful.pop(stream, (0.0, 0.0))
        now = self._now()
        self._missing[stream] = _Missing(since if now < answered + self.patience.election_seconds else now, silent)

    def silent(self, stream: str) -> None:
        """NATS was asked and did not answer for `stream` in time."""
        if self.copies and self._bus.connected:
            self.lost(stream, silent=True)

    def found(self, stream: str) -> None:
        """A leader has answered: all who wait for it go on."""
        missing = self._missing.pop(stream, None)
        if missing is not None:
            self._doubtful[stream] = missing.since, self._now()
            missing.back = True
            for waiting in missing.waiting:
                if not waiting.done():
                    waiting.set_result(None)

    def stored(self, stream: str) -> None:
        """A leader has stored something."""
        if self._missing or self._doubtful:
            self.found(stream)
            self._doubtful.pop(stream, None)

    def until(self, stream: str, began: float) -> float:
        """How long what has begun at `began` waits for `stream`."""
        deadline, since = began + self.patience.deadline_seconds, self.since(stream)
        if since is None:
            return deadline
        return max(deadline, min(since, began) + self.patience.election_seconds)

    @contextmanager
    def wait(self, stream: str, began: float, size: int = 0) -> Iterator[Wait]:
        """Waits for `stream` among others, from `began` on, with `size` bytes. Raises TooManyWaiting.

        The whole body of the caller's request counts, of which `size` may be a part.
        """
        caller = WAITER.get()
        size = max(size, 0 if caller is None else caller.size)
        if self.waiting >= self.patience.most or self.waiting_bytes + size > self.patience.most_bytes:
            raise TooManyWaiting("NATS is away or has no leader, and no more requests may wait", retry_after=5)
        self.waiting += 1
        self.waiting_bytes += size
        try:
            yield Wait(self, stream, began)
        finally:
            self.waiting -= 1
            self.waiting_bytes -= size

    async def pause(self, stream: str, until: float) -> None:
        """Returns when a leader of `stream` is there, or, if none is known to be missing, after a moment.

        At loop time `until` at the latest. Raises CallerGone.
        """
        missing = self._missing.get(stream)
        left = max(0.0, until - self._now())
        if missing is None:
            await wait_for(None, min(left, random.uniform(*AGAIN_SECONDS)))
            return
        back: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        missing.waiting.add(back)
        if missing.looking is None:
            missing.looking = asyncio.create_task(self._look(stream, missing))
        try:
            await wait_for(back, left)
        finally:
            missing.waiting.discard(back)

    async def outlast(self, stream: str, ask: Callable[[], Awaitable[T]], *, repeatable: bool = False) -> T:
        """What `ask` gives, asked again while NATS is away or `stream` has no leader.

        `repeatable`: also if it may have been done already and that was not confirmed. Raises what `ask` does in the
        end, TooManyWaiting, CallerGone.
        """
        began, kinds = self._now(), BrokerUnavailable if repeatable else NotSent
        if stream not in self._missing:
            try:
                return await ask()
            except kinds as error:
                self.hear(stream, error)
                if not self.patience.election_seconds:
                    raise
        with self.wait(stream, began) as wait:
            while True:
                await wait.pause()
                try:
                    return await ask()
                except kinds as error:
                    self.hear(stream, error)
                    if wait.left() <= 0:
                        raise

    def hear(self, stream: str, error: BrokerUnavailable) -> None:
        """A question to `stream`'s leader came to `error`."""
        if not self._bus.connected:
            return
        if isinstance(error, NotSent):
            self.lost(stream)
        else:
            self.silent(stream)

    async def _look(self, stream: str, missing: _Missing) -> None:
        """Asks until a leader answers or nobody waits any more."""
        try:
            while missing.waiting and not missing.back:
                try:
                    if leader_of(await self._bus.api.call(f"STREAM.INFO.{stream}", seconds=ANSWER_SECONDS)) is not None:
                        self.found(stream)
                        return
                except BrokerUnavailable:
                    pass
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            missing.looking = None

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def leader_of(info: Mapping[str, Any]) -> str | None:
    """Who leads the stream that `info` is of: a server's name, empty outside of a cluster; None for nobody."""
    cluster = info.get("cluster")
    return "" if cluster is None else cluster.get("leader") or None
