"""How the console page looks, and for whom it works: keyboards, widths, colours, other origins; and its parser."""

from __future__ import annotations

import json
import re
from urllib.parse import urlsplit

import pytest
from selenium.webdriver.common.keys import Keys

from tests.support.console import Console, Stack
from tests.support.waiting import until
from tidegate_common.contract.ids import new_client_id

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHINESE = re.compile(r"[\u4e00-\u9fff]")
ENGLISH = re.compile(r"[A-Za-z]{3}")
LAYOUTS = ((320, 800), (768, 1024), (1280, 860), (1920, 1080))


async def test_everything_can_be_done_from_the_keyboard_with_the_focus_in_sight(console: Console) -> None:
    console.open()
    console.fill("#client-id", new_client_id())
    press = console.browser.switch_to

    def focused() -> str:
        code = """const at = document.activeElement;
            const ring = getComputedStyle(at.type === "radio" ? at.nextElementSibling : at);
            return (at.id || at.value) + (ring.outlineStyle === "none" ? " without a ring" : "")"""
        return str(console.script(code))

    visited = [focused()]
    while visited[-1] != "ask":
        press.active_element.send_keys(Keys.TAB)
        visited.append(focused())
        assert len(visited) < 40, visited
    assert visited == (
        "client-id copy user-id topics connect self event-type data json durable send "
        "log-filter log-pause log-clear log-view chat-clear chat-view prompt ask"
    ).replace("client-id copy", "client-id").split(" ")

    console.find("#connect").send_keys(Keys.ENTER)
    await until(lambda: console.state == "open", "the page is connected")
    console.find("#data").send_keys(Keys.CONTROL, Keys.ENTER)
    await console.logged("Hello, tide! 你好", "greeting")
    console.ask("[long] Tell me everything.")
    await until(lambda: console.answer()[1], "the answer has begun", 20)
    press.active_element.send_keys(Keys.ESCAPE)
    await until(lambda: console.answer()[0] == "stopped", "the answer has stopped")
    console.find("#connect").send_keys(Keys.ENTER)
    await until(lambda: console.state == "closed", "the page is disconnected")


async def test_the_page_asks_nobody_but_the_stack_and_the_browser_has_nothing_to_complain_of(
    console: Console, stack: Stack
) -> None:
    await console.connect(new_client_id())
    console.send("greeting", '"hello"')
    await console.logged("hello", "greeting")
    console.ask("Hello?")
    await until(lambda: console.answer()[0] == "done", "the answer is complete", 30)
    assert console.requested() == {urlsplit(url).netloc for url in (stack.url, stack.publisher_url)}
    assert console.complaints() == []


async def test_no_width_needs_scrolling_to_the_side(console: Console) -> None:
    await console.connect(new_client_id())
    console.send("wide", json.dumps({"unbroken": "x" * 300}))
    await console.logged("unbroken", "wide")
    for width, height in LAYOUTS:
        console.size(width, height)
        overflow = console.script(
            """const root = document.documentElement;
            const wide = [...document.querySelectorAll("body *")].filter((e) => !e.closest(".unseen")
                && e.getBoundingClientRect().right > root.clientWidth + 0.5);
            return [root.scrollWidth - root.clientWidth, wide.map((e) => e.id || e.className || e.tagName)]"""
        )
        assert overflow == [0, []], f"at {width} px"


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
async def test_the_page_follows_the_system_s_colors_and_all_text_stands_out(
    console: Console, scheme: str, dark: bool
) -> None:
    """WCAG 2.2 AA: text has a contrast of 4.5 to what is behind it."""
    await console.connect(new_client_id())
    console.send("greeting", '"hello"')
    await console.logged("hello", "greeting")
    console.send("connected", "1")
    await until(lambda: "field" in console.text("#send-result"), "the refusal is shown")
    console.ask("Hello?")
    await until(lambda: console.answer()[0] == "done", "the answer is complete", 30)
    console.color_scheme(scheme)
    painted = console.painted("body *")
    assert len(painted) > 40
    assert (_luminance(console.script("return getComputedStyle(document.body).backgroundColor")) < 0.05) is dark
    assert [row for row in painted if contrast(row[1], row[2]) < 4.5] == []


async def test_the_parser_reads_the_same_events_however_the_stream_is_cut(console: Console) -> None:
    """WHATWG HTML 9.2.6: three line ends, comments, a missing space, an id with NUL, an event that the end cuts off."""
    stream = (
        ": hello\r\nretry: 250\r\nretry: soon\nid: 1\revent: a\r\ndata: one\rdata:two\r\r\n"
        "data\n\nid: 2\n\nid: x\0y\ndata:  two spaces: 你好\n\nid\ndata: cleared\n\nevent: b\n\ndata: cut off\n"
    )
    expected = [
        {"type": "a", "data": "one\ntwo", "id": "1", "lastEventId": "1"},
        {"type": "message", "data": "", "id": None, "lastEventId": "1"},
        {"type": "message", "data": None, "id": "2", "lastEventId": "2"},
        {"type": "message", "data": " two spaces: 你好", "id": None, "lastEventId": "2"},
        {"type": "message", "data": "cleared", "id": "", "lastEventId": ""},
    ]
    console.open()
    results = console.browser.execute_async_script(
        """const [stream, done] = arguments;
        import("/console/client/parser.js").then(({ EventParser }) => done([1, 2, 3, 7, stream.length].map((size) => {
          const events = [], retries = [];
          const parser = new EventParser({ onEvent: (e) => events.push(e), onRetry: (ms) => retries.push(ms) });
          for (let at = 0; at < stream.length; at += size) parser.feed(stream.slice(at, at + size));
          return { events, retries };
        })))""",
        stream,
    )
    assert results == [{"events": expected, "retries": [250]}] * 5


def contrast(one: str, other: str) -> float:
    """Of two colours of CSS (WCAG 2.2)."""
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(color: str) -> float:
    """Relative luminance (WCAG 2.2) of a CSS `rgb(…)`."""
    parts = [float(part) / 255 for part in re.findall(r"[\d.]+", color)[:3]]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
