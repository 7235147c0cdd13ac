"""The shipped handlers beside chat, and how others are loaded."""

import io
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest
from opentelemetry.context import Context
from PIL import Image

from ai_worker.handlers.handler import Handler, Work
from ai_worker.handlers.loading import load_handlers
from ai_worker.handlers.transform import passages
from ai_worker.job_errors import InvalidParams
from ai_worker.models.model import ChatRequest
from ai_worker.models.traced import TracedModel
from ai_worker.pieces import Artifact, Finish, Piece, Progress, Segment, Text
from ai_worker.settings import WorkerSettings
from tidegate_common.contract.jobs import Usage
from tidegate_common.errors import ConfigError
from tidegate_common.telemetry.providers import telemetry


class Shouting:
    """Answers with the last message in capitals."""

    provider = "test"
    most: int | None = None
    continues = False

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.limits: list[int | None] = []

    async def start(self) -> str:
        return "first"

    async def models(self) -> list[str]:
        return ["first"]

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Piece]:
        said = request.messages[-1].content
        self.asked.append(said)
        self.limits.append(request.max_tokens)
        yield Text(said.upper())
        yield Finish("length" if "TOO LONG" in said else "stop", Usage(1, 2), "first")

    async def aclose(self) -> None:
        pass


async def run(
    kind: str, params: dict[str, Any], *named: str, max_tokens: int | None = None
) -> tuple[list[Piece], Shouting]:
    model = Shouting()
    with telemetry("test", {}) as signals:
        settings = WorkerSettings(ai_handlers=named, scripted_think_seconds=0)
        traced = TracedModel(model, "first", signals, max_tokens)
        handler: Handler = load_handlers(traced, settings)[kind]
        work = Work("j1", 1, Context())
        work.give_model(traced)
        async with aclosing(handler(work, params)) as pieces:
            return [piece async for piece in pieces], model


def text(pieces: list[Piece]) -> str:
    return "".join(piece.content for piece in pieces if isinstance(piece, Text))


@pytest.mark.parametrize(
    "whole",
    [
        "short",
        "One. Two! Three? " * 40,
        "first\n\nsecond\n\n" * 30,
        "潮水在涨。" * 60,
        "x" * 500,
        "word " * 100,
        " \n" * 99,
    ],
)
def test_passages_are_the_text_again_and_none_is_too_long(whole: str) -> None:
    parts = passages(whole, 100)
    assert "".join(part.text + part.after for part in parts) == whole
    assert all(len(part.text) <= 100 for part in parts)


def test_a_text_is_cut_where_a_paragraph_or_a_sentence_ends() -> None:
    assert [part.text for part in passages("A b c. D e f. " * 3, 30)] == [
        "A b c. D e f. A b c. D e f.",
        "A b c. D e f. ",
    ]
    assert passages("one two\n\nthree. four five", 18)[0].text == "one two"


async def test_a_text_goes_through_the_model_in_passages_and_keeps_what_stands_between_them() -> None:
    whole = ("A tide comes in. " * 50).strip() + "\n\n" + "And out."
    pieces, model = await run("transform", {"text": whole, "instruction": "Shout"})
    assert text(pieces) == whole.upper()
    assert len(model.asked) == 1
    pieces, model = await run("transform", {"text": whole * 3, "instruction": "Shout"})
    assert text(pieces) == (whole * 3).upper()
    assert len(model.asked) > 2
    assert pieces[-1] == Finish("stop", Usage(len(model.asked), 2 * len(model.asked)), "first")
    fractions = [piece.fraction for piece in pieces if isinstance(piece, Progress)]
    assert fractions == sorted(fractions, key=lambda each: each or 0)
    assert len(fractions) == len(model.asked) - 1


async def test_a_passage_that_was_cut_is_told_though_others_follow_it() -> None:
    """Only the last passage's end counted, so that a text with a hole in it ended as whole."""
    whole = "This is TOO LONG for it. " * 40 + "\n\n" + "And out. " * 60
    pieces, model = await run("transform", {"text": whole, "instruction": "Shout"})
    assert len(model.asked) == 2
    assert isinstance(pieces[-1], Finish)
    assert pieces[-1].reason == "length"


