"""Makes of pieces what an event can hold: text that ends within a character, numbers that JSON does not have."""

from __future__ import annotations

import math

from msgspec.structs import replace

from ai_worker.pieces import Artifact, CandidateEnd, Piece, Progress, Reasoning, Segment, Text
from tidegate_common.contract.answers import CANDIDATES
from tidegate_common.contract.text import mended

REASON_CHARACTERS = 200


class PieceSanitizer:
    """Joins surrogate pairs that were split over two pieces; a half that has no other becomes U+FFFD.

    Models write tokens, which may end within a character, and some servers hand on what they have then. So a piece's
    last character is held back, if it may be such a half, until that candidate's next piece.
    """

    def __init__(self) -> None:
        self._held: dict[int, Text | Reasoning] = {}
        """By candidate, the half that its last piece ended with, as a piece."""

    def take(self, piece: Piece) -> list[Piece]:
        """What can be written by now: `piece`, or more, or less, of it. Raises TypeError, ValueError for what no
        handler may yield."""
        if isinstance(piece, Text | Reasoning):
            return self._text(piece)
        if isinstance(piece, CandidateEnd):
            end = replace(piece, candidate=_candidate(piece.candidate), reason=mended(piece.reason)[:REASON_CHARACTERS])
            return [*self._release(piece.candidate), end]
        return [_checked(piece)]

    def flush(self) -> list[Piece]:
        """Nothing more comes: what was held back stands for itself."""
        return [each for candidate in list(self._held) for each in self._release(candidate)]

    def _text(self, piece: Text | Reasoning) -> list[Piece]:
        _candidate(piece.candidate)
        if not self._held and piece.content.isascii():
            return [piece]
        before: list[Piece] = []
        content = piece.content
        held = self._held.get(piece.candidate)
        if held is not None and type(held) is not type(piece):
            before = self._release(piece.candidate)
        elif held is not None:
            del self._held[piece.candidate]
            content = held.content + content
        if content and "\ud800" <= content[-1] <= "\udbff":
            self._held[piece.candidate] = replace(piece, content=content[-1])
            content = content[:-1]
            if not content:
                return before
        return [*before, replace(piece, content=mended(content))]

    def _release(self, candidate: int) -> list[Piece]:
        held = self._held.pop(candidate, None)
        return [] if held is None else [replace(held, content=mended(held.content))]


def _checked(piece: Piece) -> Piece:
    """What is no text of the model's, as JSON can write it."""
    if isinstance(piece, Progress):
        fraction = piece.fraction if piece.fraction is not None and math.isfinite(piece.fraction) else None
        return replace(piece, fraction=fraction, note=mended(piece.note))
    if isinstance(piece, Artifact):
        url = None if piece.url is None else mended(piece.url)
        candidate = _candidate(piece.candidate)
        name, media_type = mended(piece.name), mended(piece.media_type)
        return replace(piece, name=name, media_type=media_type, url=url, candidate=candidate)
    if isinstance(piece, Segment):
        times = {name: _finite(getattr(piece, name)) for name in ("start", "end", "confidence")}
        return replace(piece, text=mended(piece.text), **times)
    raise TypeError(f"{type(piece).__name__} is no piece that a handler may yield")


def _candidate(candidate: int) -> int:
    if not isinstance(candidate, int) or not 0 <= candidate < CANDIDATES:
        raise ValueError(f"a candidate's number is 0 to {CANDIDATES - 1}")
    return candidate


def _finite(number: float) -> float:
    return number if math.isfinite(number) else 0.0
