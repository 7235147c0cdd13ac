"""The streams and the buckets that the contract names: made if they are missing, and told apart by epoch."""

from __future__ import annotations

import base64
import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from tidegate_common.bus.connection import Bus
from tidegate_common.bus.requests.jetstream import STREAM_NOT_FOUND, JetStreamApi, JetStreamError
from tidegate_common.bus.streams.differences import USUAL, Difference, differences
from tidegate_common.contract.subjects import Subjects
from tidegate_common.errors import BrokerUnavailable, Unavailable

log = logging.getLogger(__name__)

STREAM_NAME_IN_USE = 10058
"""JetStream's error code for a stream that exists with another configuration."""

REPLICAS = frozenset({10005, 10074})
"""Too few servers of a cluster, or no cluster."""

DUPLICATE_SECONDS = 120
"""How long a stream knows the id of a message: twice as long as any publish may be tried."""

INFO_SECONDS = 2.0
"""How long a stream's leader has to say what it is: if there is none, nobody answers."""

SECOND = 1_000_000_000

BUDGET_SECONDS = 2 * 86_400
"""How long a budget is kept that nobody changes: it is of a day, and jobs that are open go over into the next."""


class StreamLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What the streams keep, and on how many servers."""

    max_age_seconds: int = 86_400
    max_bytes: int = 1 << 30
    max_per_subject: int = 100_000
    replicas: int = 1
    max_jobs: int = 10_000
    max_job_bytes: int = 1 << 29
    job_state_seconds: int = 86_400
    dead_job_seconds: int = 604_800
    max_dead_bytes: int = 1 << 28
    identity: bool = False
    """Whether everyone is asked who they are: then there are the buckets of identity, too."""
    max_revoked: int = 100_000
    max_ticket_bytes: int = 1 << 28


def epoch_of(stream: str, created: str) -> str:
    """Name of one life of a stream, 8 characters: another after it was deleted and made again.

    The sequence starts again then, so that without the epoch an old id would name a wrong event.
    """
    digest = hashlib.sha256(f"{stream} {created}".encode()).digest()[:5]
    return base64.b32encode(digest).decode().lower()


def configs(subjects: Subjects, limits: StreamLimits) -> list[dict[str, Any]]:
    """The streams as they should be, as JetStream's API has it: what a field is not given for is as usual.

    The event stream, the job queue, and two key-value buckets: of jobs' records and of dead jobs. Beside them those of
    identity, if anyone is asked for it.
    """
    found = [
        events_config(subjects, limits),
        _jobs(subjects, limits),
        _records(subjects, limits),
        _dead(subjects, limits),
    ]
    if limits.identity:
        budgets = _bucket(subjects.budgets_bucket, BUDGET_SECONDS, limits.replicas)
        found += [_auth(subjects, limits), _revoked(subjects, limits), _tickets(subjects, limits), budgets]
    return found


def job_streams(subjects: Subjects) -> set[str]:
    """By name, those of the above that jobs alone need."""
    return {subjects.jobs_stream, *(f"KV_{bucket}" for bucket in (subjects.jobs_bucket, subjects.dead_bucket))}


def identity_streams(subjects: Subjects) -> set[str]:
    """By name, those of the above that are there in the mode `token` alone."""
    buckets = subjects.auth_bucket, subjects.revoked_bucket, subjects.tickets_bucket, subjects.budgets_bucket
    return {f"KV_{bucket}" for bucket in buckets}


def events_config(subjects: Subjects, limits: StreamLimits) -> dict[str, Any]:
    """The event stream, as in `configs`."""
    return {
        "name": subjects.events_stream,
        "subjects": [subjects.inbound(">")],
        "max_age": limits.max_age_seconds * SECOND,
        "max_bytes": limits.max_bytes,
        "max_msgs_per_subject": limits.max_per_subject,
        "num_replicas": limits.replicas,
        "duplicate_window": min(DUPLICATE_SECONDS, limits.max_age_seconds) * SECOND,
        "republish": {"src": subjects.inbound(">"), "dest": subjects.outbound(">")},
        "allow_direct": True,
        "allow_msg_ttl": True,
    }


def _jobs(subjects: Subjects, limits: StreamLimits) -> dict[str, Any]:
    return {
        "name": subjects.jobs_stream,
        "subjects": [subjects.jobs()],
        "retention": "workqueue",
        "discard": "new",
        "max_msgs": limits.max_jobs,
        "max_bytes": limits.max_job_bytes,
        "num_replicas": limits.replicas,
        "duplicate_window": DUPLICATE_SECONDS * SECOND,
    }


def _records(subjects: Subjects, limits: StreamLimits) -> dict[str, Any]:
    return {
        **_bucket(subjects.jobs_bucket, limits.job_state_seconds, limits.replicas),
        "discard": "new",
    }


def _dead(subjects: Subjects, limits: StreamLimits) -> dict[str, Any]:
    """A bucket of its own kind: if it is full the oldest go, so that no job is kept from ending."""
    return {
        **_bucket(subjects.dead_bucket, limits.dead_job_seconds, limits.replicas),
        "max_bytes": limits.max_dead_bytes,
        "allow_direct": True,
    }


def _auth(subjects: Subjects, limits: StreamLimits) -> dict[str, Any]:
    """What is kept in it has no end."""
    return {**_bucket(subjects.auth_bucket, 0, limits.replicas), "duplicate_window": DUPLICATE_SECONDS * SECOND}


def _revoked(subjects: Subjects, limits: StreamLimits) -> dict[str, Any]:
    """Each entry says itself how long it is kept. If the bucket is full nothing goes: a revocation is not forgotten."""
    bucket = subjects.revoked_bucket
    return {
        **_bucket(bucket, 0, limits.replicas),
        "duplicate_window": DUPLICATE_SECONDS * SECOND,
        "max_msgs": limits.max_revoked,
        "discard": "new",
        "republish": {"src": f"$KV.{bucket}.>", "dest": subjects.revoked(">")},
        "allow_direct": True,
    }


def _tickets(subjects: Subjects, limits: StreamLimits) -> dict[str, Any]:
    """Each says itself how long it is kept. If the bucket is full there are no new ones: none is taken from anybody.

    Each use is told to all gateways.
    """
    bucket = subjects.tickets_bucket
    return {
        **_bucket(bucket, 0, limits.replicas),
        "duplicate_window": DUPLICATE_SECONDS * SECOND,
        "max_bytes": limits.max_ticket_bytes,
        "discard": "new",
        "republish": {"src": f"$KV.{bucket}.>", "dest": subjects.ticket_uses(">")},
    }


def _bucket(bucket: str, seconds: int, replicas: int) -> dict[str, Any]:
    return {
        "name": f"KV_{bucket}",
        "subjects": [f"$KV.{bucket}.>"],
        "max_age": seconds * SECOND,
        "max_msgs_per_subject": 1,
        "num_replicas": replicas,
        "duplicate_window": min(DUPLICATE_SECONDS, seconds) * SECOND,
        "allow_rollup_hdrs": True,
        "allow_msg_ttl": True,
        "deny_delete": True,
    }


async def ensure_streams(bus: Bus, limits: StreamLimits, *, update: bool) -> None:
    """Makes the streams and the buckets that are missing; with `update`, gives existing ones `limits`.

    That loses nothing they keep. publisher-api alone does it. Raises StreamDiffers if a stream is something else,
    which no update changes, and BrokerUnavailable.
    """
    for config in configs(bus.subjects, limits):
        info = await made(bus.api, config)
        if update and info is not None:
            await change(bus.api, config, info["config"], differences(config, info["config"]))


async def found(api: JetStreamApi, name: str) -> dict[str, Any] | None:
    """What JetStream says of the stream; None if it is missing. Raises BrokerUnavailable."""
    try:
        return await api.call(f"STREAM.INFO.{name}", seconds=INFO_SECONDS)
    except JetStreamError as error:
        if error.code == STREAM_NOT_FOUND:
            return None
        raise _not_made(name, error) from error


async def made(api: JetStreamApi, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """As `found`; one that is missing is made now. Raises BrokerUnavailable."""
    name = config["name"]
    if (info := await found(api, name)) is not None:
        return info
    try:
        await api.call(f"STREAM.CREATE.{name}", _given({**USUAL, **config}))
    except JetStreamError as error:
        if error.code != STREAM_NAME_IN_USE:  # another publisher-api was faster
            raise _not_made(name, error) from error
    return None


async def change(
    api: JetStreamApi, config: Mapping[str, Any], found: Mapping[str, Any], differing: Sequence[Difference]
) -> None:
    """Gives a stream what is `wanted` of each difference, and says so before.

    Raises StreamDiffers, JetStreamError, BrokerUnavailable.
    """
    name = config["name"]
    if any(each.fixed for each in differing):
        raise StreamDiffers(name, differing)
    if not differing:
        return
    for each in differing:
        log.warning("changing the stream %s: %s", name, each, extra={"stream": name, "field": each.field})
    given = _given({**found, **{each.field: each.wanted for each in differing}})
    await api.call(f"STREAM.UPDATE.{name}", given)


class StreamDiffers(Unavailable):
    """A stream is something else than Tidegate makes: `stream` by name, with its `differences`."""

    def __init__(self, stream: str, differing: Sequence[Difference]) -> None:
        self.stream = stream
        self.differences = list(differing)
        super().__init__(f"{stream} is not as Tidegate makes it: {'; '.join(map(str, differing))}")


def _given(config: Mapping[str, Any]) -> dict[str, Any]:
    """`config` without what is none, which JetStream does not read."""
    return {field: value for field, value in config.items() if value is not None}


def _not_made(name: str, error: JetStreamError) -> BrokerUnavailable:
    hint = " TIDEGATE_REPLICAS needs as many servers, in a cluster." if error.code in REPLICAS else ""
    return BrokerUnavailable(f"NATS does not make the stream {name} ({error.words}).{hint}")
