"""The console page in a real Chromium, in front of the whole stack as processes."""

from __future__ import annotations

import json
import re
import signal

import httpx
import pytest
from selenium.webdriver.common.by import By

from tests.support.console import Console, Stack
from tests.support.waiting import until
from tidegate_common.contract.ids import new_client_id

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHINESE = re.compile(r"[\u4e00-\u9fff]")
ENGLISH = re.compile(r"[A-Za-z]{3}")
LAYOUTS = ((320, 800), (768, 1024), (1280, 860), (1920, 1080))


async def test_the_gateway_makes_a_client_id_which_the_page_shows_and_remembers(console: Console) -> None:
    client_id = await console.connect()
    assert re.fullmatch(r"[\w-]{22}", client_id)
    assert console.text("#fact-last") != "–"
    assert console.text("#fact-listening") == f"broadcast, client:{client_id}"
    console.open()
    assert console.find("#client-id").get_attribute("value") == client_id
    assert not console.find("#sign").is_displayed(), "nobody is asked who they are"


async def test_an_event_sent_to_myself_appears_with_the_id_that_the_answer_told(console: Console) -> None:
    await console.connect(new_client_id())
    console.send("greeting", '{"text": "hello 你好"}')
    await console.logged("hello 你好", "greeting")
    await until(lambda: "Accepted" in console.text("#send-result"), "the answer is shown")
    event_id, trace_id = console.text("#send-result code").split("\n")
    assert event_id == console.text('#log li[data-type="greeting"] .id') == console.text("#fact-last")
    assert re.fullmatch(r"[0-9a-f]{32}", trace_id)


async def test_events_arrive_by_broadcast_by_user_and_by_a_topic_that_a_wildcard_covers(console: Console) -> None:
    await console.connect(new_client_id(), user_id="ada@example.org", topics="prices.*, alerts.>")
    console.send("notice", "for all of you", to="broadcast", as_text=True)
    await console.logged("for all of you", "notice")
    console.send("note", '"for Ada"', to="user", name="ada@example.org")
    await console.logged("for Ada", "note")
    console.send("price", '{"bid": 1.0841}', to="topic", name="prices.eur")
    await console.logged("1.0841", "price")
    console.send("alert", '["flood"]', to="topic", name="alerts.sea.level")
    await console.logged("flood", "alert")


async def test_a_volatile_event_is_shown_as_one_without_an_id(console: Console) -> None:
    await console.connect(new_client_id())
    before = console.text("#fact-last")
    console.find("#durable").click()
    console.send("tick", "1")
    await console.logged("volatile", "tick")
    assert console.text("#fact-last") == before


async def test_whatever_an_event_holds_is_shown_as_text_and_harms_nothing(console: Console) -> None:
    await console.connect(new_client_id())
    attack = "<img src=x onerror=alert(1)><b>bold</b>"
    console.send("attack", attack, as_text=True)
    await console.logged(attack, "attack")
    assert console.script("return document.querySelectorAll('#log img, #log b').length") == 0
    console.send("ai_response", "no JSON at all", as_text=True)
    await console.logged("no JSON at all", "ai_response")
    assert (console.state, console.text("#fact-reconnects")) == ("open", "0")


async def test_an_answer_streams_piece_by_piece_in_chinese_and_english_and_ends_with_its_usage(
    console: Console,
) -> None:
    await console.connect(new_client_id())
    console.script("""window.lengths = new Set();
        const look = () => lengths.add([...document.querySelectorAll(".answer-text")].at(-1)?.textContent.length);
        new MutationObserver(look).observe(document.body, {subtree: true, childList: true, characterData: true})""")
    for prompt, expected in (("Hello, what is a tide gate?", ENGLISH), ("你好,潮汐闸门是什么?", CHINESE)):
        console.ask(prompt)
        await until(lambda: console.answer()[0] == "done", "the answer is complete", 30)
        _, text, closing = console.answer()
        assert expected.search(text)
        assert re.search(r"stop · \d+ tokens in, \d+ out", closing)
    assert console.script("return lengths.size") > 10, "it was seen to grow"
    assert text in console.text("#log .joined")
    assert len(console.browser.find_elements(By.CSS_SELECTOR, ".said")) == 2


async def test_stop_ends_an_answer_in_the_middle(console: Console) -> None:
    await console.connect(new_client_id())
    console.ask("[long] Tell me everything.")
    await until(lambda: console.answer()[1], "the answer has begun", 20)
    console.find("#stop").click()
    await until(lambda: console.answer()[0] == "stopped", "the answer has stopped")
    assert "cancelled" in console.answer()[2]
    assert console.find("#ask").is_displayed()
    assert not console.find("#stop").is_displayed()


