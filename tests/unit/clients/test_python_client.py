"""The Python client against answers written byte by byte."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.waiting import until
from tests.unit.clients.scripted import HEAD, Scripted, answer, scripted
from tidegate import Closing, Event, Gap, State, Stopped, connect
from tidegate.backoff import BackOff, retry_after
from tidegate.parser import EventParser, Frame

PROBLEM = '{"title": "Not you", "status": 401, "detail": "no token"}'


def waits(states: list[State]) -> list[float]:
    return [state.seconds for state in states if state.name == "waiting"]


async def test_a_frame_cut_in_the_middle_is_not_delivered_and_the_next_connection_resumes_before_it() -> None:
    cut = HEAD + "id: e-1\ndata: one\n\nid: e-2\ndata: tw"
    whole = HEAD + "id: e-2\ndata: two\n\n" + Scripted.HOLD
    async with scripted([cut, whole]) as server, connect(server.url, topics=["a", "b.>"], random=lambda: 0) as stream:
        assert [(await anext(stream)).data for _ in range(2)] == ["one", "two"]
        assert stream.last_event_id == "e-2"
    assert "topic=a&topic=b.%3E" in server.requests[0]
    assert "last-event-id" not in server.requests[0].lower()
    assert "last-event-id: e-1" in server.requests[1].lower()


async def test_what_was_read_but_not_handed_over_does_not_move_the_last_id() -> None:
    text = HEAD + "id: e-1\ndata: one\n\nid: e-2\ndata: two\n\n" + Scripted.HOLD
    async with scripted([text]) as server, connect(server.url) as stream:
        await anext(stream)
        assert stream.last_event_id == "e-1"


async def test_two_events_under_one_id_are_both_delivered() -> None:
    text = HEAD + "id: e-1\ndata: one\n\nid: e-1\ndata: mended\n\n" + Scripted.HOLD
    async with scripted([text]) as server, connect(server.url) as stream:
        assert [(await anext(stream)).data for _ in range(2)] == ["one", "mended"]


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden", "404 Not Found", "422 Unprocessable"])
async def test_a_refusal_stops_for_good_with_the_problem(status: str) -> None:
    async with scripted([answer(status, PROBLEM)]) as server, connect(server.url) as stream:
        with pytest.raises(Stopped, match="Not you") as stopped:
            await anext(stream)
        assert stopped.value.problem is not None
        assert (stopped.value.problem.status, stopped.value.problem.detail) == (int(status[:3]), "no token")
        assert stream.state.name == "closed"
    assert len(server.requests) == 1


async def test_204_ends_without_an_error() -> None:
    async with scripted([answer("204 No Content")]) as server, connect(server.url) as stream:
        assert [event async for event in stream] == []
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", ["408 Timeout", "425 Early", "429 Many", "500 Broken", "503 Full"])
async def test_a_passing_refusal_is_tried_again_not_before_retry_after(status: str) -> None:
    states: list[State] = []
    answers = [answer(status, "", "Retry-After: 1"), HEAD + "data: x\n\n" + Scripted.HOLD]
    async with scripted(answers) as server, connect(server.url, on_state=states.append, random=lambda: 0.5) as stream:
        assert (await anext(stream)).data == "x"
    assert waits(states) == [1.25]


async def test_the_streams_own_retry_is_a_lower_bound_and_attempts_are_limited() -> None:
    states: list[State] = []
    broken = answer("503 Full")
    async with scripted([HEAD + "retry: 20\n\n", broken]) as server:
        async with connect(server.url, on_state=states.append, random=lambda: 0, attempts=3) as stream:
            with pytest.raises(Stopped, match="given up after 3 attempts"):
                await anext(stream)
    assert waits(states) == [0.02, 0.02]
    assert len(server.requests) == 3


async def test_the_gateways_own_closing_is_no_attempt_that_failed() -> None:
    closing = HEAD + 'retry: 10\nevent: closing\ndata: {"reason":"drain"}\n\n'
    async with scripted([closing, closing, HEAD + "data: x\n\n" + Scripted.HOLD]) as server:
        async with connect(server.url, random=lambda: 0, attempts=1) as stream:
            assert [(await anext(stream)).type for _ in range(3)] == ["closing", "closing", "message"]


async def test_what_the_address_asks_for_is_asked_for_too_and_its_client_id_stays() -> None:
    """The topics that were named beside it took the place of its own."""
    first = HEAD + 'event: connected\ndata: {"client_id":"c"}\n\n'
    async with scripted([first, HEAD + "data: x\n\n" + Scripted.HOLD]) as server:
        url = f"{server.url}?client_id=c&topic=a"
        async with connect(url, topics=["b"], user_id="u", random=lambda: 0) as stream:
            assert [(await anext(stream)).type for _ in range(2)] == ["connected", "message"]
    for request in server.requests:
        assert request.startswith("GET /api/sse?client_id=c&topic=a&topic=b&user_id=u HTTP")


async def test_a_server_that_takes_the_request_and_says_nothing_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a limit of silence it was waited for for ever."""
    monkeypatch.setattr("tidegate.stream.CONNECT_SECONDS", 0.1)
    async with scripted([Scripted.HOLD, HEAD + "data: x\n\n" + Scripted.HOLD]) as server:
        async with connect(server.url, silence=None, random=lambda: 0) as stream:
            assert (await anext(stream)).data == "x"


