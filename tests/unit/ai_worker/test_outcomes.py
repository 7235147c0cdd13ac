"""How an attempt ends, decided without NATS."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from ai_worker.job_errors import BackendFailed, InvalidParams, JobError, JobTimeout, OutputTooLarge, TooManyAttempts
from ai_worker.outcomes import Stop, dead_job, end_of, hindrance, result_of, time_limit, used, used_before
from ai_worker.pieces import Finish
from tidegate_common.bus.jobs.records import record_of
from tidegate_common.contract.answers import Answer
from tidegate_common.contract.jobs import Job, JobStatus, Usage
from tidegate_common.errors import BrokerUnavailable, Superseded

JOB = Job(job_id="j1", kind="chat", tail="client.ann", params={}, created=5)
STATE = replace(record_of(JOB, "trace", 5), status=JobStatus.RUNNING, attempt=2)
LATE = JobTimeout(600)


def pending() -> asyncio.Future:  # type: ignore[type-arg]
    return asyncio.get_running_loop().create_future()


def given(result: object) -> asyncio.Future:  # type: ignore[type-arg]
    future = pending()
    if isinstance(result, Exception):
        future.set_exception(result)
        future.exception()  # heard: what does not count is not told as forgotten
    else:
        future.set_result(result)
    return future


async def test_the_handlers_own_end_comes_before_a_stop_and_that_before_a_fault_of_writing() -> None:
    finish, failed, fault = Finish("stop"), BackendFailed(), OutputTooLarge(5)
    assert result_of(given(finish), given(Stop.CANCELLED), given(fault), LATE) is finish
    assert result_of(given(failed), given(Stop.CANCELLED), pending(), LATE) is failed
    assert result_of(pending(), given(Stop.CANCELLED), given(fault), LATE) is Stop.CANCELLED
    assert result_of(pending(), pending(), given(fault), LATE) is fault
    assert result_of(pending(), pending(), pending(), LATE) is LATE


@pytest.mark.parametrize("error", [BrokerUnavailable("away"), Superseded("overtaken")])
async def test_what_is_nobodys_fault_ends_the_attempt_and_not_the_job(error: Exception) -> None:
    with pytest.raises(type(error)):
        result_of(pending(), pending(), given(error), LATE)


def test_a_job_that_is_cancelled_given_up_or_late_is_not_run() -> None:
    assert hindrance(JOB, STATE, 4, 10) is None
    assert hindrance(JOB, replace(STATE, cancel=True, failures=4), 4, 10) is Stop.CANCELLED
    assert isinstance(hindrance(JOB, replace(STATE, failures=4), 4, 10), TooManyAttempts)
    assert hindrance(JOB, replace(STATE, failures=3), 4, 10) is None
    assert isinstance(hindrance(replace(JOB, deadline=10), STATE, 4, 10), JobTimeout)
    assert hindrance(replace(JOB, deadline=11), STATE, 4, 10) is None


def test_a_deadline_counts_where_it_is_before_the_attempts_own_limit() -> None:
    for deadline, seconds, words in ((None, 600, "600 seconds"), (1_000, 600, "600 seconds"), (15, 5, "deadline")):
        limit, late = time_limit(replace(JOB, deadline=deadline), 600, 10)
        assert (limit, words in str(late)) == (seconds, True)


def test_what_the_record_says_of_each_end() -> None:
    done = end_of(Finish("length", Usage(1, 2), "m"), 7, Usage(1, 9))
    assert (done.status, done.finish_reason, done.model) == (JobStatus.DONE, "length", "m")
    assert (done.pieces, done.usage, done.error) == (7, Usage(1, 9), None)
    failed = end_of(InvalidParams("x"), 7, Usage())
    assert (failed.status, failed.finish_reason) == (JobStatus.FAILED, None)
    assert (failed.error or "").startswith("invalid_params: The request can't be read: x")
    cancelled = end_of(Stop.CANCELLED, 7, Usage())
    assert (cancelled.status, cancelled.finish_reason) == (JobStatus.CANCELLED, "cancelled")


def test_a_backends_words_are_bounded_and_can_be_written() -> None:
    done = end_of(Finish("r" * 999, None, "\ud83d" * 999), 0, Usage())
    assert (len(done.finish_reason or ""), done.model) == (200, "\ufffd" * 200)
    failed = end_of(JobError("x" * 9_999), 0, Usage())
    assert len(failed.error or "") == 2_000


def test_a_failure_that_is_not_the_askers_fault_is_kept() -> None:
    failed = replace(STATE, status=JobStatus.FAILED, updated=9.0)
    dead = dead_job(JOB, replace(failed, error="backend_error: x: y"))
    assert dead is not None
    assert (dead.job, dead.error, dead.attempts, dead.failed, dead.trace_id) == (
        JOB,
        "backend_error: x: y",
        2,
        9,
        "trace",
    )
    assert dead_job(JOB, replace(failed, error="invalid_params: x")) is None
    assert dead_job(JOB, replace(failed, error=None)) is None
    assert dead_job(JOB, replace(STATE, status=JobStatus.DONE)) is None


def test_what_a_stored_beginning_has_used_is_its_workers_word_or_else_what_the_events_show() -> None:
    handed_back = replace(STATE, pieces=7, usage=Usage(5, 90))
    assert used_before(handed_back, Answer(pieces=7, usage=Usage(0, 7))) == Usage(5, 90)
    assert used_before(handed_back, Answer(pieces=9, usage=Usage(0, 9))) == Usage(5, 9), "it wrote on, and died"
    assert used_before(STATE, Answer(pieces=3)) == Usage()


def test_a_prompt_counts_once_however_often_it_was_read() -> None:
    assert used(Usage(5, 9), Usage(6, 2)) == Usage(5, 11)
    assert used(Usage(0, 9), Usage(6, 2)) == Usage(6, 11)
