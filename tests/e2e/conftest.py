"""The console in front of a stack, both for all tests of a module."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio
from selenium.webdriver import Chrome

from tests.support.browser import chromium, require_browser
from tests.support.console import Console, Stack
from tests.support.nats import nats_server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    require_browser()
    async with AsyncExitStack() as exits:
        server = await exits.enter_async_context(nats_server(tmp_path_factory.mktemp("nats")))
        stack = Stack(exits)
        await stack.start(server.url)
        yield stack


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    require_browser()
    with chromium(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


@pytest.fixture
def console(stack: Stack, browser: Chrome) -> Console:
    console = Console(browser, stack.url)
    console.size(1280, 860)
    console.color_scheme("light")
    console.forget()
    browser.get("about:blank")
    console.complaints()
    console.requested()
    return console