async def test_a_body_that_can_not_be_decoded_is_tried_again_and_a_redirect_is_followed() -> None:
    """Both came out of the iteration, as an error of httpx's and as a final refusal."""
    broken = HEAD.replace("\r\n\r\n", "\r\nContent-Encoding: gzip\r\n\r\nthis is no gzip")
    moved = answer("307 Temporary Redirect", "", "Location: /elsewhere")
    async with scripted([broken, moved, HEAD + "data: x\n\n" + Scripted.HOLD]) as server:
        async with connect(server.url, random=lambda: 0) as stream:
            assert (await anext(stream)).data == "x"
    assert server.requests[2].startswith("GET /elsewhere HTTP")


async def test_headers_may_come_from_a_plain_function_too() -> None:
    async with scripted([HEAD + "data: x\n\n" + Scripted.HOLD]) as server:
        async with connect(server.url, headers=lambda: {"Authorization": "mine"}) as stream:
            await anext(stream)
    assert "authorization: mine" in server.requests[0].lower()


async def test_an_event_makes_the_back_off_small_again_for_the_limit_too() -> None:
    broken, event = answer("503 Full"), HEAD + "data: x\n\n"
    states: list[State] = []
    async with scripted([broken, event, broken, broken]) as server:
        async with connect(server.url, on_state=states.append, random=lambda: 0.01, attempts=2) as stream:
            assert (await anext(stream)).data == "x"
            with pytest.raises(Stopped, match="given up after 2 attempts"):
                await anext(stream)
    assert waits(states) == [0.005, 0.005, 0.01]


async def test_a_silent_connection_is_replaced_and_comments_count_as_life() -> None:
    silent = HEAD + ": heartbeat\n\n" + Scripted.HOLD
    states: list[State] = []
    async with scripted([silent, HEAD + "data: x\n\n" + Scripted.HOLD]) as server:
        async with connect(server.url, silence=0.1, on_state=states.append, random=lambda: 0) as stream:
            assert (await anext(stream)).data == "x"
    assert [state.reason for state in states if state.name == "waiting"] == ["nothing was heard for too long"]


async def test_gap_and_closing_are_of_their_own_kind_and_closing_for_good_ends_the_stream() -> None:
    text = HEAD + 'event: gap\ndata: {"reason":"epoch"}\n\nevent: closing\ndata: {"reconnect":false}\n\n'
    async with scripted([text]) as server, connect(server.url) as stream:
        got = [event async for event in stream]
    assert [type(event) for event in got] == [Gap, Closing]
    assert got[0].json() == {"reason": "epoch"}
    assert len(server.requests) == 1


async def test_a_client_id_made_by_the_gateway_is_kept_and_headers_are_asked_for_each_time() -> None:
    tokens = iter(["first", "second"])

    async def headers() -> dict[str, str]:
        return {"Authorization": next(tokens)}

    first = HEAD + 'event: connected\ndata: {"client_id":"made","listening":["broadcast"]}\n\n'
    async with scripted([first, HEAD + "data: x\n\n" + Scripted.HOLD]) as server:
        async with connect(server.url, headers=headers, random=lambda: 0) as stream:
            assert [(await anext(stream)).type for _ in range(2)] == ["connected", "message"]
            assert stream.listening == ["broadcast"]
    assert "client_id=" not in server.requests[0]
    assert "client_id=made" in server.requests[1]
    assert [request.lower().count(word) for request, word in zip(server.requests, ("first", "second"), strict=True)]


