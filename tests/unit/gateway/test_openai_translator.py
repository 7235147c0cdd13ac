from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from gateway.openai.api_errors import ApiError
from gateway.openai.translator import DONE, ChunkHead, ChunkTranslator, completion
from tidegate_common.contract.answers import AiDone, AiError, AiProgress, AiResponse, AiRestart, Answer, AnswerBuilder
from tidegate_common.contract.jobs import Usage

HEAD = ChunkHead("j1", 7, "m")


class Stream:
    """What a client gets of a job's events."""

    def __init__(self, candidates: int = 1, include_usage: bool = False) -> None:
        self.chunks = ChunkTranslator(HEAD, candidates, include_usage)
        self.raw = b""
        self.index = 0

    def text(self, content: str, candidate: int = 0, reason: str | None = None) -> None:
        data = AiResponse(job_id="j1", index=self._next(), content=content, candidate=candidate, finish_reason=reason)
        self._take("ai_response", data)

    def thought(self, content: str) -> None:
        self._take("ai_reasoning", AiResponse(job_id="j1", index=self._next(), content=content))

    def restart(self) -> None:
        self.index = 0
        self._take("ai_restart", AiRestart(job_id="j1", attempt=2))

    def done(self, reason: str = "stop", content: str = "") -> None:
        self._take(
            "ai_response",
            AiDone(job_id="j1", index=self._next(), finish_reason=reason, usage=Usage(1, 2), content=content),
        )

    def _next(self) -> int:
        self.index += 1
        return self.index - 1

    def _take(self, event_type: str, data: msgspec.Struct) -> None:
        self.raw += self.chunks.take(event_type, msgspec.json.encode(data))

    @property
    def said(self) -> list[dict[str, Any]]:
        lines = [line for line in self.raw.decode().split("\n\n") if line not in ("", "data: [DONE]")]
        return [json.loads(line.removeprefix("data: ")) for line in lines]

    def field(self, name: str, candidate: int = 0) -> str:
        choices = [choice for chunk in self.said for choice in chunk["choices"] if choice["index"] == candidate]
        return "".join(choice["delta"].get(name, "") for choice in choices)

    def reasons(self) -> list[str]:
        return [
            choice["finish_reason"] for chunk in self.said for choice in chunk["choices"] if choice["finish_reason"]
        ]


def test_a_chunk_is_one_line_for_whoever_splits_text_by_all_of_unicodes_line_ends() -> None:
    """A client that reads by `splitlines` got a token with U+2028 in it in two pieces, neither of them JSON."""
    stream = Stream()
    stream.text("a\u2028b\u2029c\x85d")
    lines = [line for line in stream.raw.decode().splitlines() if line]
    assert all(line.startswith("data: {") for line in lines)
    assert stream.field("content") == "a\u2028b\u2029c\x85d"


def test_an_attempt_that_says_the_same_again_is_held_back_and_goes_on() -> None:
    stream = Stream()
    stream.text("Hello wor")
    before = stream.raw
    stream.restart()
    for piece in ("He", "llo", " w"):
        stream.text(piece)
    assert stream.raw == before
    stream.text("orld")
    stream.text("!")
    stream.done()
    assert stream.field("content") == "Hello world!"
    assert stream.raw.endswith(DONE)


def test_an_attempt_that_says_something_else_ends_the_stream_with_an_error() -> None:
    stream = Stream()
    stream.text("Hello")
    stream.restart()
    stream.text("Hel")
    with pytest.raises(ApiError) as told:
        stream.text("p!")
    assert (told.value.status, told.value.code) == (500, "answer_restarted")


def test_an_attempt_that_says_less_than_was_sent_ends_the_stream_with_an_error() -> None:
    stream = Stream()
    stream.text("Hello world")
    stream.restart()
    stream.text("Hello")
    with pytest.raises(ApiError):
        stream.done()


def test_a_restart_of_a_restart_is_compared_with_all_that_was_sent() -> None:
    stream = Stream()
    stream.text("abc")
    stream.restart()
    stream.text("abcd")
    stream.restart()
    stream.text("ab")
    stream.text("cde")
    stream.done()
    assert stream.field("content") == "abcde"


