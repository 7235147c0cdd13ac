import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest
from msgspec.structs import replace

from ai_worker.job_errors import BackendFailed, InvalidParams, JobError, ModelNotFound, PromptTooLong
from ai_worker.models.model import ChatRequest
from ai_worker.models.openai import NO_KEY, Continue, OpenAIModel
from ai_worker.pieces import CandidateEnd, Finish, Piece, Reasoning, Text, Used
from tests.integration.ai_worker.endpoint import MODEL, endpoint
from tests.integration.ai_worker.support import desk, worker
from tests.support.waiting import until
from tidegate_common.contract.jobs import ChatMessage, Usage


def request(prompt: str, model: str = "", temperature: float | None = None) -> ChatRequest:
    message = ChatMessage(role="user", content=prompt)
    return ChatRequest(messages=[message], model=model, max_tokens=9, temperature=temperature)


async def answer(url: str, prompt: str, key: str = "", model: str = "") -> list[Piece]:
    asked = OpenAIModel(url, key)
    try:
        async with aclosing(asked.stream(request(prompt, model))) as pieces:
            return [piece async for piece in pieces if not isinstance(piece, Used)]
    finally:
        await asked.aclose()


async def test_both_ways_to_write_reasoning_the_text_and_the_usage_are_read() -> None:
    async with endpoint() as server:
        assert await answer(server.url, "hello", key="k", model="other") == [
            Reasoning("hm"),
            Reasoning("ah"),
            Text("Good "),
            Text("day"),
            Finish("stop", Usage(7, 2), MODEL),
        ]
        (asked,) = server.asked
        assert (asked["model"], asked["max_tokens"], asked["stream_options"]) == ("other", 9, {"include_usage": True})
        assert "temperature" not in asked
        assert server.keys == ["Bearer k"]


async def test_without_a_model_and_a_key_the_endpoints_first_model_and_a_placeholder_are_sent() -> None:
    async with endpoint() as server:
        (*_, last) = await answer(server.url, "uncounted")
        assert last == Finish("stop", None, MODEL)
        assert server.asked[0]["model"] == MODEL
        assert server.keys == [f"Bearer {NO_KEY}"]


async def test_a_server_that_is_busy_at_first_is_asked_again() -> None:
    async with endpoint() as server:
        assert isinstance((await answer(server.url, "busy once", model="m"))[-1], Finish)
        assert len(server.asked) == 2


async def test_a_server_that_says_when_is_asked_again_no_sooner() -> None:
    async with endpoint() as server:
        assert isinstance((await answer(server.url, "too many", model="m"))[-1], Finish)
        first, second = server.times
        assert second - first >= 1


async def test_a_server_that_stays_busy_is_asked_so_often_and_no_more() -> None:
    async with endpoint() as server:
        model = OpenAIModel(server.url, "", retries=3)
        with pytest.raises(BackendFailed):
            async with aclosing(model.stream(request("always busy", "m"))) as pieces:
                await anext(pieces)
        await model.aclose()
        assert len(server.asked) == 4


async def test_an_answer_that_has_begun_is_not_asked_for_again() -> None:
    async with endpoint() as server:
        with pytest.raises(BackendFailed):
            await answer(server.url, "cut", model="m")
        assert len(server.asked) == 1


async def test_several_choices_are_candidates_and_sampling_is_sent() -> None:
    async with endpoint() as server:
        model = OpenAIModel(server.url, "")
        wanted = replace(request("two", "m"), n=2, top_p=0.5, stop=["z"], seed=7)
        async with aclosing(model.stream(wanted)) as pieces:
            found = [piece async for piece in pieces]
        await model.aclose()
        assert found == [
            Text("a"),
            Text("x", 1),
            Text("b"),
            CandidateEnd("length", 1),
            CandidateEnd("stop", 0),
            Finish("stop", None, MODEL),
        ]
        asked = server.asked[0]
        assert (asked["n"], asked["top_p"], asked["stop"], asked["seed"]) == (2, 0.5, ["z"], 7)


@pytest.mark.parametrize(
    ("way", "last", "extra"),
    [
        ("assistant", {"role": "assistant", "content": "It is a"}, {}),
        ("prefix", {"role": "assistant", "content": "It is a", "prefix": True}, {}),
        (
            "continue_final_message",
            {"role": "assistant", "content": "It is a"},
            {"continue_final_message": True, "add_generation_prompt": False},
        ),
    ],
)
async def test_each_way_to_go_on_from_a_beginning_is_written_as_its_servers_read_it(
    way: Continue, last: dict[str, object], extra: dict[str, object]
) -> None:
    async with endpoint() as server:
        model = OpenAIModel(server.url, "", continue_by=way)
        assert model.continues
        async with aclosing(model.stream(replace(request("hello", "m"), prefix="It is a"))) as pieces:
            assert [piece async for piece in pieces]
        await model.aclose()
        asked = server.asked[0]
        assert [message["role"] for message in asked["messages"]] == ["user", "assistant"]
        assert asked["messages"][-1] == last
        assert extra.items() <= asked.items()
        assert asked["max_tokens"] == 8


