"""Answers a message of the work queue that is no job."""

from __future__ import annotations

import logging

import msgspec

from ai_worker.errors import InvalidParams
from ai_worker.records import Records
from tidegate_common.bus.events.publisher import EventPublisher
from tidegate_common.bus.jobs.dequeue import Delivery
from tidegate_common.contract.answers import AiError
from tidegate_common.contract.events import JOB, JOB_END, Event
from tidegate_common.contract.ids import is_job_id
from tidegate_common.contract.soundness import is_tail
from tidegate_common.contract.text import UNREADABLE, mended_json
from tidegate_common.errors import Unavailable
from tidegate_common.telemetry import propagation

log = logging.getLogger(__name__)


class _Envelope(msgspec.Struct):
    """What can still be read: who asked, and for what."""

    job_id: str
    tail: str


_ENVELOPE = msgspec.json.Decoder(_Envelope)


async def refuse(delivery: Delivery, publisher: EventPublisher, records: Records) -> None:
    """Tells whoever asked, where that can be read, and takes the message out of the queue.

    Raises BrokerUnavailable; the message comes again then.
    """
    envelope = _envelope(delivery)
    if envelope is not None:
        try:
            await _tell(envelope, delivery, publisher, records)
        except Unavailable:
            raise
        except Exception:  # it would come again with the message, which is not to stay for that
            log.exception("nobody is told that a message of the queue is no job")
    await delivery.discard()


def _envelope(delivery: Delivery) -> _Envelope | None:
    """None where nobody can be told."""
    try:
        envelope = _ENVELOPE.decode(mended_json(delivery.payload))
    except UNREADABLE:
        return None
    return envelope if is_job_id(envelope.job_id) and is_tail(envelope.tail) else None


async def _tell(envelope: _Envelope, delivery: Delivery, publisher: EventPublisher, records: Records) -> None:
    error = InvalidParams("it is no job that this worker knows")
    text = f"{error.code}: {error}"
    state = await records.refuse(envelope.job_id, text)
    if state is None or (state.error == text and not state.end):
        data = AiError(job_id=envelope.job_id, code=error.code, message=str(error))
        headers = {JOB: envelope.job_id, JOB_END: "1"}
        propagation.inject(headers, propagation.extract(delivery.headers))
        event = Event("ai_error", msgspec.json.encode(data).decode())
        receipt = await publisher.durable(envelope.tail, event, headers=headers, message_id=f"{envelope.job_id}:end")
        await records.ended(envelope.job_id, receipt.id)