async def test_close_from_another_task_ends_the_iteration() -> None:
    async with scripted([HEAD + "id: e-1\ndata: one\n\n" + Scripted.HOLD]) as server, connect(server.url) as stream:
        assert isinstance(await anext(stream), Event)
        reading = asyncio.ensure_future(anext(stream, None))
        await asyncio.sleep(0)
        await stream.close()
        assert await reading is None
        assert stream.state == State("closed", reason="closed by the caller")


async def test_a_timeout_of_the_caller_loses_nothing_and_keeps_the_connection() -> None:
    """Each cancelled `anext` cost a connection: a caller that looked in ten times a second made as many requests."""
    text = HEAD + "id: e-1\ndata: one\n\nid: e-2\ndata: t"
    async with scripted([text + Scripted.HOLD]) as server, connect(server.url) as stream:
        assert (await anext(stream)).data == "one"
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(stream), 0.01)
        server.say("wo\n\n")
        assert (await anext(stream)).data == "two"
    assert len(server.requests) == 1


async def test_a_timeout_of_the_caller_does_not_cut_the_wait_for_the_next_attempt_short() -> None:
    """A cancelled `anext` ended the wait, and the next one asked at once: 30 requests in 3 s with Retry-After: 30."""
    states: list[State] = []
    refused = answer("503 Full", "", "Retry-After: 30")
    async with scripted([refused]) as server, connect(server.url, on_state=states.append) as stream:
        reading = asyncio.ensure_future(anext(stream))
        await until(lambda: bool(waits(states)), "the client waits")
        reading.cancel()
        for _ in range(5):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(stream), 0.01)
        assert stream.state.name == "waiting"
    assert len(server.requests) == 1
    assert len(waits(states)) == 1


async def test_a_cancel_of_the_readers_task_is_not_lost_in_a_close_of_the_same_moment() -> None:
    async with scripted([HEAD + Scripted.HOLD]) as server, connect(server.url) as stream:
        reading = asyncio.ensure_future(anext(stream, None))
        await until(lambda: bool(server.held), "the stream is read")
        reading.cancel()
        await stream.close()
        await asyncio.wait([reading])
        assert reading.cancelled()


@pytest.mark.parametrize(
    ("url", "options", "cause"),
    [
        ("/api/sse", {}, "no http or https address"),
        ("ftp://127.0.0.1/", {}, "no http or https address"),
        ("http:///api/sse", {}, "no http or https address"),
        ("", {"headers": {"X-Name": "a\nb"}}, "X-Name holds control characters"),
        ("", {"headers": {"X-Name": "名"}}, "headers can't be sent"),
        ("", {"headers": {"a b": "c"}}, "'a b' is no field's name"),
        ("", {"headers": {"X-Name": 7}}, "headers can't be sent"),
        ("", {"headers": lambda: {"X-Name": "\0"}}, "X-Name holds control characters"),
    ],
)
async def test_what_can_not_be_asked_for_stops_with_the_cause(url: str, options: dict[str, Any], cause: str) -> None:
    """Each was tried again for ever, or came out as an error of the library below with the stream still connecting."""
    async with scripted([HEAD + Scripted.HOLD]) as server, connect(url or server.url, **options) as stream:
        with pytest.raises(Stopped, match=cause):
            await anext(stream)
        assert (stream.state.name, cause in stream.state.reason) == ("closed", True)
        assert [event async for event in stream] == []
    assert server.requests == []


async def test_what_the_callers_function_raises_comes_out_and_ends_the_stream() -> None:
    def headers() -> dict[str, str]:
        raise LookupError("no token")

    async with scripted([HEAD + Scripted.HOLD]) as server, connect(server.url, headers=headers) as stream:
        with pytest.raises(LookupError, match="no token"):
            await anext(stream)
        assert (stream.state.name, stream.state.reason) == ("closed", "no token")
        assert isinstance(stream.state.cause, LookupError)


