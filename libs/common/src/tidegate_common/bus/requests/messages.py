"""Reads one message of a stream from its leader, whatever its headers hold.

The client's own call makes a dict of the headers, and fails over bytes in them that are no text.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
from nats import errors as nats_errors

from tidegate_common.bus.connection import Bus
from tidegate_common.contract.text import UNREADABLE
from tidegate_common.errors import BrokerUnavailable

ANSWER_SECONDS = 5.0
NO_MESSAGE = 10037
"""JetStream's error code where there is none."""


class Found(NamedTuple):
    """`block` is the raw header block, empty for none."""

    sequence: int
    subject: str
    block: bytes
    payload: bytes


class _Message(msgspec.Struct):
    seq: int
    subject: str
    hdrs: bytes = b""
    data: bytes = b""


class _Error(msgspec.Struct):
    err_code: int = 0
    description: str = ""


class _Answer(msgspec.Struct):
    message: _Message | None = None
    error: _Error | None = None


_ANSWER = msgspec.json.Decoder(_Answer)


async def message(bus: Bus, stream: str, sequence: int, subjects: str | None = None) -> Found | None:
    """The message of that sequence, or with `subjects` the first on those from there on; None where it is not kept.

    Raises BrokerUnavailable.
    """
    if not bus.connected:
        raise BrokerUnavailable("NATS is away")
    ask = {"seq": sequence} if subjects is None else {"seq": sequence, "next_by_subj": subjects}
    call = f"$JS.API.STREAM.MSG.GET.{stream}"
    try:
        answer = await bus.client.request(call, msgspec.json.encode(ask), timeout=ANSWER_SECONDS)
        found = _ANSWER.decode(answer.data)
    except (nats_errors.Error, TimeoutError, *UNREADABLE) as error:
        raise BrokerUnavailable("NATS does not give a stored message") from error
    if found.message is not None:
        kept = found.message
        return Found(kept.seq, kept.subject, kept.hdrs, kept.data)
    if found.error is not None and found.error.err_code == NO_MESSAGE:
        return None
    raise BrokerUnavailable(f"NATS does not give a stored message: {found.error and found.error.description}")
