"""A budget: the jobs of one principal that are open, and the tokens that they use in a day (UTC). No I/O."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import msgspec

from tidegate_common.contract.jobs import NAMING_MODELS, JobState, JobStatus, Usage
from tidegate_common.contract.principal import JobRights, Principal
from tidegate_common.errors import BudgetSpent, Limited

CONCURRENT, TOKENS_PER_DAY = "concurrent", "tokens_per_day"
"""The limits' names."""

MOST_OPEN = 5_000
"""Jobs of one budget: the document has to fit into one message of NATS."""


class Tokens(NamedTuple):
    """How many a job may use: a guess for its prompt, and the most for its answers."""

    prompt: int
    answers: int = 0

    @property
    def all(self) -> int:
        return self.prompt + self.answers


class Allowance(NamedTuple):
    """What a limit leaves somebody: so many at most, so many of them left, and seconds until all are there again."""

    limit: float
    left: float
    reset_seconds: float


class Open(msgspec.Struct, frozen=True, array_like=True):
    """What is reserved for a job, and since when. `prompt` is the part that is a guess."""

    tokens: int
    since: float
    prompt: int = 0


class Used(NamedTuple):
    """What a job has used. `prompt`: its prompt was read, though the backend may not have said how long it was."""

    usage: Usage = Usage()
    prompt: bool = False

    @classmethod
    def by(cls, state: JobState) -> Used:
        """By a job that has ended so. Many backends count at the end of an answer alone: whoever cancels right before
        that must not get the prompt for nothing."""
        usage = state.usage or Usage()
        read = state.kind in NAMING_MODELS and state.attempt > 0
        return cls(usage, read and (usage.completion_tokens > 0 or state.status is JobStatus.CANCELLED))


class Budget(msgspec.Struct):
    """The document. `open` has what is reserved for each job, and `reserved` the sum of it: thousands may be open, and
    thousands ask at once."""

    day: str = ""
    spent: int = 0
    reserved: int = 0
    open: dict[str, Open] = {}

    def turn(self, now: float) -> None:
        """Begins a new day with what is reserved. Never an earlier one: another process's clock may be ahead."""
        day = datetime.fromtimestamp(now, UTC).date().isoformat()
        if day > self.day:
            self.day, self.spent = day, 0

    def reserve(self, entry: str, wanted: Tokens, rights: JobRights, now: float) -> None:
        """Raises Limited, BudgetSpent: then nothing is reserved."""
        if entry in self.open:
            return
        most = MOST_OPEN if rights.concurrent is None else min(rights.concurrent, MOST_OPEN)
        if len(self.open) >= most:
            text = f"{len(self.open)} of your jobs have not ended, and {most} is the limit"
            raise Limited(CONCURRENT, text)
        limit, tokens = rights.tokens_per_day, wanted.all
        if limit is not None and self.spent + tokens > limit:
            text = f"this may use {tokens} tokens, and of today's {limit} there are {max(0, limit - self.spent)} left"
            raise BudgetSpent(TOKENS_PER_DAY, text, round(until_next_day(now)))
        if limit is not None and self.spent + self.reserved + tokens > limit:
            text = f"this may use {tokens} tokens, and of today's {limit} your open jobs may use {self.reserved}"
            raise Limited(TOKENS_PER_DAY, text)
        self.open[entry] = Open(tokens, now, wanted.prompt)
        self.reserved += tokens

    def settle(self, entry: str, used: Used) -> None:
        """Does nothing if the entry is not there, so that a repeat counts nothing twice."""
        found = self.open.pop(entry, None)
        if found is not None:
            guessed = found.prompt if used.prompt and not used.usage.prompt_tokens else 0
            self.spent += max(0, used.usage.total_tokens) + guessed
            self.reserved -= found.tokens

    def allowance(self, limit: int, now: float) -> Allowance:
        return Allowance(limit, max(0, limit - self.spent - self.reserved), until_next_day(now))


def budget_of(principal: Principal) -> str:
    """The name of its budget, which is its key; empty if nothing is counted."""
    if principal.jobs is None or not principal.jobs.counted:
        return ""
    return hashlib.sha256(principal.name.encode()).hexdigest()[:32]


def until_next_day(now: float) -> float:
    """Seconds until midnight, UTC."""
    then = datetime.fromtimestamp(now, UTC)
    midnight = datetime(then.year, then.month, then.day, tzinfo=UTC) + timedelta(days=1)
    return (midnight - then).total_seconds()
