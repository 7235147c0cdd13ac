"""The record of a job as it is written, and the hash of what was asked for."""

from __future__ import annotations

import msgspec

from tidegate_common.contract.jobs import JobState, JobStatus, request_hash


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
