"""The audit log: who did what to whom, and who was refused. JSON lines of a logger of its own.

It never has what was sent, nor a token, a key or a ticket.

A line of the usual log costs 18 µs, more than all else that asking who publishes does. So what happens often is written
a fifth of a second later, many lines at once, which costs 3 µs for each. What an admin does is written at once.
Refusals cost nothing to bring about, and must not fill a disk: there is at most one line for each second and reason.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import msgspec

from tidegate_common.contract.principal import Principal
from tidegate_common.errors import Forbidden, Limited, TidegateError, Unauthenticated
from tidegate_common.telemetry.logging import AUDIT
from tidegate_common.telemetry.masking import STARTS, masked

log = logging.getLogger(AUDIT)

OK = "ok"
SOON_SECONDS = 0.2
MOST_WAITING = 1000
"""Lines: if there are more, they are written at once."""

EVERY_SECONDS = 1.0
"""Between two lines about refusals for the same reason."""

MOST_CHARACTERS = 500
"""Of a field: a path may be as long as a head."""


Act = tuple[float, str, str, str, str, str, str, int]
"""What a line is made of, once it is written: when, who, what, result, target, address, trace and times."""


class Line(msgspec.Struct, omit_defaults=True):
    """One line. The first fields are those of every line of the log."""

    timestamp: str
    level: str
    logger: str
    service: str
    message: str
    who: str
    what: str
    result: str
    target: str = ""
    address: str = ""
    trace_id: str = ""
    times: int = 1


_ENCODER = msgspec.json.Encoder()


class AuditLog:
    """Of one process."""

    def __init__(self, service: str, *, on: bool) -> None:
        self.on = on
        self._service = service
        self._waiting: list[Act] = []
        self._second = 0, ""
        """The last one that was written, as text."""
        self._timer: asyncio.TimerHandle | None = None
        self._refused: dict[str, Act | None] = {}
        """By reason: what has come since the last line about it."""
        self.forbidden = 0
        """Requests, and lines of batches, that lacked a right, whether they are written or not."""
        self._ticking: asyncio.TimerHandle | None = None

    def note(
        self,
        principal: Principal,
        what: str,
        target: str,
        address: str,
        trace_id: str,
        *,
        result: str = OK,
        times: int = 1,
        soon: bool = False,
    ) -> None:
        """`principal` has done `what`. `soon` is for what happens often."""
        if self.on:
            self._waiting.append((time.time(), principal.name, what, result, target, address, trace_id, times))
            if not soon or len(self._waiting) >= MOST_WAITING:
                self._write()
            elif self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(SOON_SECONDS, self._write)

    @contextmanager
    def act(self, principal: Principal, what: str, target: str, address: str, trace_id: str) -> Iterator[None]:
        """What happens inside is `what`, whether it succeeds or not."""
        result = "failed"
        try:
            yield
            result = OK
        except TidegateError as error:
            result = _words(type(error).__name__)
            raise
        finally:
            self.note(principal, what, target, address, trace_id, result=result)

    def refused(self, principal: Principal | None, what: str, address: str, trace_id: str, error: Exception) -> None:
        """`error` was the answer to `what`, if it is one about who asks and what they may. Others are not noted."""
        if isinstance(error, Forbidden):
            self.forbidden += 1
        reason = _reason(error) if self.on else ""
        if not reason:
            return
        held = self._refused.get(reason)
        if held is not None:
            self._refused[reason] = *held[:-1], held[-1] + 1
            return
        target = error.needed if isinstance(error, (Forbidden, Unauthenticated)) else ""
        who = principal.name if principal is not None else getattr(error, "who", "")
        act = time.time(), who, what, reason, target, address, trace_id, 1
        if reason in self._refused:
            self._refused[reason] = act  # told at the end of the second, with how many came
            return
        self._refused[reason] = None
        self._waiting.append(act)
        self._write()
        if self._ticking is None:
            self._ticking = asyncio.get_running_loop().call_later(EVERY_SECONDS, self._tick)

    def aclose(self) -> None:
        """Writes what is there to be written."""
        for timer in (self._timer, self._ticking):
            if timer is not None:
                timer.cancel()
        self._settle()
        self._write()

    def _settle(self) -> None:
        """Refusals that are told now begin another second; of those that there were none of, nothing is kept."""
        self._waiting += [act for act in self._refused.values() if act is not None]
        self._refused = {reason: None for reason, act in self._refused.items() if act is not None}

    def _tick(self) -> None:
        self._settle()
        self._write()
        again = bool(self._refused)
        self._ticking = asyncio.get_running_loop().call_later(EVERY_SECONDS, self._tick) if again else None

    def _write(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        acts, self._waiting = self._waiting, []
        if acts:
            text = b"\n".join([self._line(act) for act in acts]).decode()
            # A path or a name may hold what belongs in none. Looking for it takes as long as all the rest of a line.
            log.info(masked(text) if any(start in text for start in STARTS) else text)

    def _line(self, act: Act) -> bytes:
        at, who, what, result, target, address, trace_id, times = act
        second = int(at)
        if second != self._second[0]:  # making the text takes three times as long as the rest of a line
            self._second = second, datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        stamp = f"{self._second[1]}.{int((at - second) * 1e6):06}+00:00"
        what, target = what[:MOST_CHARACTERS], target[:MOST_CHARACTERS]
        line = Line(stamp, "INFO", AUDIT, self._service, "audit", who, what, result, target, address, trace_id, times)
        return _ENCODER.encode(line)


def _reason(error: Exception) -> str:
    if isinstance(error, Unauthenticated):
        return error.reason
    if isinstance(error, Forbidden):
        return "forbidden"
    return f"limited: {error.limit}" if isinstance(error, Limited) else ""


def _words(name: str) -> str:
    """`NotFound` as `not found`."""
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name).strip()
