"""What pieces look like as events."""

from __future__ import annotations

import msgspec
import pytest

from ai_worker.piece_events import TEXT_BYTES, event_of, halves, merged, too_long
from ai_worker.pieces import Artifact, CandidateEnd, Piece, Progress, Reasoning, Segment, Text


def test_runs_of_one_type_and_candidate_go_together_and_keep_their_order() -> None:
    first: list[Piece] = [Reasoning("a"), Reasoning("b"), Text("c"), Text("x", 1), Text("d")]
    together = [Reasoning("ab"), Text("cde"), Text("x", 1), CandidateEnd("stop", 1)]
    assert merged([*first, CandidateEnd("stop", 1), Text("e")]) == together


def test_a_text_behind_its_candidates_end_stays_behind_it() -> None:
    assert merged([Text("a"), CandidateEnd("stop", 0), Text("b")]) == [Text("a"), CandidateEnd("stop", 0), Text("b")]


def test_of_progress_the_last_counts() -> None:
    assert merged([Progress(0.1), Progress(0.2, "x"), Text("a")]) == [Progress(0.2, "x"), Text("a")]


def test_a_text_is_split_and_nothing_else_is() -> None:
    assert halves(Text("abc", 2)) == [Text("a", 2), Text("bc", 2)]
    assert halves(Text("a")) == halves(Progress(0.5)) == []


@pytest.mark.parametrize(
    ("piece", "size", "long"),
    [
        (Text("a"), TEXT_BYTES, False),
        (Text("a"), TEXT_BYTES + 1, True),
        (Text("\u2028"), TEXT_BYTES - 3, True),
        (Text("\u2028"), TEXT_BYTES - 4, False),
        (Progress(0.5), TEXT_BYTES + 1, False),
    ],
)
def test_a_line_counts_as_a_gateway_writes_it(piece: Piece, size: int, long: bool) -> None:
    assert too_long(piece, b"x" * size) is long


def test_each_piece_has_its_type_and_its_index() -> None:
    segment = Segment(number=3, text="hi", start=0.5, end=1.5, confidence=0.9)
    picture = Artifact(name="p", media_type="image/png", content=b"\x89PNG")
    pieces: list[Piece] = [Text("a"), Reasoning("a"), CandidateEnd("stop", 2), Progress(0.5), picture, segment]
    found = [event_of(piece, "j1", index) for index, piece in enumerate(pieces)]
    types = ["ai_response", "ai_reasoning", "ai_response", "ai_progress", "ai_artifact", "ai_transcript"]
    assert [event_type for event_type, _ in found] == types
    data = [msgspec.to_builtins(each) for _, each in found]
    assert [each["index"] for each in data] == list(range(len(pieces)))
    assert {each["job_id"] for each in data} == {"j1"}
    assert (data[2]["content"], data[2]["finish_reason"]) == ("", "stop")
    assert data[4]["content"] == "iVBORw=="
