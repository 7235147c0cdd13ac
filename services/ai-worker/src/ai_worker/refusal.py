"""Answers a message of the work queue that is no job."""

from __future__ import annotations

import re

import msgspec

from ai_worker.errors import InvalidParams
from ai_worker.records import Records
from tidegate_common.bus.publishing import Publisher
from tidegate_common.bus.queue import Delivery
from tidegate_common.contract.answers import AiError
from tidegate_common.contract.events import JOB, JOB_END, Event
from tidegate_common.telemetry import propagation

_ADDRESS = re.compile(r"broadcast|(client|user|topic|job)(\.[^\s.*>]+)+")


class _Envelope(msgspec.Struct):
    """What can still be read: who asked, and for what."""

    job_id: str
    tail: str


_ENVELOPE = msgspec.json.Decoder(_Envelope)


async def refuse(delivery: Delivery, publisher: Publisher, records: Records) -> None:
    """Tells whoever asked, where that can be read, and takes the message out of the queue.

    Raises BrokerUnavailable; the message comes again then.
    """
    try:
        envelope = _ENVELOPE.decode(delivery.payload)
    except (msgspec.ValidationError, msgspec.DecodeError):
        envelope = None
    if envelope is not None and _ADDRESS.fullmatch(envelope.tail):
        error = InvalidParams("it is no job that this worker knows")
        state = await records.refuse(envelope.job_id, f"{error.code}: {error}")
        if state is None or not state.end:
            data = AiError(job_id=envelope.job_id, code=error.code, message=str(error))
            headers = {JOB: envelope.job_id, JOB_END: "1"}
            propagation.inject(headers, propagation.extract(delivery.headers))
            event = Event("ai_error", msgspec.json.encode(data).decode())
            receipt = await publisher.durable(
                envelope.tail, event, headers=headers, message_id=f"{envelope.job_id}:end"
            )
            await records.ended(envelope.job_id, receipt.id)
    await delivery.discard()
