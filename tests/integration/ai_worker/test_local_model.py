"""The real model, as a user meets it. Skipped only where its packages are not installed."""

import os
import time
from contextlib import aclosing
from pathlib import Path

import httpx
import pytest

from ai_worker.errors import PromptTooLong
from ai_worker.models.local import NAME, LocalModel, obstacle
from ai_worker.models.model import ChatRequest
from tests.integration.ai_worker.support import desk, worker
from tests.support.waiting import until
from tidegate_common.contract.jobs import ChatMessage


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
            assert (await asking.end(name, 5)).data["finish_reason"] == "cancelled"
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
