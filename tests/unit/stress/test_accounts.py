"""The accounts of the AI stress run: each kind of fault turns them red."""

import json
from typing import Any

import pytest

from tests.stress.answers.accounts import Seen, Wanted, judge
from tests.stress.ledger import Verdict
from tests.stress.wire import Frame

TEXT = "abc"


def frame(number: int, event: str = "ai_response", **data: Any) -> Frame:
    return Frame(f"e-{number}", event, json.dumps({"job_id": "j", **data}))


def piece(number: int, index: int, content: str) -> Frame:
    return frame(number, index=index, content=content, done=False)


def end(number: int, index: int, reason: str = "stop", tokens: int = len(TEXT)) -> Frame:
    usage = {"completion_tokens": tokens}
    return frame(number, index=index, content="", done=True, finish_reason=reason, usage=usage)


WHOLE = [piece(1, 0, "a"), piece(2, 1, "bc"), end(3, 2)]
RESTARTED = [piece(1, 0, "a"), frame(2, "ai_restart", attempt=2), piece(3, 0, "abc"), end(4, 1)]


def told(*frames: Frame, **wanted: Any) -> tuple[Verdict, list[str]]:
    return judge(Seen(Wanted("j", TEXT, **wanted), list(frames)))


@pytest.mark.parametrize("frames", [WHOLE, RESTARTED])
def test_a_whole_answer_is_clean(frames: list[Frame]) -> None:
    verdict, problems = told(*frames)
    assert verdict.clean
    assert problems == []


@pytest.mark.parametrize(
    ("frames", "fault"),
    [
        ([piece(1, 0, "a"), end(3, 2)], "lost"),
        ([*WHOLE[:2], piece(2, 1, "bc"), end(3, 2)], "duplicated"),
        ([piece(1, 0, "a"), piece(2, 0, "a"), piece(3, 1, "bc"), end(4, 2)], "duplicated"),
        ([piece(2, 0, "a"), piece(1, 1, "bc"), end(3, 2)], "disordered"),
        ([*WHOLE, piece(4, 3, "ghost")], "foreign"),
        ([*WHOLE, end(4, 3)], "foreign"),
        ([frame(1, job_id="other", index=0, content="a"), *WHOLE[1:]], "foreign"),
    ],
)
def test_each_fault_is_counted(frames: list[Frame], fault: str) -> None:
    assert getattr(told(*frames)[0], fault) > 0


def test_a_wrong_text_a_missing_end_and_an_end_that_nobody_asked_for_are_problems() -> None:
    assert told(piece(1, 0, "abd"), end(2, 1))[1]
    assert told(*WHOLE[:2])[1]
    assert told(piece(1, 0, "a"), end(2, 1, "cancelled"))[1]
    late = frame(2, "ai_error", code="timeout", message="late", done=True)
    assert told(late)[1]
    assert told(late, ends={"timeout"})[1] == []


def test_a_cancelled_answer_is_the_beginning_of_the_whole_one_and_says_what_it_used() -> None:
    assert told(piece(1, 0, "ab"), end(2, 1, "cancelled", 2), ends={"cancelled"})[1] == []
    assert told(piece(1, 0, "b"), end(2, 1, "cancelled", 1), ends={"cancelled"})[1]
    assert told(piece(1, 0, "ab"), end(2, 1, "cancelled", 0), ends={"cancelled"})[1]
    assert told(end(1, 0, "cancelled", 0), ends={"cancelled"})[1] == []


def test_a_cancel_that_does_nothing_is_a_problem() -> None:
    assert told(*WHOLE, ends={"cancelled"})[1]
    assert told(*WHOLE, ends={"cancelled", "stop"})[1] == []


def test_a_whole_answer_says_what_it_used() -> None:
    assert told(piece(1, 0, "abc"), end(2, 1, tokens=1))[1]


def test_a_model_that_goes_on_takes_back_no_text() -> None:
    assert told(*RESTARTED, goes_on=True)[1]
    assert told(frame(1, "ai_restart", attempt=2), piece(2, 0, "abc"), end(3, 1), goes_on=True)[1] == []


def test_what_was_shown_counts_from_the_last_restart() -> None:
    assert [Seen(Wanted("j", TEXT), frames).shown for frames in (WHOLE[:2], RESTARTED[:2], RESTARTED[:3])] == [2, 0, 1]
