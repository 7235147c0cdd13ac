"""Jobs: what is asked for, and the record of how far it has got. What the answers look like is in answers.py.

New fields have defaults: a process may be one release ahead of another. Times are Unix seconds.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Any, Literal

import msgspec

CHAT = "chat"
"""The kind of jobs that answer a conversation: their `params` are `ChatParams`."""

TRANSFORM = "transform"
"""The kind that streams a `text` through an `instruction`, passage by passage."""

NAMING_MODELS = frozenset({CHAT, TRANSFORM})
"""Kinds whose `params` may name a `model`; if they name none, the worker's own is asked."""

MAX_CANDIDATES = 8
"""Answers of one chat."""


def passage_characters(max_tokens: int | None) -> int:
    """How many characters of a transform's text go through the model at once, if an answer has so many tokens.

    A translation has room to be longer than its text. A passage ends at a good place, which may be a quarter of it.
    """
    return 1_500 if max_tokens is None else min(1_500, max(200, 2 * max_tokens))


class JobStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether the job has ended and its record will not change any more."""
        return self in (JobStatus.DONE, JobStatus.FAILED, JobStatus.CANCELLED)


class Usage(msgspec.Struct, frozen=True):
    """Tokens as the backend counts them, or an estimate if it has not said (yet); OpenAI's names."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, more: Usage) -> Usage:
        return Usage(self.prompt_tokens + more.prompt_tokens, self.completion_tokens + more.completion_tokens)


class OnDisconnect(StrEnum):
    """What happens to a job when nobody listens to it any more."""

    CONTINUE = "continue"
    CANCEL = "cancel"


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A message of the work queue: its events are addressed to `tail`, and `params` are the handler's own."""

    job_id: str
    kind: str
    tail: str
    params: dict[str, Any]
    created: float
    """As its record has it. A message and a record with different times are not of one job."""
    owner: str = ""
    """Whose share of the workers it takes; if empty, that of `tail`."""
    start: str = ""
    """Event id of the stream's position when the job was made: all of its events come after it."""
    deadline: float | None = None
    """When it has to be done."""
    on_disconnect: OnDisconnect = OnDisconnect.CONTINUE
    grace_seconds: float = 10.0
    """How long nobody may listen before `on_disconnect` counts: clients come back."""
    request: str = ""
    """A hash of what was asked for, if it was asked for under an `Idempotency-Key`: see `request_hash`."""
    revision: int = 0
    """Of the record that was made for this job. Its first worker need not read that; 0 if it has to."""
    max_tokens: int | None = None
    """Of each answer of a model, whatever `params` say: its asker may have no more."""
    budget: str = ""
    """Names the budget that has tokens reserved for it; empty if none has."""


class JobState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A job's record in the KV bucket, changed by compare-and-set alone.

    `queued` → `running` (an attempt has it) → `done`, `failed` or `cancelled`; back to `queued` if a worker hands the
    job back. Whoever records the end also writes the job's last event.
    """

    job_id: str
    kind: str
    status: JobStatus
    created: float
    updated: float
    trace_id: str = ""
    tail: str = ""
    """As `Job.tail`."""
    owner: str = ""
    """As `Job.owner`. Nobody who asks for the record is shown it: it may be an address."""
    start: str = ""
    """As `Job.start`."""
    request: str = ""
    """As `Job.request`: nothing else may be asked for under the same key. Empty: it is not known."""
    budget: str = ""
    """As `Job.budget`: what the job has used is noted there when it ends."""
    end: str = ""
    """Event id of the job's last event, once that is stored."""
    attempt: int = 0
    """The number of the last attempt that was begun."""
    holder: str = ""
    """Names that attempt and its process. The attempt knows by it what it has written itself; the process can be asked
    whether it still has the job."""
    failures: int = 0
    """Attempts that ended without a word: their workers died, or lost NATS."""
    pieces: int = 0
    """Events of the answer that were stored when a worker last gave the job back, or ended it."""
    cancel: bool = False
    """It is to be cancelled: the worker that has it, or gets it, does so."""
    finish_reason: str | None = None
    model: str = ""
    """The one that answered."""
    usage: Usage | None = None
    error: str | None = None
    """Code and text, with a colon between."""


def request_hash(*asked: Any) -> str:
    """A hash of `asked`: the same for the same request, whatever the order of fields in its objects.

    It stands in records, so a release that made it of other parts would refuse retries across an upgrade.
    """
    return hashlib.sha256(msgspec.json.encode(asked, order="sorted")).hexdigest()[:32]


class DeadJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job that failed through no fault of its own, kept to be tried again by hand."""

    job: Job
    error: str
    attempts: int
    failed: float
    trace_id: str = ""


class Models(msgspec.Struct, frozen=True, kw_only=True):
    """A worker's answer to the question which models it has."""

    models: list[str] = []
    default: str = ""
    """For jobs that name none."""


class ChatMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One turn of a conversation; OpenAI's names."""

    role: Literal["system", "user", "assistant"]
    content: str


class ChatParams(msgspec.Struct, frozen=True, kw_only=True):
    """`params` of a chat."""

    messages: list[ChatMessage]
    model: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    n: int = 1
    """Candidates."""
    top_p: float | None = None
    stop: list[str] = []
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
