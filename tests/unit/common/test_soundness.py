"""What was read from the queue or a bucket is held to what a job of ours can be."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tidegate_common.contract.jobs import DeadJob, Job, JobState, JobStatus
from tidegate_common.contract.soundness import (
    LATEST,
    dead_fault,
    is_kind,
    is_tail,
    job_fault,
    of_another_release,
    read,
    state_fault,
)
from tidegate_common.errors import Unreadable

JOB: dict[str, Any] = {"job_id": "j1", "kind": "chat", "tail": "client.ann", "params": {}, "created": 1.0}
RECORD: dict[str, Any] = {"job_id": "j1", "kind": "chat", "status": "queued", "created": 1.0, "updated": 2.0}


def job(**changes: Any) -> Job:
    return msgspec.convert({**JOB, **changes}, Job)


def state(**changes: Any) -> JobState:
    return msgspec.convert({**RECORD, **changes}, JobState)


def test_what_our_services_write_is_sound() -> None:
    assert not job_fault(job())
    assert not job_fault(job(tail="topic.prices.eur", owner="address.%3A%3A1", deadline=LATEST, kind="image.v2"))
    assert not state_fault(state(), "j1")
    assert not state_fault(state(tail="job.j1", owner="user.ann%40example%2Eorg"), "j1")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("job_id", "a b"),
        ("job_id", ""),
        ("kind", "a b"),
        ("tail", "client."),
        ("tail", "client.*"),
        ("tail", "client.a\r\nPUB x"),
        ("tail", "fence.j1"),
        ("tail", "client." + "x" * 1000),
        ("owner", "a..b"),
        ("owner", ">"),
        ("created", 1e300),
        ("created", -1.0),
        ("created", float("nan")),
        ("deadline", float("inf")),
        ("grace_seconds", -1.0),
        ("revision", -1),
    ],
)
def test_a_field_that_no_job_of_ours_can_have_so_is_named(field: str, value: Any) -> None:
    assert job_fault(msgspec.structs.replace(job(), **{field: value})) == field


def test_a_record_is_that_of_its_key() -> None:
    assert state_fault(state(), "j2") == "job_id"
    assert state_fault(state(tail="a b"), "j1") == "tail"
    assert state_fault(msgspec.structs.replace(state(), updated=1e300), "j1") == "updated"


def test_a_dead_job_is_that_of_its_key_and_a_sound_one() -> None:
    dead = DeadJob(job=job(), error="timeout: x", attempts=1, failed=3.0)
    assert not dead_fault(dead, "j1")
    assert dead_fault(dead, "j2") == "job_id"
    assert dead_fault(msgspec.structs.replace(dead, failed=1e300), "j1") == "failed"
    assert dead_fault(msgspec.structs.replace(dead, job=job(tail="a b")), "j1") == "tail"


def test_events_are_addressed_to_clients_users_topics_jobs_and_everyone_alone() -> None:
    assert all(is_tail(tail) for tail in ("broadcast", "client.a", "user.a", "topic.a.b", "job.j1"))
    assert not any(is_tail(tail) for tail in ("", "client", "broadcast.a", "fence.j1", "probe", "topic.>", "topic.a."))
    assert not any(is_kind(kind) for kind in ("", "a/b", "a b", "x" * 65))


def test_why_something_can_not_be_read_is_said() -> None:
    decoder = msgspec.json.Decoder(Job)
    assert read(decoder, msgspec.json.encode(JOB), job_fault) == job()
    for raw, why in ((b"{", "truncated"), (b"5", "object"), (msgspec.json.encode({**JOB, "kind": "a b"}), "kind")):
        with pytest.raises(Unreadable, match=why):
            read(decoder, raw, job_fault)


def test_a_record_whose_status_only_a_newer_release_knows_is_left_to_that_release() -> None:
    """Its job ended at an older worker as no job, while a newer one had it."""
    newer = msgspec.json.encode({**RECORD, "status": "paused", "field_of_tomorrow": 1})
    found = of_another_release(newer, "j1")
    assert found is not None
    assert (found.status, found.updated) == (JobStatus.RUNNING, 2.0)
    for raw in (
        msgspec.json.encode(RECORD),
        msgspec.json.encode({**RECORD, "status": 5}),
        msgspec.json.encode({**RECORD, "status": "paused", "tail": "a b"}),
        b"{",
        b"[]",
    ):
        assert of_another_release(raw, "j1") is None, raw
    assert of_another_release(newer, "j2") is None
