"""Which end of a job wins, as the edits that compare-and-set stores, and the event that is made of it."""

from __future__ import annotations

import json

import pytest
from msgspec.structs import replace

from tidegate_common.bus.jobs.finish import End, cancelled, ended, last_event, refused
from tidegate_common.bus.jobs.records import record_of
from tidegate_common.contract.jobs import Job, JobStatus, Usage

QUEUED = record_of(Job(job_id="j1", kind="chat", tail="client.ann", params={}, created=5), "", 5)
RUNNING = replace(QUEUED, status=JobStatus.RUNNING, attempt=2, holder="a-1")
DONE = End(JobStatus.DONE, 7, Usage(1, 2), finish_reason="stop", model="m")
FINAL = [JobStatus.DONE, JobStatus.FAILED, JobStatus.CANCELLED]


@pytest.mark.parametrize("status", FINAL)
def test_an_end_that_is_there_stays(status: JobStatus) -> None:
    over = replace(RUNNING, status=status)
    assert ended(over, 2, DONE) is cancelled(over) is refused(over, "x") is None


def test_the_last_attempt_ends_a_job_and_no_earlier_one_does() -> None:
    state = ended(RUNNING, 2, DONE)
    assert state is not None
    assert (state.status, state.pieces, state.usage, state.model) == (JobStatus.DONE, 7, Usage(1, 2), "m")
    assert state.holder == "a-1"
    assert ended(RUNNING, 1, DONE) is None


def test_a_cancel_ends_a_job_that_waits_and_asks_the_worker_of_one_that_runs() -> None:
    state = cancelled(replace(QUEUED, usage=Usage(3, 4), attempt=1))
    assert state is not None
    assert (state.status, state.finish_reason, state.usage) == (JobStatus.CANCELLED, "cancelled", Usage(3, 4))
    wished = cancelled(RUNNING)
    assert wished == replace(RUNNING, cancel=True)
    assert wished is not None
    assert cancelled(wished) is None, "it is known already"


def test_a_message_that_can_not_be_read_ends_no_job_that_a_worker_has_begun() -> None:
    state = refused(QUEUED, "invalid_params: x")
    assert state is not None
    assert (state.status, state.error) == (JobStatus.FAILED, "invalid_params: x")
    assert refused(RUNNING, "x") is None
    assert refused(replace(QUEUED, attempt=1), "x") is None, "it was handed back"


def test_the_last_event_is_made_of_the_record_alone() -> None:
    state = ended(RUNNING, 2, DONE)
    assert state is not None
    last = last_event(state)
    assert (last.tail, last.message_id, last.event.type) == ("client.ann", "j1:end", "ai_response")
    assert (last.headers or {})["Tidegate-Job"] == "j1"
    assert (last.headers or {})["Tidegate-Job-End"] == "1"
    assert json.loads(last.event.data) == {
        "job_id": "j1",
        "index": 7,
        "finish_reason": "stop",
        "usage": {"prompt_tokens": 1, "completion_tokens": 2},
        "content": "",
        "done": True,
        "candidate": 0,
        "model": "m",
    }


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [("timeout: It took: long", "timeout", "It took: long"), (None, "internal_error", "")],
)
def test_a_failures_last_event_has_its_code_and_its_text(error: str | None, code: str, message: str) -> None:
    last = last_event(replace(RUNNING, status=JobStatus.FAILED, error=error))
    assert last.event.type == "ai_error"
    assert json.loads(last.event.data) == {"job_id": "j1", "code": code, "message": message, "done": True}
