"""A job's events that are not ours: whoever may write to NATS can put anything under a job's header."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from gateway.openai.api_errors import ApiError
from gateway.openai.translator import ChunkHead, ChunkTranslator, completion
from tidegate_common.contract import answers
from tidegate_common.contract.answers import AnswerBuilder
from tidegate_common.contract.text import mended, mended_json

TYPES = st.sampled_from(
    [
        answers.RESPONSE,
        answers.REASONING,
        answers.PROGRESS,
        answers.ARTIFACT,
        answers.TRANSCRIPT,
        answers.RESTART,
        answers.ERROR,
        "note",
    ]
)
TEXTS = st.text(st.characters(exclude_categories=()), max_size=4)
VALUES = st.one_of(st.none(), st.booleans(), st.integers(-2, 3), st.integers(), st.floats(), TEXTS)
NAMES = ["index", "content", "candidate", "done", "usage", "finish_reason", "name", "segment", "text", "code"]
FIELDS = st.dictionaries(
    st.sampled_from(NAMES),
    VALUES | st.dictionaries(st.sampled_from(["prompt_tokens", "completion_tokens"]), VALUES),
)
GOOD = st.fixed_dictionaries({"job_id": st.just("j"), "index": st.integers(0, 3), "content": TEXTS, "code": TEXTS})
DATA = st.one_of(GOOD, FIELDS).map(lambda value: json.dumps(value).encode()) | st.binary(max_size=8)


@given(st.lists(st.tuples(TYPES, DATA), max_size=6), st.integers(1, 3))
def test_no_event_breaks_the_document_or_the_stream(events: list[tuple[str, bytes]], candidates: int) -> None:
    """One event that was no JSON, or had half a character, was a 500 for whoever asked for the job."""
    found, chunks = AnswerBuilder(), ChunkTranslator(ChunkHead("j", 1, "m"), candidates, include_usage=True)
    for event_type, data in events:
        found.take(event_type, data)
        with contextlib.suppress(ApiError):
            chunks.take(event_type, data)
    document: Any = json.loads(msgspec.json.encode(found.answer()))
    assert len(document.get("candidates", [])) <= answers.CANDIDATES
    with contextlib.suppress(ApiError):
        completion(ChunkHead("j", 1, "m"), found.answer())


def test_what_can_not_be_read_makes_the_document_less_than_whole() -> None:
    found = AnswerBuilder()
    found.take(answers.RESPONSE, b'{"index":0,"content":"a"}')
    found.take(answers.RESPONSE, b'{"index":1,"content":7}')
    assert (found.answer().candidates[0].content, found.answer().whole) == ("a", False)


@given(TEXTS)
def test_mended_text_is_what_utf_16_makes_of_it(text: str) -> None:
    assert mended(mended(text)) == mended(text)
    assert json.loads(mended_json(json.dumps([text]).encode())) == [mended(text)]
    mended(text).encode()