@pytest.mark.parametrize(("max_tokens", "most"), [(None, 1500), (4000, 1500), (300, 600), (1, 200)])
async def test_a_passage_is_no_longer_than_what_its_answer_may_come_to(max_tokens: int | None, most: int) -> None:
    _, model = await run("transform", {"text": "In and out. " * 400, "instruction": "Shout"}, max_tokens=max_tokens)
    assert most / 2 < max(len(asked) for asked in model.asked) <= most
    assert set(model.limits) == {max_tokens}


async def test_a_picture_gets_sharper_and_every_step_has_its_size() -> None:
    pieces, _ = await run("image.progressive", {"width": 200, "height": 120, "format": "png", "seed": 4})
    steps = [piece for piece in pieces if isinstance(piece, Artifact)]
    assert [step.final for step in steps] == [False] * 4 + [True]
    pictures = [Image.open(io.BytesIO(step.content or b"")).convert("L") for step in steps]
    assert {picture.size for picture in pictures} == {(200, 120)}
    last = pictures[-1].tobytes()
    errors = [sum(abs(a - b) for a, b in zip(picture.tobytes(), last, strict=True)) for picture in pictures]
    assert errors == sorted(errors, reverse=True), "each step is nearer to the last one"
    assert errors[0] > 2 * errors[-2]


async def test_the_largest_picture_fits_into_an_event() -> None:
    for seed in range(4):
        params = {"width": 1024, "height": 1024, "seed": seed}
        pieces, _ = await run("image.progressive", params)
        assert max(len(piece.content or b"") for piece in pieces if isinstance(piece, Artifact)) < 700_000


async def test_speech_is_heard_first_and_corrected_later() -> None:
    pieces, _ = await run("transcribe", {"language": "en"})
    segments = [piece for piece in pieces if isinstance(piece, Segment)]
    assert [segment.final for segment in segments] == [False, True] * 3
    for heard, said in zip(segments[::2], segments[1::2], strict=True):
        assert (heard.number, heard.start, heard.end) == (said.number, said.start, said.end)
        assert heard.text != said.text
        assert heard.confidence < said.confidence


@pytest.mark.parametrize(
    ("kind", "params", "named"),
    [
        ("transform", {"text": "x"}, "instruction"),
        ("transform", {"text": "", "instruction": "y"}, "text"),
        ("image.progressive", {"width": 5}, "width"),
        ("image.progressive", {"format": "gif"}, "format"),
        ("transcribe", {"source": "ears"}, "scripted"),
    ],
)
async def test_params_that_cannot_be_used_are_named(kind: str, params: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidParams, match=named):
        await run(kind, params)


async def test_the_example_counts_down() -> None:
    pieces, _ = await run("countdown", {"from": 3, "pause": 0}, "countdown=examples.countdown:countdown")
    assert text(pieces) == "3… 2… 1… lift-off!"
    with pytest.raises(InvalidParams, match="from"):
        await run("countdown", {"from": 0}, "countdown=examples.countdown:countdown")


async def asks(work: Work, params: dict[str, Any]) -> AsyncGenerator[Piece]:
    async for piece in work.ask(params["prompt"]):
        yield piece


async def test_a_handler_of_ones_own_can_ask_the_model() -> None:
    pieces, _ = await run("asks", {"prompt": "hi"}, f"asks={__name__}:asks")
    assert text(pieces) == "HI"


@pytest.mark.parametrize(
    "named", ["x", "x=", "x=nowhere:f", "x=examples.countdown:nothing", "chat=examples.countdown:countdown"]
)
async def test_a_handler_that_cannot_be_had_is_said(named: str) -> None:
    with pytest.raises(ConfigError, match="TIDEGATE_AI_HANDLERS"):
        await run("chat", {}, named)
