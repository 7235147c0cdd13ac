"""Halves of characters, and what no handler may yield."""

from __future__ import annotations

from typing import Any

import pytest

from ai_worker.piece_sanitizer import PieceSanitizer
from ai_worker.pieces import CandidateEnd, Piece, Progress, Reasoning, Text


def cleaned(*pieces: Piece) -> list[Piece]:
    sanitizer = PieceSanitizer()
    return [each for piece in pieces for each in sanitizer.take(piece)] + sanitizer.flush()


def test_the_halves_of_a_character_are_joined_within_their_candidate() -> None:
    assert cleaned(Text("a\ud83d"), Text("x", 1), Text("\ude00b")) == [Text("a"), Text("x", 1), Text("\U0001f600b")]


def test_a_half_that_has_no_other_is_replaced_where_it_stood() -> None:
    assert cleaned(Text("\ud83d"), Reasoning("b")) == [Text("\ufffd"), Reasoning("b")]
    assert cleaned(Text("\ud83d"), CandidateEnd("stop", 0)) == [Text("\ufffd"), CandidateEnd("stop", 0)]
    assert cleaned(Text("a\ud83d")) == [Text("a"), Text("\ufffd")]
    assert cleaned(Text("\ude00a")) == [Text("\ufffda")]


def test_numbers_that_json_does_not_have_are_left_out() -> None:
    assert cleaned(Progress(float("nan"), "x")) == [Progress(None, "x")]


@pytest.mark.parametrize("candidate", [-1, 64, "a"])
def test_a_candidate_that_no_answer_has_is_refused(candidate: Any) -> None:
    with pytest.raises(ValueError, match="0 to 63"):
        cleaned(Text("a", candidate))


def test_what_is_no_piece_is_refused() -> None:
    nothing: Any = 5
    with pytest.raises(TypeError, match="int is no piece"):
        cleaned(nothing)
