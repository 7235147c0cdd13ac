"""The real model, as a user meets it. Skipped only where its packages are not installed."""

import os
import time
from contextlib import aclosing
from pathlib import Path

import httpx
import pytest
from msgspec.structs import replace

from ai_worker.job_errors import PromptTooLong
from ai_worker.models.local import NAME, LocalModel, obstacle
from ai_worker.models.model import ChatRequest
from ai_worker.pieces import Text
from tests.integration.ai_worker.support import desk, worker
from tests.support.processes import Running
from tests.support.waiting import until
from tidegate_common.contract.jobs import ChatMessage, JobStatus


@pytest.fixture(autouse=True)
def local_packages() -> None:
    if obstacle():
        if os.environ.get("TIDEGATE_REQUIRE_ALL") == "1":
            pytest.fail("the local model is not installed")
        pytest.skip("the local model is not installed")


@pytest.mark.timeout(120)
async def test_the_local_model_streams_real_tokens_and_a_cancel_frees_it(tmp_path: Path) -> None:
    async with desk(tmp_path) as (nats, asking), worker(nats, {"TIDEGATE_AI_BACKEND": "local"}) as (run, _):
        await asking.ask("warm", "Say hello.", max_tokens=2)
        await asking.end("warm", 30)
        await asking.ask("j1", "What is the capital of France? Answer in one sentence.", max_tokens=48, temperature=0)
        last = await asking.end("j1", 60)
        assert "Paris" in asking.text("j1")
        assert last.data["finish_reason"] in ("stop", "length")
        assert last.data["usage"]["prompt_tokens"] > 10
        assert len(asking.of("j1")) > 3, "it comes piece by piece"

        await asking.ask("j2", "Tell me a very long story about the sea.", max_tokens=100)
        await until(lambda: asking.text("j2"), "the first piece", 30)
        started = time.monotonic()
        tokens = (await asking.end("j2", 60)).data["usage"]["completion_tokens"]
        print(f"{tokens / (time.monotonic() - started):.0f} tokens/s")

        for name in ("long1", "long2"):
            await asking.ask(name, "Tell me a very long story about the sea.", max_tokens=512)
        await until(lambda: asking.text("long1") and asking.text("long2"), "both slots answer", 30)
        await asking.cancel("long1")
        await asking.cancel("long2")
        for name in ("long1", "long2"):
            last = await asking.end(name, 5)
            assert last.data["finish_reason"] == "cancelled"
            assert last.data["usage"]["prompt_tokens"] > 10, "the engine says so with each piece"
        await asking.ask("next", "Say hello.", max_tokens=4)
        await asking.end("next", 10)
        status = Path(f"/proc/{run.process.pid}/status")
        if status.exists():
            print(next(line for line in status.read_text().splitlines() if line.startswith("VmHWM")))


@pytest.mark.timeout(60)
async def test_the_engines_port_is_closed_to_others_and_a_prompt_beyond_its_context_is_refused() -> None:
    model = LocalModel()
    assert await model.start() == NAME
    try:
        assert model.address.startswith("http://127.0.0.1:")
        question = {"messages": [{"role": "user", "content": "hi"}]}
        async with httpx.AsyncClient(base_url=model.address) as stranger:
            for headers in ({}, {"Authorization": "Bearer guess"}):
                refused = await stranger.post("/v1/chat/completions", json=question, headers=headers)
                assert refused.status_code == 401
            for path in ("/v1/models", "/props", "/slots", "/metrics"):
                assert (await stranger.get(path)).status_code == 401
            page = await stranger.get("/")
            assert page.status_code == 404
        message = ChatMessage(role="user", content="word " * 3000)
        async with aclosing(model.stream(ChatRequest(messages=[message], model=NAME, max_tokens=4))) as answer:
            with pytest.raises(PromptTooLong):
                await anext(answer)
    finally:
        await model.aclose()


@pytest.mark.timeout(90)
async def test_the_local_model_goes_on_from_a_beginning_and_gives_several_candidates() -> None:
    model = LocalModel()
    await model.start()
    message = ChatMessage(role="user", content="Count from one to ten, in words, with commas.")
    whole = ChatRequest(messages=[message], model=NAME, max_tokens=40, temperature=0)
    try:
        async with aclosing(model.stream(whole)) as pieces:
            text = "".join([piece.content async for piece in pieces if isinstance(piece, Text)])
        prefix = text[: len(text) // 2]
        async with aclosing(model.stream(replace(whole, prefix=prefix))) as pieces:
            rest = "".join([piece.content async for piece in pieces if isinstance(piece, Text)])
        assert rest, "it goes on"
        assert not rest.startswith(text[:10]), "it does not begin anew"
        same = next(place for place, (a, b) in enumerate(zip(f"{prefix}{rest}\0", f"{text}\1", strict=False)) if a != b)
        assert same >= len(prefix) + 5, f"{prefix!r} went on with {rest!r}, without a break with {text!r}"
        async with aclosing(model.stream(replace(whole, n=2, max_tokens=8, temperature=0.8))) as pieces:
            found = [piece async for piece in pieces]
        assert {piece.candidate for piece in found if isinstance(piece, Text)} == {0, 1}
    finally:
        await model.aclose()


@pytest.mark.timeout(120)
async def test_a_cancel_while_the_prompt_is_being_read_frees_the_slot(tmp_path: Path) -> None:
    """Both slots are given long prompts, which take the model seconds to read; another job then starts at once."""
    env = {"TIDEGATE_AI_BACKEND": "local"}
    async with desk(tmp_path) as (nats, asking), worker(nats, env) as (run, _):
        await asking.ask("warm", "Say hello.", max_tokens=2)
        await asking.end("warm", 30)
        prompts = [f"{number} " + "The tide comes in and goes out again. " * 60 for number in range(3)]
        began = worked(run)
        await asking.ask("read", prompts[2], max_tokens=1)
        await asking.end("read", 60)
        reading = worked(run) - began
        for number in range(2):
            await asking.ask(f"long{number}", prompts[number], max_tokens=64)
            await asking.state(f"long{number}", JobStatus.RUNNING)
        assert not asking.text("long0"), "it is being read"
        for number in range(2):
            await asking.cancel(f"long{number}")
        began = worked(run)
        for number in range(2):
            assert (await asking.end(f"long{number}", 10)).data["finish_reason"] == "cancelled"
        await asking.ask("next", "Say hello.", max_tokens=2)
        # Its first event: the model's first two tokens may be halves of a character, which are no text yet.
        await until(lambda: asking.of("next"), "the first event of the next", 60)
        until_next = worked(run) - began
        assert until_next < reading / 2, f"{until_next:.2f} s, where a prompt takes {reading:.2f} s to be read"


def worked(run: Running) -> float:
    """Seconds of CPU that a process has had: its work, however many others want the cores."""
    fields = Path(f"/proc/{run.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
