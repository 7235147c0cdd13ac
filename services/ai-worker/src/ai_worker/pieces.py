"""What a handler yields, and what a model streams."""

from __future__ import annotations

import msgspec

from tidegate_common.contract.jobs import Usage


class Text(msgspec.Struct, frozen=True):
    """A part of the answer."""

    content: str


class Reasoning(msgspec.Struct, frozen=True):
    """A part of the thinking before the answer."""

    content: str


class Finish(msgspec.Struct, frozen=True):
    """The end. `usage` is None where the backend counts nothing; `model` is the one that answered."""

    reason: str
    usage: Usage | None = None
    model: str | None = None


Piece = Text | Reasoning | Finish
