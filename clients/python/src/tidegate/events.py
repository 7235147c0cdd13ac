"""What a stream tells its caller."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

import httpx


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `id` is its own, or "" for a volatile one."""

    id: str
    type: str
    data: str

    def json(self) -> Any:
        """The data decoded. Raises ValueError if it is no JSON, RecursionError if it is nested too deeply."""
        return json.loads(self.data)


@dataclass(frozen=True, slots=True)
class Gap(Event):
    """What lay between two ids can't be had any more: see `json()` for `reason`, `from` and `to`."""


@dataclass(frozen=True, slots=True)
class Closing(Event):
    """The gateway ends the stream: see `json()` for `reason`. The client comes back unless `final`."""

    @property
    def final(self) -> bool:
        """Whether the gateway asks not to come back: data with `"reconnect": false`."""
        try:
            facts = self.json()
        except (ValueError, RecursionError):
            return False
        return isinstance(facts, dict) and facts.get("reconnect") is False


@dataclass(frozen=True, slots=True)
class Problem:
    """Why the gateway refused, as RFC 9457 tells it. `facts` is the whole document, empty if there was none."""

    status: int
    title: str
    detail: str
    facts: dict[str, Any]

    @property
    def type(self) -> str:
        """The kind of problem, as `urn:tidegate:problem:forbidden`; "" if the gateway did not say."""
        return self._text("type")

    @property
    def needed(self) -> str:
        """The right that would do, as `subscribe topic:a.b`; "" if the gateway did not say."""
        return self._text("needed")

    @property
    def reason(self) -> str:
        """Why a token is not good, as `expired`; "" if the gateway did not say."""
        return self._text("reason")

    def _text(self, name: str) -> str:
        found = self.facts.get(name)
        return found if isinstance(found, str) else ""

    @staticmethod
    def of(response: httpx.Response, body: bytes) -> Problem:
        """The problem that a response tells; `body` is as much of it as could be read."""
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            document = None
        facts = document if isinstance(document, dict) else {}
        title, detail = ("" if not isinstance(fact := facts.get(name), str) else fact for name in ("title", "detail"))
        title = title or f"{response.status_code} {response.reason_phrase}".strip()
        return Problem(response.status_code, title, detail, facts)


@dataclass(frozen=True, slots=True)
class State:
    """How the connection does. `seconds` is the wait before the next attempt, `reason` why it waits or is closed.

    With `waiting` and `closed`, `problem` is what the gateway has answered, and `cause` what was raised.
    """

    name: Literal["connecting", "open", "waiting", "closed"]
    seconds: float = 0.0
    reason: str = ""
    problem: Problem | None = None
    cause: BaseException | None = None


class Stopped(Exception):
    """The client must not come back, or may not try again. `problem` is the gateway's last answer, if it gave one;
    `__cause__` is what was raised, if something was."""

    def __init__(self, reason: str, problem: Problem | None = None) -> None:
        super().__init__(reason)
        self.problem = problem


class Refused(Stopped):
    """401: the token is not good, or there is none. 403: it is good, and not enough. It says what would do."""

    problem: Problem

    def __init__(self, problem: Problem) -> None:
        super().__init__(": ".join(filter(None, (problem.title, problem.detail))), problem)

    @property
    def status(self) -> int:
        return self.problem.status

    @property
    def type(self) -> str:
        return self.problem.type

    @property
    def needed(self) -> str:
        return self.problem.needed

    @property
    def reason(self) -> str:
        return self.problem.reason
