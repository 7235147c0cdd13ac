"""The record of a job as it is written, and the hash of what was asked for."""

from __future__ import annotations

import msgspec

from tidegate_common.bus.jobs.enqueue import record_of
from tidegate_common.contract.jobs import Job, JobState, JobStatus, request_hash


def test_the_order_of_fields_does_not_count_in_what_was_asked_for() -> None:
    assert request_hash("chat", {"a": 1, "b": {"x": 2, "y": 3}}) == request_hash(
        "chat", {"b": {"y": 3, "x": 2}, "a": 1}
    )
    assert request_hash("chat", {"a": 1}) != request_hash("chat", {"a": 1.5})
    assert request_hash("a", "bc") != request_hash("ab", "c")


def test_a_record_of_an_earlier_release_reads_with_the_defaults_of_what_it_lacks() -> None:
    raw = b'{"job_id":"j","kind":"chat","status":"queued","created":1,"updated":2,"field_of_tomorrow":3}'
    assert msgspec.json.decode(raw, type=JobState) == JobState(
        job_id="j", kind="chat", status=JobStatus.QUEUED, created=1, updated=2
    )


def test_the_record_of_a_queued_job_has_what_its_calls_and_its_end_need_of_it() -> None:
    job = Job(job_id="j", kind="k", tail="client.a", params={"x": 1}, created=1, owner="o", start="e-1", request="r")
    state = record_of(job, "trace", 2)
    assert (state.status, state.updated, state.trace_id, state.attempt) == (JobStatus.QUEUED, 2, "trace", 0)
    assert (state.job_id, state.kind, state.tail, state.created) == (job.job_id, job.kind, job.tail, job.created)
    assert (state.owner, state.start, state.request) == (job.owner, job.start, job.request)