async def test_an_answer_that_fails_is_shown_as_an_error_and_the_next_one_is_not_held_up(console: Console) -> None:
    await console.connect(new_client_id())
    console.ask("[fail]")
    await until(lambda: console.answer()[0] == "failed", "the failure is shown", 20)
    assert "could not answer" in console.answer()[2]
    console.ask("Hello?")
    await until(lambda: console.answer()[0] == "done", "the next answer is complete", 20)


async def test_the_next_question_brings_along_what_was_said(console: Console) -> None:
    await console.connect(new_client_id())
    tokens = []
    for prompt in ("One?", "Two?"):
        console.ask(prompt)
        await until(lambda: console.answer()[0] == "done", "the answer is complete", 20)
        tokens.append(int(re.findall(r"(\d+) tokens in", console.answer()[2])[0]))
    _, text, _ = console.answer()
    assert tokens == [len("One?"), len("One?") + len(text) + len("Two?")]


async def test_a_page_that_was_left_gives_its_socket_back(console: Console) -> None:
    """Pages that Chromium kept for "back" held their streams: the seventh page on a host waited for a socket."""
    for _ in range(8):
        await console.connect(new_client_id())
        console.browser.get("about:blank")
    console.browser.back()
    await until(lambda: console.state == "open", "the page that came back is connected again")


@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGTERM])
async def test_after_the_gateway_was_away_the_page_returns_and_gets_what_was_sent_meanwhile(
    console: Console, stack: Stack, sig: signal.Signals
) -> None:
    client_id = await console.connect(new_client_id())
    await stack.gateway.stop(sig)
    await until(lambda: console.state == "waiting", "the page waits to reconnect")
    assert "in " in console.text("#state-countdown")
    for number in range(3):
        await stack.publish("/api/sse/send", client_id=client_id, event_type="missed", data=f"missed {number}")
    await stack.start_gateway()
    await until(lambda: console.state == "open", "the page is connected again", 30)
    await console.logged("missed 2", "missed")
    assert console.text("#log li[data-type=missed] pre").split("\n") == ["missed 0", "missed 1", "missed 2"]
    assert console.text("#fact-reconnects") == "1"
    console.send("greeting", '"after"')
    await console.logged("after", "greeting")


async def test_bad_json_is_told_before_sending_and_a_refusal_is_shown_with_its_field(console: Console) -> None:
    await console.connect(new_client_id())
    console.send("greeting", '{"text": ')
    await until(lambda: "no JSON" in console.text("#send-result"), "the fault is shown")
    assert "field: data" in console.text("#send-result")
    console.send("connected", "1")
    await until(lambda: "field: event_type" in console.text("#send-result"), "the refusal is shown")
    assert "status 422" in console.text("#send-result")
    assert console.find("#event-type").get_attribute("aria-invalid") == "true"


async def test_a_stream_that_the_gateway_refuses_is_closed_with_the_reason(console: Console) -> None:
    console.open()
    console.fill("#topics", "prices..eur")
    console.find("#connect").click()
    await until(lambda: "field: topic" in console.text("#connect-problem"), "the reason is shown")
    assert console.state == "closed"


async def test_the_log_keeps_500_rows_and_stays_where_someone_reads(console: Console, stack: Stack) -> None:
    client_id = await console.connect(new_client_id())
    lines = [{"client_id": client_id, "event_type": "many", "data": f"event {n}"} for n in range(600)]
    async with httpx.AsyncClient(base_url=stack.publisher_url) as client:
        body = "\n".join(json.dumps(line) for line in lines)
        headers = {"Content-Type": "application/x-ndjson"}
        assert (await client.post("/api/sse/batch", content=body, headers=headers)).status_code == 200
    await console.logged("event 599", "many")
    assert console.script("return document.querySelectorAll('#log li').length") == 500
    at_end = "const v = document.getElementById('log-view'); return v.scrollHeight - v.scrollTop - v.clientHeight < 24"
    assert console.script(at_end)
    console.script("document.getElementById('log-view').scrollTop -= 1000")
    await until(lambda: console.find("#log-jump").is_displayed(), "the way back to the newest is offered")
    await stack.publish("/api/sse/send", client_id=client_id, event_type="late", data="late")
    await console.logged("late", "late")
    assert not console.script(at_end)
    console.find("#log-jump").click()
    assert console.script(at_end)


async def test_pausing_holds_events_back_and_the_filter_shows_one_type(console: Console) -> None:
    await console.connect(new_client_id())
    console.find("#log-pause").click()
    console.send("held", '"later"')
    await until(lambda: "1 new" in console.text("#log-pause"), "the pause button counts")
    assert "later" not in console.text("#log")
    console.find("#log-pause").click()
    await console.logged("later", "held")
    console.script("""const filter = document.getElementById("log-filter");
        filter.value = "held"; filter.dispatchEvent(new Event("change"))""")
    assert console.script(
        "return [...document.querySelectorAll('#log li:not([hidden])')].map((r) => r.dataset.type)"
    ) == ["held"]
