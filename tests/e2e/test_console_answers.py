"""An answer in the browser: its worker is killed, the page is loaded again, Stop is pressed in a second tab."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest_asyncio

from ai_worker.models.scripted import ANSWERS
from tests.support.browser import chromium, require_browser
from tests.support.console import Console, Stack
from tests.support.nats import nats_server
from tests.support.waiting import until

SLOW = {"TIDEGATE_SCRIPTED_TOKEN_SECONDS": "0.04", "TIDEGATE_AI_ACK_SECONDS": "2"}


@pytest_asyncio.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    require_browser()
    async with AsyncExitStack() as exits:
        server = await exits.enter_async_context(nats_server(tmp_path / "nats"))
        made = Stack(exits)
        await made.start(server.url, SLOW)
        yield made


async def begun(console: Console) -> None:
    await until(lambda: len(console.answer()[1]) > 5, "the answer has begun", 20)


async def test_an_answer_goes_on_to_its_end_when_its_worker_is_killed(stack: Stack, tmp_path: Path) -> None:
    with chromium(tmp_path / "chromium") as browser:
        console = Console(browser, stack.url)
        console.open()
        console.ask("What is a tide gate?")
        await begun(console)
        await stack.workers[0].stop(signal.SIGKILL)
        await stack.start_worker()
        await until(lambda: console.answer()[0] == "done", "the answer is complete", 30)
        assert console.answer()[1] == ANSWERS["en"]
        job_id = console.script("return JSON.parse(localStorage.getItem('tidegate.job')).jobId")
        async with httpx.AsyncClient(base_url=stack.publisher_url) as api:
            assert (await api.get(f"/api/ai/chat/{job_id}")).json()["attempt"] == 2


async def test_a_page_that_is_loaded_again_shows_the_answer_in_the_middle_and_after_the_end(
    stack: Stack, tmp_path: Path
) -> None:
    with chromium(tmp_path / "chromium") as browser:
        console = Console(browser, stack.url)
        console.open()
        console.ask("What is a tide gate?")
        await begun(console)
        console.open()
        assert console.text(".said") == "What is a tide gate?"
        await until(lambda: console.answer()[0] == "done", "the answer is complete", 30)
        assert console.answer()[1] == ANSWERS["en"]
        console.open()
        await until(lambda: console.answer()[0] == "done", "the answer is there at once", 10)
        assert console.answer()[1] == ANSWERS["en"]
        console.find("#chat-clear").click()
        console.open()
        assert console.text(".said") == ""


async def test_stop_in_a_second_tab_stops_the_answer_in_both(stack: Stack, tmp_path: Path) -> None:
    with chromium(tmp_path / "chromium") as browser:
        console = Console(browser, stack.url)
        console.open()
        console.ask("[long] Tell me everything.")
        await begun(console)
        first = browser.current_window_handle
        browser.switch_to.new_window("tab")
        console.open()
        await begun(console)
        console.find("#stop").click()
        await until(lambda: console.answer()[0] == "stopped", "the answer has stopped")
        assert "cancelled" in console.answer()[2]
        second = console.answer()
        browser.switch_to.window(first)
        await until(lambda: console.answer()[0] == "stopped", "it has stopped in the first tab too")
        assert console.answer() == second


async def test_a_question_of_one_tab_shows_in_the_other(stack: Stack, tmp_path: Path) -> None:
    with chromium(tmp_path / "chromium") as browser:
        console = Console(browser, stack.url)
        console.open()
        first = browser.current_window_handle
        browser.switch_to.new_window("tab")
        console.open()
        console.ask("What is a tide gate?")
        await begun(console)
        browser.switch_to.window(first)
        await until(lambda: console.answer()[0] == "done", "the answer is complete here", 30)
        assert console.answer()[1] == ANSWERS["en"]