def test_a_restart_before_anything_was_sent_is_not_to_be_seen() -> None:
    stream = Stream()
    stream.restart()
    stream.text("Hello")
    stream.done()
    assert stream.field("content") == "Hello"


def test_thoughts_that_come_out_differently_are_left_out_and_the_answer_goes_on() -> None:
    stream = Stream()
    stream.thought("Perhaps.")
    stream.text("Hel")
    stream.restart()
    stream.thought("Surely.")
    stream.thought("Quite.")
    stream.text("Hello")
    stream.done()
    assert stream.field("reasoning_content") == "Perhaps."
    assert stream.field("content") == "Hello"


def test_each_candidate_is_compared_with_its_own_text_and_ends_once() -> None:
    stream = Stream(candidates=2)
    stream.text("one", 0, "length")
    stream.text("tw", 1)
    stream.restart()
    stream.text("two", 1)
    stream.text("one", 0, "length")
    stream.text("", 1, "stop")
    stream.done()
    assert (stream.field("content", 0), stream.field("content", 1)) == ("one", "two")
    assert stream.reasons() == ["length", "stop"]


def test_a_candidate_that_has_ended_says_nothing_more() -> None:
    stream = Stream(candidates=2)
    stream.text("one", 0, "stop")
    stream.restart()
    with pytest.raises(ApiError):
        stream.text("one more", 0)


def test_the_last_event_may_hold_text() -> None:
    stream = Stream(include_usage=True)
    stream.done("length", "all")
    assert (stream.field("content"), stream.reasons()) == ("all", ["length"])
    assert stream.said[-1]["usage"] == {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    assert stream.said[0]["usage"] is None


def test_a_job_that_another_cancelled_is_an_error_for_who_waits() -> None:
    stream = Stream()
    with pytest.raises(ApiError) as told:
        stream.done("cancelled")
    assert (told.value.status, told.value.code) == (409, "cancelled")
    assert stream.chunks.over


@pytest.mark.parametrize("kept", [[1, 2, 3], [0, 2, 3], [0, 1, 3]])
def test_a_text_with_a_hole_is_an_error_and_no_answer(kept: list[int]) -> None:
    """What had left the stream before a slow client could take it was left out of its answer in silence."""
    events: list[tuple[str, msgspec.Struct]] = [
        ("ai_response", AiResponse(job_id="j1", index=0, content="Hello ")),
        ("ai_progress", AiProgress(job_id="j1", state="at work", index=1)),
        ("ai_response", AiResponse(job_id="j1", index=2, content="world")),
        ("ai_response", AiDone(job_id="j1", index=3, finish_reason="stop", usage=Usage(1, 2))),
    ]

    def taken(numbers: list[int]) -> Stream:
        stream = Stream()
        for number in numbers:
            stream._take(*events[number])
        return stream

    assert taken([0, 1, 2, 3]).field("content") == "Hello world"
    with pytest.raises(ApiError) as told:
        taken(kept)
    assert (told.value.status, told.value.code) == (404, "not_found")


def test_events_of_other_types_say_nothing() -> None:
    stream = Stream()
    assert stream.chunks.take("ai_progress", b'{"job_id":"j1","state":"queued"}') == b""
    assert stream.chunks.take("of a later release", b"{}") == b""


def test_a_failed_or_a_broken_answer_is_no_completion() -> None:
    failed = AnswerBuilder()
    failed.take("ai_error", msgspec.json.encode(AiError(job_id="j1", code="timeout", message="Late.")))
    with pytest.raises(ApiError, match="Late"):
        completion(HEAD, failed.answer())
    with pytest.raises(ApiError) as told:
        completion(HEAD, Answer(whole=False, done=True))
    assert told.value.status == 404
    with pytest.raises(ApiError) as told:
        completion(HEAD, Answer(done=True, finish_reason="cancelled"))
    assert told.value.status == 409
