"""Makes text that UTF-8 can write of text that it can't.

JSON can name half a character (`"\\ud83d"`), and Python's strings hold it, but no encoder of ours writes it.
"""

from __future__ import annotations

import json

import msgspec

from tidegate_common.contract.ids import is_well_formed

UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError)
"""What decoding raises for bytes that are not what they should be."""


def mended(text: str) -> str:
    """`text` with U+FFFD for each surrogate that has no other half; two that make a pair are joined."""
    if text.isascii() or is_well_formed(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def mended_json(raw: bytes) -> bytes:
    """JSON whose texts are all `mended`. Anything else stays as it is: decoding it fails, and says why."""
    if b"\\ud" not in raw and b"\\uD" not in raw:
        return raw
    try:
        return mended(json.dumps(json.loads(raw), ensure_ascii=False)).encode()
    except (ValueError, RecursionError):
        return raw
