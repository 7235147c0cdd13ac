"""Answers a message of the work queue that is no job."""

from __future__ import annotations

import logging
from functools import partial

import msgspec
from msgspec.structs import replace

from ai_worker.job_errors import InvalidParams
from tidegate_common.bus.jobs.dequeue import Delivery
from tidegate_common.bus.jobs.finish import JobEnds, refused
from tidegate_common.contract.ids import is_job_id
from tidegate_common.contract.jobs import JobState, JobStatus
from tidegate_common.contract.soundness import is_tail
from tidegate_common.contract.text import UNREADABLE, mended_json
from tidegate_common.errors import NotFound, Unavailable
from tidegate_common.telemetry import propagation

log = logging.getLogger(__name__)

_ERROR = InvalidParams("it is no job that this worker knows")
_TEXT = f"{_ERROR.code}: {_ERROR}"


class _Envelope(msgspec.Struct):
    """What can still be read: who asked, and for what."""

    job_id: str
    tail: str


_ENVELOPE = msgspec.json.Decoder(_Envelope)


async def refuse(delivery: Delivery, ends: JobEnds) -> None:
    """Tells whoever asked, if that can be read, and takes the message out of the queue.

    Raises BrokerUnavailable; the message comes again then.
    """
    envelope = _envelope(delivery)
    if envelope is not None:
        try:
            await _tell(envelope, delivery, ends)
        except Unavailable:
            raise
        except Exception:  # it would come again with the message, which is not to stay for that
            log.exception("nobody is told that a message of the queue is no job")
    await delivery.discard()


def _envelope(delivery: Delivery) -> _Envelope | None:
    """None if nobody can be told."""
    try:
        envelope = _ENVELOPE.decode(mended_json(delivery.payload))
    except UNREADABLE:
        return None
    return envelope if is_job_id(envelope.job_id) and is_tail(envelope.tail) else None


async def _tell(envelope: _Envelope, delivery: Delivery, ends: JobEnds) -> None:
    job_id, tail = envelope.job_id, envelope.tail
    try:
        state, here = await ends.record(job_id, partial(refused, error=_TEXT))
    except NotFound:  # as the record would be; without one the message id alone tells a repeat
        state, here = JobState(job_id=job_id, kind="", status=JobStatus.FAILED, created=0, updated=0, error=_TEXT), True
    if state.error == _TEXT:
        trace = propagation.extract(delivery.headers)
        await ends.complete(replace(state, tail=tail), look=not here, trace=trace)
