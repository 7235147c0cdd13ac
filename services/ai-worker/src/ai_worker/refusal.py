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


class Refusal:
    """Takes such messages out of the queue."""

    def __init__(self, ends: JobEnds) -> None:
        self._ends = ends

    async def refuse(self, delivery: Delivery) -> None:
        """Tells whoever asked, if that can be read, and takes the message out of the queue.

        Raises BrokerUnavailable; the message comes again then.
        """
        envelope = _envelope(delivery)
        if envelope is not None:
            try:
                await self._tell(envelope, delivery)
            except Unavailable:
                raise
            except Exception:  # it would come again with the message, which is not to stay for that
                log.exception("nobody is told that a message of the queue is no job")
        await delivery.discard()

    async def _tell(self, envelope: _Envelope, delivery: Delivery) -> None:
        try:
            state, here = await self._ends.record(envelope.job_id, partial(refused, error=_TEXT))
        except NotFound:  # of what has no record, or one that can't be read, the message id alone tells a repeat
            state, here = _without_record(envelope), True
        if state.error == _TEXT:
            trace = propagation.extract(delivery.headers)
            await self._ends.complete(replace(state, tail=envelope.tail), look=not here, trace=trace)


def _envelope(delivery: Delivery) -> _Envelope | None:
    """None if nobody can be told."""
    try:
        envelope = _ENVELOPE.decode(mended_json(delivery.payload))
    except UNREADABLE:
        return None
    return envelope if is_job_id(envelope.job_id) and is_tail(envelope.tail) else None


def _without_record(envelope: _Envelope) -> JobState:
    """As the record would be, if there were one."""
    return JobState(
        job_id=envelope.job_id, kind="", status=JobStatus.FAILED, created=0, updated=0, tail=envelope.tail, error=_TEXT
    )