async def test_every_attempt_that_failed_tells_its_cause() -> None:
    request = httpx.Request("GET", "https://tokens")
    failing: list[Exception] = [
        httpx.ConnectError("no way there"),
        TimeoutError("too slow"),
        httpx.HTTPStatusError("503 of the tokens", request=request, response=httpx.Response(503)),
    ]

    def headers() -> dict[str, str]:
        if failing:
            raise failing.pop(0)
        return {}

    broken = HEAD.replace("Connection: close", "Transfer-Encoding: chunked") + "no size\r\n"
    states: list[State] = []
    async with scripted(["", answer("503 Full", '{"title": "Full up"}'), broken, HEAD, HEAD + "data: x\n\n"]) as server:
        async with connect(server.url, headers=headers, on_state=states.append, random=lambda: 0) as stream:
            assert (await anext(stream)).data == "x"
    told = [state for state in states if state.name == "waiting"]
    causes = [
        "headers() failed: no way there",
        "headers() failed: too slow",
        "headers() failed: 503 of the tokens",
        "the server can't be reached: ",
        "Full up",
        "the connection broke: ",
        "the stream ended",
    ]
    assert [state.reason[: len(cause)] for state, cause in zip(told, causes, strict=True)] == causes
    assert [type(state.cause).__name__ for state in told[:4]] == [
        "ConnectError",
        "TimeoutError",
        "HTTPStatusError",
        "RemoteProtocolError",
    ]
    assert [state.problem.status if state.problem else 0 for state in told] == [0, 0, 0, 0, 503, 0, 0]


async def test_headers_that_never_come_are_told_as_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function that hung was told as a server that says nothing."""
    monkeypatch.setattr("tidegate.stream.CONNECT_SECONDS", 0.1)

    async def headers() -> dict[str, str]:
        await asyncio.Event().wait()
        return {}

    async with connect("http://127.0.0.1:9/", headers=headers, attempts=1) as stream:
        with pytest.raises(Stopped, match="failed: TimeoutError"):
            await anext(stream)


async def test_a_tokens_line_end_is_no_part_of_it() -> None:
    async with scripted([HEAD + "data: x\n\n" + Scripted.HOLD]) as server:
        async with connect(server.url, headers={"Authorization": " Bearer t\r\n", "X-Name": "é"}) as stream:
            await anext(stream)
    assert "\r\nauthorization: bearer t\r\n" in server.requests[0].lower()
    assert "x-name: \xe9\r\n".encode("latin-1") in server.heads[0].lower()


@pytest.mark.parametrize(
    ("id_", "sent"),
    [
        ("é-1", "last-event-id: é-1\r\n"),
        ("名前 1", "last-event-id: 名前 1\r\n"),
        ("😀", "last-event-id: 😀\r\n"),
        (" e", "last_event_id=+e "),
        ("e\t", "last_event_id=e%09 "),
        ("e\x01", "last_event_id=e%01 "),
        ("\x7f", "last_event_id=%7f "),
    ],
)
async def test_an_id_of_any_characters_is_sent_back_as_it_is(id_: str, sent: str) -> None:
    """The id made an error of every attempt: a field's value is ASCII for the library below."""
    answers = [HEAD + f"id: {id_}\ndata: x\n\n", HEAD + "data: y\n\n" + Scripted.HOLD]
    async with scripted(answers) as server, connect(server.url, random=lambda: 0) as stream:
        assert [(await anext(stream)).data for _ in range(2)] == ["x", "y"]
        assert stream.last_event_id == id_
    assert sent in server.requests[1].lower()


async def test_who_has_stored_no_id_yet_begins_without_one() -> None:
    async with scripted([HEAD + "data: x\n\n"]) as server, connect(server.url, last_event_id=None) as stream:
        assert (await anext(stream)).data == "x"
        assert stream.last_event_id == ""
    assert "last" not in server.requests[0].lower()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("3000000", 86_400),
        ("9" * 400, 86_400),
        ("9" * 5000, 86_400),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86_400),
        ("-5", 0),
        ("1e9", 0),
        ("1.5", 0),
        ("soon 2099", 0),
        ("٣", 0),
        ("Fri, 99 Dec 2099 23:59:59 GMT", 0),
        ("Fri, 31 Dec 0000 23:59:59 GMT", 0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 0),
        ("Sun Nov  6 08:49:37 1994", 0),
        ("Fri, 31 Dec 9999 23:59:59 +0000", 0),
    ],
)
def test_a_retry_after_of_any_text_is_a_wait_of_a_day_at_most(value: str, seconds: float) -> None:
    """Numbers were taken literally, up to infinity; a date could raise OverflowError, or be of the local time zone."""
    assert retry_after(value) == seconds


