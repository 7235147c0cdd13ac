"""What goes wrong for a while: said when it begins, counted while it lasts, said when it is over."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping

EVERY_SECONDS = 60.0
"""Between two lines about one trouble that lasts, or that comes again and again."""

MOST_REASONS = 8
"""So many reasons of one trouble are said as they come; more are one of those that are counted."""


class Trouble:
    """One kind of trouble in one process. May be used from any thread."""

    def __init__(
        self,
        log: logging.Logger,
        text: str,
        over: str = "",
        *,
        level: int = logging.WARNING,
        every_seconds: float = EVERY_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`text` says what is wrong and what to do about it, and `over` that it is not any more.

        Without `over` the trouble is single events, such as clients that are cut off: it is over when none has come
        for `every_seconds`.
        """
        self._log = log
        self._text = text
        self._over = over
        self._level = level
        self._every = every_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._reasons: set[str] = set()
        self._since: float | None = None
        """When it began; None if all is well."""
        self._said = self._noted = 0.0
        self._times = self._unsaid = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def lasting(self) -> bool:
        """Whether it has begun, and is not over."""
        return self._since is not None

    def note(
        self, reason: object = "", error: BaseException | None = None, *, fields: Mapping[str, object] | None = None
    ) -> None:
        """It is there (again). The first time, and with a reason that is new, it is said; else it is counted.

        With `error`, what is said has its stack, and with `fields` these, which tell one case and make no reason new.
        """
        now, words = self._clock(), str(reason)
        with self._lock:
            if self._since is not None and not self._over and now - self._noted >= self._every and not self._unsaid:
                self._since = None
            self._noted = now
            if self._since is None:
                self._since, self._times, self._unsaid = now, 0, 0
                self._reasons.clear()
            self._times += 1
            new = words not in self._reasons and len(self._reasons) < MOST_REASONS
            if new or now - self._said >= self._every:
                self._reasons.add(words)
                self._say(now, words, error, fields)
            else:
                self._unsaid += 1
                self._arm()

    def over(self) -> None:
        """All is well."""
        if self._since is None:
            return
        with self._lock:
            since, self._since = self._since, None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if since is not None and self._over:
                counted = f", {self._times} times" if self._times > 1 else ""
                self._log.info("%s, after %.0f s%s", self._over, self._clock() - since, counted)

    def _say(
        self,
        now: float,
        words: str,
        error: BaseException | None = None,
        fields: Mapping[str, object] | None = None,
    ) -> None:
        why = f": {words}" if words else ""
        more = f" ({repeated(self._unsaid, now - self._said)})" if self._unsaid else ""
        self._said, self._unsaid = now, 0
        self._log.log(self._level, "%s%s%s", self._text, why, more, exc_info=error, extra=fields)

    def _arm(self) -> None:
        """What is counted is said when its time has come, if there is an event loop to do it."""
        if self._timer is not None:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        self._timer = loop.call_later(max(0.0, self._said + self._every - self._clock()), self._settle)

    def _settle(self) -> None:
        with self._lock:
            self._timer = None
            if self._since is not None and self._unsaid:
                self._say(self._clock(), "")


def repeated(times: int, seconds: float) -> str:
    """How often something came that was not said: in words for the line that says it."""
    return f"{times} more {'time' if times == 1 else 'times'} within {seconds:.0f} s"
