"""The record of a job as it is made."""

from __future__ import annotations

from tidegate_common.bus.jobs.records import record_of
from tidegate_common.contract.jobs import Job, JobStatus


def test_the_record_of_a_queued_job_has_what_its_calls_and_its_end_need_of_it() -> None:
    job = Job(job_id="j", kind="k", tail="client.a", params={"x": 1}, created=1, owner="o", start="e-1", request="r")
    state = record_of(job, "trace", 2)
    assert (state.status, state.updated, state.trace_id, state.attempt) == (JobStatus.QUEUED, 2, "trace", 0)
    assert (state.job_id, state.kind, state.tail, state.created) == (job.job_id, job.kind, job.tail, job.created)
    assert (state.owner, state.start, state.request) == (job.owner, job.start, job.request)