@given(
    st.one_of(st.text(), st.from_regex(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT", fullmatch=True))
)
def test_no_retry_after_raises(value: str) -> None:
    assert 0 <= retry_after(value) <= 86_400


def test_a_retry_after_that_is_a_date_is_waited_for() -> None:
    in_an_hour = datetime.now(UTC) + timedelta(hours=1)
    forms = ("%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y")
    for form in forms:
        assert 3590 < retry_after(in_an_hour.strftime(form)) <= 3600


@pytest.mark.parametrize(
    ("retry", "seconds"),
    [("7200000", 7200), ("9" * 400, 86_400), ("9" * 5000, 86_400), ("-1", None), ("1e9", None), ("٣", None)],
)
def test_a_retry_of_any_number_is_a_wait_of_a_day_at_most(retry: str, seconds: float | None) -> None:
    """400 digits raised OverflowError, 5,000 ValueError, from the middle of the iteration."""
    parser = EventParser()
    parser.feed(f"retry: {retry}\n\n".encode())
    assert parser.retry == seconds


@pytest.mark.parametrize("type_", ["Text/Event-Stream", "TEXT/EVENT-STREAM;charset=utf-8", "text/event-stream ; a=b"])
async def test_the_answers_type_is_compared_without_case_and_parameters(type_: str) -> None:
    head = HEAD.replace("text/event-stream", type_)
    async with scripted([head + "data: x\n\n" + Scripted.HOLD]) as server, connect(server.url) as stream:
        assert (await anext(stream)).data == "x"


async def test_an_answer_of_a_type_that_only_begins_like_an_event_stream_is_none() -> None:
    head = HEAD.replace("text/event-stream", "text/event-streams")
    async with scripted([head + "data: x\n\n"]) as server, connect(server.url) as stream:
        with pytest.raises(Stopped, match="no event stream"):
            await anext(stream)


@pytest.mark.parametrize("body", ['{"title":' + Scripted.HOLD, '{"title":', "x" * 1_000_000 + Scripted.HOLD])
async def test_a_refusal_counts_by_its_head_whatever_becomes_of_its_body(
    body: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One whose body stalled or broke off was tried again for ever, as a server that says nothing."""
    monkeypatch.setattr("tidegate.answers.PROBLEM_SECONDS", 0.2)
    head = "HTTP/1.1 403 No\r\nContent-Length: 10000000\r\n\r\n"
    async with scripted([head + body]) as server, connect(server.url) as stream:
        with pytest.raises(Stopped, match="403 No"):
            await anext(stream)
    assert len(server.requests) == 1


async def test_no_limit_of_silence_may_be_written_as_nought() -> None:
    async with scripted([HEAD + Scripted.HOLD]) as server, connect(server.url, silence=0) as stream:
        reading = asyncio.ensure_future(anext(stream))
        await until(lambda: bool(server.held), "the stream is open")
        server.say("data: x\n\n")
        assert (await reading).data == "x"
    assert len(server.requests) == 1


async def test_odd_facts_of_a_server_break_nothing() -> None:
    """JSON that is nested too deeply came out as a RecursionError."""
    deep = "[" * 100_000
    connected = HEAD + f"event: connected\ndata: {deep}\n\nevent: closing\ndata: {deep}\n\n"
    refused = answer("403 No", '{"title": {"a": 1}, "detail": [1]}')
    async with scripted([connected, answer("503 Full", deep), refused]) as server:
        async with connect(server.url, random=lambda: 0) as stream:
            assert [(await anext(stream)).type for _ in range(2)] == ["connected", "closing"]
            with pytest.raises(Stopped, match="403 No") as stopped:
                await anext(stream)
    assert stopped.value.problem is not None
    assert stopped.value.problem.detail == ""


async def test_one_topic_may_be_a_text() -> None:
    async with scripted([HEAD + "data: x\n\n" + Scripted.HOLD]) as server:
        async with connect(server.url, topics="prices") as stream:
            await anext(stream)
    assert server.requests[0].startswith("GET /api/sse?topic=prices HTTP")


def test_the_window_doubles_to_its_cap_and_the_bound_is_added() -> None:
    back_off = BackOff(lambda: 1.0)
    assert [back_off.next(0) for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    back_off.reset()
    assert back_off.next(5) == 5.5
    assert retry_after("7") == 7
    assert retry_after("soon") == 0


def test_the_parser_gives_the_same_frames_wherever_the_stream_is_cut() -> None:
    stream = "\ufeff:x\r\nid: 1\rdata:a\r\ndata:  é😀\n\nretry: 12\nid: 0\0\nevent: t\ndata\n\nid\n\ndata: cut".encode()
    expected = [Frame("1", "message", "a\n é😀"), Frame(None, "t", ""), Frame("", "message", None)]
    for size in (1, 2, 3, 7, len(stream)):
        parser = EventParser()
        got = [frame for at in range(0, len(stream), size) for frame in parser.feed(stream[at : at + size])]
        assert got == expected
        assert parser.retry == 0.012