@pytest.mark.parametrize("prompt", ["status 401", "status 403", "cut", "no end"])
async def test_a_refusal_and_a_broken_answer_fail_without_the_servers_words(prompt: str) -> None:
    async with endpoint() as server:
        with pytest.raises(BackendFailed) as failure:
            await answer(server.url, prompt, model="m")
        assert "secret" not in str(failure.value)


@pytest.mark.parametrize("prompt", ["at first: cut", "at first: error", "at first: nothing"])
async def test_what_breaks_between_the_head_and_the_first_piece_is_asked_for_again(prompt: str) -> None:
    """A 200 counted as an answer, so that a connection cut right after it failed the job."""
    async with endpoint() as server:
        assert isinstance((await answer(server.url, prompt, model="m"))[-1], Finish)
        assert len(server.asked) == 2


async def test_a_model_that_says_nothing_for_too_long_is_not_asked_again() -> None:
    """It may be at work on the question: asking again would be paid for again."""
    async with endpoint() as server:
        model = OpenAIModel(server.url, "", silence_seconds=0.2)
        with pytest.raises(BackendFailed, match="too long"):
            async with aclosing(model.stream(request("silent", "m"))) as pieces:
                await anext(pieces)
        await model.aclose()
        assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("prompt", "kind", "said"),
    [
        ("no such model at openai", ModelNotFound, "The model m"),
        ("no such model at vllm", ModelNotFound, "The model m"),
        ("no such model at ollama", ModelNotFound, "The model m"),
        ("no such path", BackendFailed, "could not answer"),
        ("too long at vllm", PromptTooLong, "context"),
        ("at first: its own fault", PromptTooLong, "context"),
        ("a bad value", InvalidParams, "temperature"),
        ("a bad request", InvalidParams, "backend"),
        ("status 401", BackendFailed, "does not let"),
        ("status 403", BackendFailed, "does not let"),
    ],
)
async def test_a_refusal_tells_whose_fault_it_is_and_is_not_asked_for_again(
    prompt: str, kind: type[JobError], said: str
) -> None:
    """A model that does not exist was told as a failure of the backend, and kept to be tried again."""
    async with endpoint() as server:
        with pytest.raises(kind, match=said) as failure:
            await answer(server.url, prompt, model="m")
        assert type(failure.value) is kind
        assert "secret" not in str(failure.value)
        assert prompt != "status 401" or failure.value.__cause__ is None, "the log would have the key"
        assert len(server.asked) == 1


async def test_a_context_that_is_too_small_is_told_from_other_refusals() -> None:
    async with endpoint() as server:
        with pytest.raises(PromptTooLong):
            await answer(server.url, "status 400", model="m")


async def test_a_server_that_is_away_fails_the_job() -> None:
    async with endpoint() as server:
        url = server.url
    with pytest.raises(BackendFailed):
        await answer(url, "hello", model="m")


async def test_what_vllm_counts_in_each_chunk_is_known_before_the_end() -> None:
    async with endpoint() as server:
        model = OpenAIModel(server.url, "", continue_by="continue_final_message")
        async with aclosing(model.stream(request("counted", "m"))) as pieces:
            found = [piece async for piece in pieces]
        await model.aclose()
        assert server.asked[0]["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
        place = found.index(Text("Good "))
        assert found[place + 1] == Used(Usage(7, 1))


async def test_a_cancel_closes_the_http_connection(tmp_path: Path) -> None:
    async with endpoint() as server, desk(tmp_path) as (nats, asking):
        env = {"TIDEGATE_AI_BACKEND": "auto", "OPENAI_BASE_URL": server.url}
        async with worker(nats, env) as (run, _):
            assert run.said("OPENAI_BASE_URL is set")
            await asking.ask("j1", "endless", temperature=0.5)
            await until(lambda: "Good x" in asking.text("j1"), "some text")
            assert server.asked[0]["temperature"] == 0.5
            await asking.cancel("j1")
            await asyncio.wait_for(server.disconnected.wait(), 5)
            assert (await asking.end("j1")).data["finish_reason"] == "cancelled"


async def test_the_log_has_no_line_for_each_request_to_the_endpoint(tmp_path: Path) -> None:
    """The OpenAI client's HTTP library wrote one, with the address, for each job."""
    async with endpoint() as server, desk(tmp_path) as (nats, asking):
        async with worker(nats, {"TIDEGATE_AI_BACKEND": "openai", "OPENAI_BASE_URL": server.url}) as (run, _):
            await asking.ask("j1", "hello")
            await asking.end("j1")
            await until(lambda: run.said("job j1: done"), "the worker has said what it does")
            assert not run.said("HTTP Request"), run.output
