"""Whether what was read from the queue or a bucket can be ours: its names can stand in subjects, its times exist.

NATS takes anything from anybody with the right to write. A job with an impossible name would be given out for ever, and
one with a line end in its tail would write into the connection to NATS.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

import msgspec

from tidegate_common.contract.ids import is_job_id
from tidegate_common.contract.jobs import DeadJob, Job, JobState, JobStatus
from tidegate_common.contract.subjects import BROADCAST
from tidegate_common.contract.text import UNREADABLE, mended_json
from tidegate_common.errors import Unreadable

T = TypeVar("T")

LATEST = 9e9
"""Seconds: a time past this is none (it would be after the year 2255). Traces have no nanoseconds past 2**63."""

_KIND = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_TOKENS = re.compile(r"[A-Za-z0-9_%-]+(\.[A-Za-z0-9_%-]+)*")
_ADDRESSED = ("client.", "user.", "topic.", "job.")
_STATUSES = frozenset(JobStatus)
_LONGEST = 1_000
"""Characters of a tail, whose names of 200 bytes may have tripled."""


def read(decoder: msgspec.json.Decoder[T], raw: bytes, fault_of: Callable[[T], str]) -> T:
    """What `raw` is. Raises Unreadable, which says why, if it is nothing that ours can be: see `fault_of`."""
    try:
        found = decoder.decode(mended_json(raw))
        fault = fault_of(found)
    except UNREADABLE as error:
        raise Unreadable(str(error)) from None
    if fault:
        raise Unreadable(f"none of ours has such a value: {fault}")
    return found


def is_kind(text: str) -> bool:
    return _KIND.fullmatch(text) is not None


def is_tail(text: str) -> bool:
    """Whether events can be addressed so."""
    return text == BROADCAST or (text.startswith(_ADDRESSED) and _is_legal(text))


def job_fault(job: Job) -> str:
    """The first field that no job of ours can have so; empty if there is none."""
    checks = {
        "job_id": is_job_id(job.job_id),
        "kind": is_kind(job.kind),
        "tail": is_tail(job.tail),
        "owner": not job.owner or _is_legal(job.owner),
        "created": _is_time(job.created),
        "deadline": job.deadline is None or _is_time(job.deadline),
        "grace_seconds": _is_time(job.grace_seconds),
        "revision": 0 <= job.revision < 2**63,
    }
    return next((name for name, good in checks.items() if not good), "")


def state_fault(state: JobState, job_id: str) -> str:
    """The same of a record, which is that of `job_id`."""
    checks = {
        "job_id": state.job_id == job_id,
        "tail": not state.tail or is_tail(state.tail),
        "owner": not state.owner or _is_legal(state.owner),
        "created": _is_time(state.created),
        "updated": _is_time(state.updated),
    }
    return next((name for name, good in checks.items() if not good), "")


def of_another_release(raw: bytes, job_id: str) -> JobState | None:
    """A record of `job_id` that is sound but for a status that this release does not know: it has `running` instead.
    None for any other record."""
    try:
        fields = msgspec.json.decode(mended_json(raw))
        if not isinstance(fields, dict) or not isinstance(fields.get("status"), str) or fields["status"] in _STATUSES:
            return None
        state = msgspec.convert({**fields, "status": JobStatus.RUNNING}, JobState)
    except UNREADABLE:
        return None
    return None if state_fault(state, job_id) else state


def dead_fault(dead: DeadJob, job_id: str) -> str:
    """The same of a job that failed, which is kept under `job_id`."""
    if dead.job.job_id != job_id:
        return "job_id"
    return job_fault(dead.job) or ("" if _is_time(dead.failed) else "failed")


def _is_legal(text: str) -> bool:
    return len(text) <= _LONGEST and _TOKENS.fullmatch(text) is not None


def _is_time(seconds: float) -> bool:
    return 0 <= seconds <= LATEST  # NaN is in no range
