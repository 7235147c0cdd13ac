"""The streams and the bucket that the contract names: made where they are missing, and told apart by epoch."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import asdict

import msgspec
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, KeyValueConfig, RePublish, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import BadRequestError, NotFoundError

from tidegate_common.bus.connection import Bus
from tidegate_common.errors import BrokerUnavailable

STREAM_NAME_IN_USE = 10058
"""JetStream's error code for a stream that exists with another configuration."""


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


def epoch_of(stream: str, created: str) -> str:
    """Name of one life of a stream, 8 characters: another after it was deleted and made again.

    The sequence starts again then, so that without the epoch an old id would name a wrong event.
    """
    digest = hashlib.sha256(f"{stream} {created}".encode()).digest()[:5]
    return base64.b32encode(digest).decode().lower()


async def ensure_streams(bus: Bus, limits: StreamLimits, *, update: bool) -> None:
    """Makes the streams and the bucket; with `update`, gives existing ones `limits`, which loses nothing they keep.

    All services make them, so that any may start first; one alone updates. Raises BrokerUnavailable.
    """
    try:
        await _make(bus, limits, update)
    except (NatsError, TimeoutError) as error:
        reason = str(error) or type(error).__name__
        raise BrokerUnavailable(
            f"NATS does not make the streams ({reason}): JetStream has to be on (nats-server -js), with "
            "TIDEGATE_REPLICAS servers"
        ) from error


async def _make(bus: Bus, limits: StreamLimits, update: bool) -> None:
    subjects = bus.subjects
    events = StreamConfig(
        name=subjects.events_stream,
        subjects=[subjects.inbound(">")],
        retention=RetentionPolicy.LIMITS,
        discard=DiscardPolicy.OLD,
        storage=StorageType.FILE,
        max_age=limits.max_age_seconds,
        max_bytes=limits.max_bytes,
        max_msgs_per_subject=limits.max_per_subject,
        num_replicas=limits.replicas,
        duplicate_window=min(120, limits.max_age_seconds),
        republish=RePublish(src=subjects.inbound(">"), dest=subjects.outbound(">")),
        allow_direct=True,
        allow_msg_ttl=True,
    )
    jobs = StreamConfig(
        name=subjects.jobs_stream,
        subjects=[subjects.jobs()],
        retention=RetentionPolicy.WORK_QUEUE,
        discard=DiscardPolicy.NEW,
        storage=StorageType.FILE,
        max_msgs=limits.max_jobs,
        max_bytes=limits.max_job_bytes,
        num_replicas=limits.replicas,
        duplicate_window=120,
    )
    # A key-value bucket of its own kind: where it is full the oldest go, so that no job is kept from ending.
    dead = StreamConfig(
        name=f"KV_{subjects.dead_bucket}",
        subjects=[f"$KV.{subjects.dead_bucket}.>"],
        discard=DiscardPolicy.OLD,
        storage=StorageType.FILE,
        max_age=limits.dead_job_seconds,
        max_bytes=limits.max_dead_bytes,
        max_msgs_per_subject=1,
        num_replicas=limits.replicas,
        duplicate_window=min(120, limits.dead_job_seconds),
        allow_direct=True,
        allow_rollup_hdrs=True,
        allow_msg_ttl=True,
        deny_delete=True,
    )
    for config in (events, jobs, dead):
        await _ensure(bus.jetstream, config, update)
    try:
        await bus.jetstream.key_value(subjects.jobs_bucket)
    except NotFoundError:
        await bus.jetstream.create_key_value(
            KeyValueConfig(
                bucket=subjects.jobs_bucket, ttl=limits.job_state_seconds, history=1, replicas=limits.replicas
            )
        )


async def _ensure(jetstream: JetStreamContext, config: StreamConfig, update: bool) -> None:
    try:
        await jetstream.add_stream(config)
    except BadRequestError as error:
        if error.err_code != STREAM_NAME_IN_USE:
            raise
        if update:
            await jetstream.update_stream(StreamConfig(**asdict(config)))
