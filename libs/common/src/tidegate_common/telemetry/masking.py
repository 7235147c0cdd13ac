"""Tokens, keys and tickets in places where none belongs: a query, a path, a field's name.

What was sent there is told back in problems, and noted in spans. So is a secret that somebody has put there by mistake,
for others to read. This is no way to keep secrets that we know of: those are never handed on.
"""

from __future__ import annotations

import re

MASK = "***"

# A JWT, also one that was cut off; a key or a ticket of ours.
_SECRET = re.compile(r"eyJ[\w-]{8,}(?:\.[\w-]*){0,2}|tg[kt]_[\w-]+", re.ASCII)

STARTS = ("eyJ", "tgk_", "tgt_")
"""One of these is in each text that something is masked in."""


def masked(text: str) -> str:
    """`text` without what looks like a token, a key or a ticket."""
    return _SECRET.sub(MASK, text)
