"""examples/login in a real Chromium, as docs/security.md walks through it: with a token, a ticket and the cookie."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from tests.support.browser import chromium, require_browser
from tests.support.ports import free_port
from tests.support.processes import listens, running
from tests.support.stack import stack
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
COOKIE = "tidegate"


class Page:
    """What a person does on it."""

    def __init__(self, browser: Chrome, url: str) -> None:
        self.browser = browser
        browser.get(url)

    def click(self, selector: str) -> None:
        self.browser.find_element(By.CSS_SELECTOR, selector).click()

    def text(self, selector: str) -> str:
        return self.browser.find_element(By.CSS_SELECTOR, selector).text

    def login(self, user: str, password: str) -> None:
        for name, value in (("user", user), ("password", password)):
            field = self.browser.find_element(By.NAME, name)
            field.clear()
            field.send_keys(value)
        self.click("#login button")

    async def listens(self, way: str) -> None:
        self.click(f"[data-way={way}]")
        await until(lambda: "connected" in self.text("#log"), f"the page listens: {way}")


@asynccontextmanager
async def example(data: Path, token_seconds: int = 300) -> AsyncIterator[str]:
    """The stack as the guide sets it up, and the example's back end; gives its address."""
    (data / "auth_secret").write_text("0123456789abcdef" * 4 + "\n")
    port = free_port()
    common = {
        "TIDEGATE_AUTH_SECRET_FILE": str(data / "auth_secret"),
        "TIDEGATE_API_KEYS_FILE": str(data / "api_keys.toml"),
        "TIDEGATE_AUTH_COOKIE": COOKIE,
    }
    command = (sys.executable, "-m", "tidegate", "keys", "add", "shop", "--publish", "user:*")
    async with running(*command, env=common) as made:
        assert await made.process.wait() == 0, made.output
        await made.stop()
    settings = {
        **common,
        "TIDEGATE_AUTH": "token",
        "TIDEGATE_AUTH_LEEWAY_SECONDS": "0",
        "TIDEGATE_CORS_ORIGINS": f"http://127.0.0.1:{port}",
    }
    async with stack(data, settings) as services:
        own = {
            **common,
            "PORT": str(port),
            "TOKEN_SECONDS": str(token_seconds),
            "SHOP_KEY": made.output[-1],
            "GATEWAY": services.gateways[0],
            "PUBLISHER": services.publisher,
        }
        async with running(sys.executable, "-m", "examples.login", env=own, cwd=str(ROOT)) as app:
            await until(lambda: listens(port) or app.process.returncode is not None, "the example listens")
            assert app.process.returncode is None, app.output
            yield f"http://127.0.0.1:{port}"


async def test_logged_in_users_hear_what_is_theirs_by_all_three_ways(tmp_path: Path) -> None:
    require_browser()
    async with example(tmp_path) as url:
        with chromium(tmp_path / "ann") as first, chromium(tmp_path / "bob") as second:
            ann, bob = Page(first, url), Page(second, url)
            ann.login("ann", "moon")
            await until(lambda: "another password" in ann.text("#problem"), "a wrong password is refused")
            ann.login("ann", "tide")
            bob.login("bob", "moon")
            await until(lambda: (ann.text("#who"), bob.text("#who")) == ("ann", "bob"), "both are logged in")
            await bob.listens("bearer")
            for way in ("bearer", "ticket", "cookie"):
                await ann.listens(way)
                assert "user:ann" in ann.text("#log"), way
                ann.click("#notify")
                await until(lambda: "Hello from your back end!" in ann.text("#log"), f"the greeting: {way}")
                ann.click("#publish")
                await until(lambda: "ann was here" in ann.text("#log"), f"what the page itself sent: {way}")
                assert ann.text("#problem") == ""
            await until(lambda: bob.text("#log").count("ann was here") == 3, "bob hears the news")
            assert "Hello" not in bob.text("#log"), "what is for ann is ann's"
            ann.click("#logout")
            ann.browser.refresh()
            assert first.execute_script("return document.cookie") == ""


@pytest.mark.parametrize("way", ["bearer", "ticket", "cookie"])
async def test_a_page_goes_on_past_the_end_of_its_tokens(tmp_path: Path, way: str) -> None:
    """The client and the page ask for the next one. Nobody logs in again."""
    require_browser()
    async with example(tmp_path, token_seconds=3) as url:
        with chromium(tmp_path / "ann") as browser:
            page = Page(browser, url)
            page.login("ann", "tide")
            await until(lambda: page.text("#who") == "ann", "she is logged in")
            await page.listens(way)
            await until(lambda: page.text("#log").count("connected: ") >= 3, "two more tokens", 30)
            page.click("#notify")
            await until(lambda: "Hello from your back end!" in page.text("#log"), "the greeting")
            assert page.text("#problem") == ""
