"""Single values that a backend has written, which may be anything.

Apart from `chunks`, which loads OpenAI's client: that takes half a second, and only who asks an endpoint pays it.
"""

from __future__ import annotations

from tidegate_common.contract.text import mended

WORD_CHARACTERS = 200
"""Of a model's name and of a finish reason."""

MOST_TOKENS = 2**53 - 1
"""A larger count is none: JSON's numbers are exact up to here."""


def word(value: object) -> str:
    """`value` if it is a short text; empty for all else."""
    return mended(value)[:WORD_CHARACTERS] if isinstance(value, str) else ""


def count(value: object) -> int:
    """`value` as a count: a number, or a text that writes one; 0 for all else."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 20:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS else 0
