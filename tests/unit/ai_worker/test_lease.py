"""What the record says of who has a job: decided by compare-and-set, tested as the edits that it makes."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from ai_worker.lease import begun, handed_back, holds
from tidegate_common.bus.jobs.records import record_of
from tidegate_common.contract.jobs import Job, JobState, JobStatus, Usage

JOB = Job(job_id="j1", kind="chat", tail="client.ann", params={}, created=5)
QUEUED = record_of(JOB, "", 5)
RUNNING = replace(QUEUED, status=JobStatus.RUNNING, attempt=2, holder="a-1", failures=1)
FINAL = [JobStatus.DONE, JobStatus.FAILED, JobStatus.CANCELLED]


def told(state: JobState | None) -> tuple[int, int, str] | None:
    return None if state is None else (state.attempt, state.failures, state.holder)


def test_a_job_that_waits_is_begun_and_that_is_no_failure() -> None:
    state = begun(QUEUED, JOB, "b-1", "")
    assert told(state) == (1, 0, "b-1")
    assert state is not None
    assert state.status is JobStatus.RUNNING
    assert told(begun(replace(RUNNING, status=JobStatus.QUEUED), JOB, "b-1", "")) == (3, 1, "b-1"), "handed back"


def test_a_running_job_stays_with_its_holder_until_that_is_known_to_be_dead() -> None:
    assert begun(RUNNING, JOB, "b-1", "") is None
    assert begun(RUNNING, JOB, "b-1", "another") is None, "somebody else has begun it since"
    assert told(begun(RUNNING, JOB, "b-1", "a-1")) == (3, 2, "b-1")


def test_a_holder_that_reads_its_own_word_changes_nothing() -> None:
    """The answer to the first change was lost: to begin once more would count a failure."""
    assert begun(RUNNING, JOB, "a-1", "") is None


def test_a_record_without_a_holder_is_of_an_older_release_which_can_not_be_asked() -> None:
    for dead in ("", "a-1"):
        assert told(begun(replace(RUNNING, holder=""), JOB, "b-1", dead)) == (3, 2, "b-1")


@pytest.mark.parametrize("status", FINAL)
def test_a_job_that_has_ended_is_not_begun(status: JobStatus) -> None:
    assert begun(replace(RUNNING, status=status), JOB, "b-1", "a-1") is None


def test_a_message_does_not_begin_the_job_of_another_asking() -> None:
    assert begun(replace(QUEUED, created=6), JOB, "b-1", "") is None


def test_a_job_is_handed_back_by_its_last_attempt_alone() -> None:
    state = handed_back(RUNNING, 2, 7, Usage(1, 2))
    assert state is not None
    assert (state.status, state.pieces, state.usage) == (JobStatus.QUEUED, 7, Usage(1, 2))
    assert handed_back(RUNNING, 1, 7, Usage()) is None
    assert handed_back(replace(RUNNING, status=JobStatus.DONE), 2, 7, Usage()) is None


def test_who_holds_a_job() -> None:
    assert holds(RUNNING, 2, "a-1")
    assert not holds(RUNNING, 2, "b-1"), "a record that was lost and made anew counts from the start"
    assert not holds(RUNNING, 1, "a-1")
    assert holds(None, 2, "a-1"), "without a record nobody can have begun it"


def test_the_end_that_an_attempt_has_recorded_is_anybodys_until_it_is_written() -> None:
    done = replace(RUNNING, status=JobStatus.DONE)
    assert holds(done, 2, "b-1")
    assert not holds(done, 3, "b-1")
    assert not holds(replace(done, end="e-9"), 2, "a-1")
