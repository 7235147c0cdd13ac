"""The console page where everyone is asked who they are: signing in, what a token may, its end, signing out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio
from selenium.webdriver import Chrome
from selenium.webdriver.common.keys import Keys

from tests.e2e.test_console_page import LAYOUTS, contrast
from tests.support.browser import require_browser
from tests.support.console import Console, Stack
from tests.support.identity import bearer, token
from tests.support.nats import nats_server
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = "the secret of the console: 32 bytes or more"
ALL: dict[str, Any] = {"subscribe": ["topic:>", "broadcast"], "publish": ["topic:>", "client:*", "user:*"], "jobs": {}}


def made(sub: str, seconds: float = 3600, **claims: Any) -> str:
    return token(sub, secret=SECRET, seconds=seconds, **claims)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    require_browser()
    async with AsyncExitStack() as exits:
        server = await exits.enter_async_context(nats_server(tmp_path_factory.mktemp("nats")))
        stack = Stack(exits)
        shared = {"TIDEGATE_AUTH": "token", "TIDEGATE_AUTH_SECRET": SECRET, "TIDEGATE_AUTH_LEEWAY_SECONDS": "0"}
        await stack.start(server.url, shared=shared)
        yield stack


@pytest.fixture
def page(stack: Stack, browser: Chrome) -> Console:
    """The page in a tab in which nobody has signed in."""
    page = Console(browser, stack.url)
    page.size(1280, 860)
    page.open()
    page.script("sessionStorage.clear(); localStorage.clear()")
    page.open()
    page.complaints()
    return page


def sign_in(page: Console, text: str) -> None:
    page.fill("#token", text)
    page.find("#sign-in").click()


async def connect(page: Console) -> None:
    page.find("#connect").click()
    await until(lambda: page.state == "open", "the page is connected")


async def test_whoever_has_not_signed_in_is_asked_to_when_they_connect_and_when_they_send(page: Console) -> None:
    assert page.find("#sign").is_displayed()
    assert not page.find("#signed").is_displayed()
    page.find("#connect").click()
    await until(lambda: "reason: missing" in page.text("#connect-problem"), "the refusal is shown")
    assert (page.state, "Sign in with" in page.text("#sign-why")) == ("closed", True)
    page.send("note", "1", to="broadcast")
    await until(lambda: "status 401" in page.text("#send-result"), "the refusal is shown")


async def test_a_token_that_was_pasted_opens_the_stream_and_the_page_shows_whose_it_is(page: Console) -> None:
    page.find("#token").send_keys(f"TOKEN={made('ann', **ALL)}", Keys.ENTER)
    facts = page.text("#sign-facts")
    assert all(text in facts for text in ("Signed in as", "ann", "Until", "May hear", "topic:>, broadcast", "Jobs"))
    assert not page.find("#sign-form").is_displayed()
    await connect(page)
    assert "user:ann" in page.text("#fact-listening")
    page.send("greeting", '"hello"')
    await page.logged("hello", "greeting")
    page.ask("Hello?")
    await until(lambda: page.answer()[0] == "done", "the answer is complete", 30)
    assert page.complaints() == []


async def test_what_a_token_does_not_grant_is_told_with_the_right_that_would_do(page: Console) -> None:
    sign_in(page, made("ann"))
    page.fill("#topics", "prices.*")
    page.find("#connect").click()
    await until(lambda: "needed: subscribe topic:prices.*" in page.text("#connect-problem"), "the right is named")
    page.fill("#topics", "")
    await connect(page)
    page.send("note", "1", to="topic", name="prices.eur")
    await until(lambda: "needed: publish topic:prices.eur" in page.text("#send-result"), "the right is named")
    page.ask("Hello?")
    await until(lambda: page.answer()[0] == "failed", "the answer is refused")
    assert "jobs" in page.answer()[2]


async def test_the_token_stays_in_its_tab_and_in_no_address_and_is_gone_after_signing_out(page: Console) -> None:
    text = made("ann", **ALL)
    sign_in(page, text)
    await connect(page)
    page.ask("Hello?")
    await until(lambda: page.answer()[0] == "done", "the answer is complete", 30)
    entries = [entry["message"] for entry in page.browser.get_log("performance")]
    addresses = page.script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert any("/api/sse" in address for address in addresses)
    assert not [address for address in (*addresses, page.browser.current_url) if text in address or "token" in address]
    assert any(text in entry for entry in entries), "it is sent, in a header"
    page.open()
    assert "ann" in page.text("#sign-facts"), "a reload keeps it"
    assert page.script("return Object.values({...localStorage}).join()") == ""
    page.browser.switch_to.new_window("tab")
    page.open()
    assert page.text("#sign-facts") == ""
    page.browser.close()
    page.browser.switch_to.window(page.browser.window_handles[0])
    page.find("#sign-out").click()
    await until(lambda: page.find("#sign-form").is_displayed(), "nobody is signed in")
    assert page.script("return [{...sessionStorage}, {...localStorage}].flatMap(Object.values)") == []
    assert page.text("#chat") == ""


async def test_before_a_token_ends_the_page_asks_for_another_and_goes_on_with_it_and_misses_nothing(
    page: Console, stack: Stack
) -> None:
    """A token of 42 s is told to end after 2 to 12 s."""
    sign_in(page, made("ann", 42, **ALL))
    await connect(page)
    await page.logged("", "connected")
    await until(lambda: "ends soon" in page.text("#sign-why"), "another token is asked for", 20)
    await stack.publish("/api/sse/send", bearer(made("bob", **ALL)), user_id="ann", event_type="note", data="one")
    await page.logged("one", "note")
    sign_in(page, made("ann", **ALL))
    await until(lambda: page.text("#fact-reconnects") == "1" and page.state == "open", "the page has come back")
    assert not page.find("#sign-form").is_displayed()
    await stack.publish("/api/sse/send", bearer(made("bob", **ALL)), user_id="ann", event_type="note", data="two")
    await page.logged("two", "note")
    assert page.text('#log li[data-type="note"] pre').split("\n") == ["one", "two"]
    assert "gap" not in page.text("#log .type")


async def test_a_token_that_ends_is_told_and_asked_for(page: Console) -> None:
    sign_in(page, made("ann", 3))
    await connect(page)
    await until(lambda: "reason: expired" in page.text("#connect-problem"), "the end is shown", 20)
    assert "has expired" in page.text("#sign-why")
    assert page.find("#sign-form").is_displayed()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("hello", "neither a key"),
        ("a.b.c", "neither a key"),
        ("tgk_shop_short", "neither a key"),
        ("", "neither"),
    ],
)
async def test_what_is_no_token_is_said_at_once_and_not_kept(page: Console, text: str, why: str) -> None:
    sign_in(page, text)
    assert why in page.text("#sign-why")
    assert page.find("#token").get_attribute("aria-invalid") == "true"
    assert page.script("return Object.values({...sessionStorage})") == []


async def test_a_token_that_has_expired_already_is_said_at_once(page: Console) -> None:
    sign_in(page, made("ann", -5))
    assert "has expired at" in page.text("#sign-why")


async def test_another_user_finds_nothing_of_the_one_before(page: Console) -> None:
    sign_in(page, made("ann", 3600, **ALL))
    await connect(page)
    page.ask("Hello?")
    await until(lambda: page.answer()[0] == "done", "the answer is complete", 30)
    page.script("document.querySelector('#sign-form').hidden = false")
    sign_in(page, made("bob", **ALL))
    await until(lambda: "bob" in page.text("#sign-facts"), "the other one is signed in")
    assert (page.state, page.text("#chat"), page.text("#log")) == ("closed", "", "")
    assert page.find("#client-id").get_attribute("value") == ""
    await connect(page)
    assert "user:bob" in page.text("#fact-listening")


async def test_the_browsers_own_eventsource_listens_with_a_ticket_and_comes_back_with_it(
    page: Console, stack: Stack
) -> None:
    opened = """const [text, tickets, done] = arguments;
        import("/console/client/index.js").then(async ({ withTicket }) => {
            const address = await withTicket("/api/sse", { token: text, topics: ["a"], tickets });
            window.got = [];
            window.source = new EventSource(address);
            source.addEventListener("note", ({ data }) => got.push(data));
            const told = ({ data }) => done([address, JSON.parse(data).listening]);
            source.addEventListener("connected", told, { once: true });
        })"""
    text, by = made("ann", subscribe=["topic:>"]), bearer(made("bob", **ALL))
    tickets = f"{stack.publisher_url}/api/auth/tickets"
    address, listening = page.browser.execute_async_script(opened, text, tickets)
    assert "topic:a" in listening
    assert "ticket=" in address
    assert text not in address
    await stack.publish("/api/sse/send", by, topic="a", event_type="note", data="one")
    await until(lambda: page.script("return got") == ["one"], "the event has come")
    assert await stack.gateway.stop() == 0
    await stack.publish("/api/sse/send", by, topic="a", event_type="note", data="two")
    await stack.start_gateway()
    await stack.publish("/api/sse/send", by, topic="a", event_type="note", data="three")
    await until(lambda: len(page.script("return got")) == 3, "it has come back", 20)
    assert page.script("source.close(); return got") == ["one", "two", "three"]


async def test_the_panel_fits_every_width_and_its_text_stands_out(page: Console) -> None:
    sign_in(page, made("ann" * 30, **ALL))
    page.script("document.querySelector('#sign-form').hidden = false")
    page.script("document.querySelector('#sign-why').textContent = 'This token ends soon. Paste a new one to go on.'")
    for width, height in LAYOUTS:
        page.size(width, height)
        assert page.script("const root = document.documentElement; return root.scrollWidth - root.clientWidth") == 0
    for scheme in ("light", "dark"):
        page.color_scheme(scheme)
        assert [row for row in page.painted("#sign *") if contrast(row[1], row[2]) < 4.5] == []
