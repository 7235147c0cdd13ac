"""How an attempt may end, and what that makes of its job: decisions without NATS."""

from __future__ import annotations

import asyncio
import time
from enum import StrEnum

from ai_worker.job_errors import RETRIABLE, JobError, JobTimeout, TooManyAttempts
from ai_worker.pieces import Finish
from tidegate_common.bus.jobs.finish import CANCELLED, End
from tidegate_common.contract.answers import Answer
from tidegate_common.contract.jobs import DeadJob, Job, JobState, JobStatus, Usage
from tidegate_common.contract.text import mended

WORD_CHARACTERS = 200
"""Of a finish reason and of a model's name, which are the backend's words."""

ERROR_CHARACTERS = 2_000


class Stop(StrEnum):
    """Why a job is stopped from outside."""

    CANCELLED = "cancelled"
    HANDED_BACK = "handed_back"
    TAKEN_OVER = "taken_over"


Result = Finish | JobError | Stop
"""What a run has come to: the handler's own end, a failure, or a stop."""


class Outcome(StrEnum):
    """How an attempt ended; the label of the jobs metric."""

    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    HANDED_BACK = "handed_back"
    """Another worker has it now."""
    FORGOTTEN = "forgotten"
    """It has no record: its asker was told that there is no such job, and it was not run."""
    REFUSED = "refused"
    """Its record can't be read, so that nobody knows whether it has run: it was not run."""
    LEFT = "left"
    """To the worker that has it, which is alive, or to one of another release: it was given out again all the same."""
    ABANDONED = "abandoned"
    """NATS was away too long, or another worker has it: its acknowledgement did not go out."""


def hindrance(job: Job, state: JobState, attempts: int, now: float) -> Result | None:
    """Why a job whose record is `state` is ended without being run. `attempts` is how many may end in silence."""
    if state.cancel:
        return Stop.CANCELLED
    if state.failures >= attempts:
        return TooManyAttempts()
    if job.deadline is not None and job.deadline <= now:
        return JobTimeout(None)
    return None


def time_limit(job: Job, job_seconds: float, now: float) -> tuple[float, JobTimeout]:
    """How long a run may take, and what it is ended with then: an attempt's limit, or the job's own deadline."""
    left = job_seconds if job.deadline is None else job.deadline - now
    return (left, JobTimeout(None)) if left < job_seconds else (job_seconds, JobTimeout(job_seconds))


def result_of(
    handling: asyncio.Future[Finish], stop: asyncio.Future[Stop], writing: asyncio.Future[None], late: JobTimeout
) -> Result:
    """Which end counts of those that have come by now; `late` if there is none.

    The handler's own comes first: an answer that is complete is not cancelled. Raises what is neither the handler's
    fault nor its pieces': NATS was away for too long, or another attempt has the job.
    """
    if handling.done():
        error = handling.exception()
        return error if isinstance(error, JobError) else handling.result()
    if stop.done():
        return stop.result()
    if writing.done():
        error = writing.exception()
        assert error is not None, "the writing ends only after the handler has, or with an error"
        if isinstance(error, JobError):
            return error
        raise error
    return late


def end_of(result: Result, pieces: int, usage: Usage) -> End:
    """What the record of a job says that has ended so, with so many events stored."""
    if isinstance(result, Finish):
        reason, model = mended(result.reason)[:WORD_CHARACTERS], mended(result.model or "")[:WORD_CHARACTERS]
        return End(JobStatus.DONE, pieces, usage, finish_reason=reason, model=model)
    if isinstance(result, JobError):
        text = mended(f"{result.code}: {result}")[:ERROR_CHARACTERS]
        return End(JobStatus.FAILED, pieces, usage, error=text)
    return End(JobStatus.CANCELLED, pieces, usage, finish_reason=CANCELLED)


def dead_job(job: Job, state: JobState) -> DeadJob | None:
    """What is kept of a job that has ended as `state` says: nothing, unless it failed through no fault of its own."""
    code, _, _ = (state.error or "").partition(": ")
    if state.status is not JobStatus.FAILED or code not in RETRIABLE:
        return None
    return DeadJob(
        job=job,
        error=state.error or "",
        attempts=state.attempt,
        failed=state.updated or time.time(),
        trace_id=state.trace_id,
    )


def used_before(state: JobState, earlier: Answer) -> Usage:
    """What the stored beginning of an answer has used: as the worker has said that gave the job back; if that died, as
    far as the events show it."""
    known = state.usage or Usage()
    if state.pieces == earlier.pieces:
        return known
    return Usage(known.prompt_tokens, (earlier.usage or Usage()).completion_tokens)


def used(before: Usage, own: Usage) -> Usage:
    """By all attempts whose text is shown. The prompt counts once, however often it was read."""
    return Usage(before.prompt_tokens or own.prompt_tokens, before.completion_tokens + own.completion_tokens)
