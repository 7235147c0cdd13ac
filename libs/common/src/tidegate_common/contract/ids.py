"""Names and identifiers: parsed once at the edge, so that nothing unchecked reaches a subject or a frame."""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import NamedTuple

from tidegate_common.errors import InvalidField, NotFound

MAX_NAME_BYTES = 200
"""Limit of a client, user or topic name in UTF-8 bytes: encoded it may triple, and a subject line holds 4096."""

_NAME = f"1 to {MAX_NAME_BYTES} bytes of UTF-8 without control characters"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_EVENT_TYPE = re.compile(r"[^\s\x00-\x1f\x7f-\x9f]{1,128}")
_EVENT_ID = re.compile(r"([a-z0-9]{1,32})-(0|[1-9][0-9]{0,19})")
_JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
RESERVED_EVENT_TYPES = frozenset({"connected", "gap", "closing", "expiring", "live", "join", "leave"})


class EventId(NamedTuple):
    """Position of an event: `epoch` names one life of one stream, `sequence` counts in it from 1.

    On the wire `<epoch>-<sequence>`. Clients treat it as opaque.
    """

    epoch: str
    sequence: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.sequence}"

    @classmethod
    def parse(cls, text: str) -> EventId | None:
        """The id that `text` writes, or None if it is none of ours."""
        match = _EVENT_ID.fullmatch(text)
        return cls(match[1], int(match[2])) if match else None


def new_client_id() -> str:
    """128 random bits, URL-safe: 22 characters."""
    return secrets.token_urlsafe(16)


def new_job_id() -> str:
    """128 random bits in hexadecimal: 32 characters."""
    return secrets.token_hex(16)


def keyed_id(surface: str, *words: str) -> str:
    """The id of what `words` name, an `Idempotency-Key` among them: the same each time, and another on each surface.

    It has the form of a new job's. A release that made other ids of the same key would not know what was asked for
    under it before an upgrade.
    """
    return hashlib.sha256("\0".join((surface, *words)).encode()).hexdigest()[:32]


def is_job_id(text: str) -> bool:
    """Whether a job can have it as its id: it is a bucket's key, and a token of subjects.

    Those that Tidegate makes are 32 hexadecimal digits. Whoever may write to the queue can choose others.
    """
    return _JOB_ID.fullmatch(text) is not None


def check_job_id(text: str) -> str:
    """`text`, if a job can have it as its id. Raises NotFound."""
    if not is_job_id(text):
        raise NotFound("there is no job of such an id")
    return text


def check_name(field: str, value: str) -> str:
    """`value`, if it can name a client, a user or a topic.

    Raises InvalidField for an empty, overlong or ill-formed one (control characters, lone surrogates).
    """
    if value.isascii() and value.isprintable() and 1 <= len(value) <= MAX_NAME_BYTES:
        return value  # nearly all: that is known four times as fast
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise InvalidField(field, _NAME) from None
    if not 1 <= size <= MAX_NAME_BYTES or _CONTROL.search(value):
        raise InvalidField(field, _NAME)
    return value


def check_event_type(field: str, value: str) -> str:
    """`value`, if it can stand in an `event:` line.

    Raises InvalidField for whitespace, control characters, lone surrogates and the types that the gateway
    itself writes.
    """
    if value in RESERVED_EVENT_TYPES:
        raise InvalidField(field, f"any type but {', '.join(sorted(RESERVED_EVENT_TYPES))}, which the gateway writes")
    if not _EVENT_TYPE.fullmatch(value) or not is_well_formed(value):
        raise InvalidField(field, "1 to 128 characters without spaces and control characters")
    return value


def is_well_formed(text: str) -> bool:
    """Whether `text` has no lone surrogate, that is, whether UTF-8 can write it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
