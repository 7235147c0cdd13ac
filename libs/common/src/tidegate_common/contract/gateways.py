"""What processes ask gateways and what those answer, over core NATS: who is there, presence, receipts, kicking.

New fields have defaults: a process may be one release ahead of another.
"""

from __future__ import annotations

import msgspec


class Announcement(msgspec.Struct, frozen=True):
    """Said by each gateway about once a second, and once with `leaving` when it stops."""

    gateway: str
    leaving: bool = False


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """Asked of all gateways. Its subject says what is meant; `asker` and `number` are where the answer goes."""

    asker: str
    number: int
    tail: str
    receipt_id: str = ""
    """Of a question for a receipt: what the event carries in its `Tidegate-Receipt` header."""
    job_id: str = ""
    """Of a question for presence: connections to this job's own stream count too."""


class GatewayAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One gateway's answer to the question `number`: how many of its connections it is about."""

    gateway: str
    number: int
    connections: int
