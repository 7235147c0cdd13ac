"""The Python client's token: when it is asked for, what is done with it, and how a refusal is told."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from tests.support.waiting import until
from tests.unit.clients.scripted import HEAD, Scripted, answer, scripted
from tidegate import Refused, State, Stopped, connect

OPEN = HEAD + 'event: connected\ndata: {"client_id":"c"}\n\nid: e-1\ndata: one\n\n'
EXPIRING = "event: expiring\ndata: {}\n\n"


def refused(status: str, **facts: str) -> str:
    body = ", ".join(f'"{name}": "{value}"' for name, value in facts.items())
    return answer(status, f'{{"title": "No", {body}}}')


def counting() -> Callable[[], str]:
    """t1, t2, t3 …"""
    numbers = iter(range(1, 100))
    return lambda: f"t{next(numbers)}"


def given(server: Scripted) -> list[str]:
    """The token of each request, "" for none."""
    found = [re.findall(r"^authorization: (.*)\r$", request, re.I | re.M) for request in server.requests]
    assert all(len(values) < 2 for values in found)
    return ["".join(values).removeprefix("Bearer ") for values in found]


@pytest.mark.parametrize("form", ["plain", "async"])
async def test_a_function_is_asked_before_every_attempt(form: str) -> None:
    plain = counting()

    async def slow() -> str:
        await asyncio.sleep(0)
        return plain()

    token: Callable[[], str | Awaitable[str]] = slow if form == "async" else plain
    cut = HEAD + "data: x\n\n"
    async with scripted([answer("503 Full"), cut, cut + Scripted.HOLD]) as server:
        async with connect(server.url, token=token, random=lambda: 0) as stream:
            assert [(await anext(stream)).data for _ in range(2)] == ["x", "x"]
    assert given(server) == ["t1", "t2", "t3"]


@pytest.mark.parametrize(("token", "sent"), [("tgk_shop_x", "tgk_shop_x"), ("t\n", "t"), ("", ""), (lambda: None, "")])
async def test_a_token_is_sent_as_it_is_and_none_is_sent_as_none(token: Any, sent: str) -> None:
    async with scripted([OPEN + Scripted.HOLD]) as server, connect(server.url, token=token) as stream:
        await anext(stream)
    assert given(server) == [sent]


@pytest.mark.parametrize(
    ("status", "facts"),
    [
        ("401 Unauthorized", {"reason": "signature", "needed": "", "detail": "bad signature"}),
        ("403 Forbidden", {"reason": "", "needed": "subscribe topic:a.b", "detail": "this needs the right"}),
    ],
)
async def test_a_refusal_ends_the_stream_and_says_what_would_do(status: str, facts: dict[str, str]) -> None:
    told = refused(status, type="urn:tidegate:problem:x", **facts)
    async with scripted([told]) as server, connect(server.url, token=counting()) as stream:
        with pytest.raises(Refused) as caught:
            await anext(stream)
        assert stream.state.problem is caught.value.problem
    error = caught.value
    assert isinstance(error, Stopped)
    assert (error.status, error.type) == (int(status[:3]), "urn:tidegate:problem:x")
    assert (error.reason, error.needed, str(error)) == (facts["reason"], facts["needed"], f"No: {facts['detail']}")
    assert given(server) == ["t1"]


async def test_a_token_that_has_expired_is_asked_for_once_more() -> None:
    late = refused("401 Unauthorized", reason="expired")
    async with scripted([late, OPEN, late, OPEN + Scripted.HOLD]) as server:
        async with connect(server.url, token=counting(), random=lambda: 0) as stream:
            assert [(await anext(stream)).data for _ in range(4)][1::2] == ["one", "one"]
    assert given(server) == ["t1", "t2", "t3", "t4"], "the second time counts anew, after a connection"


async def test_a_token_that_has_expired_again_ends_the_stream() -> None:
    async with scripted([refused("401 Unauthorized", reason="expired")]) as server:
        async with connect(server.url, token=counting(), random=lambda: 0) as stream:
            with pytest.raises(Refused):
                await anext(stream)
    assert given(server) == ["t1", "t2"]


async def test_a_token_that_can_not_be_another_is_not_tried_twice() -> None:
    async with scripted([refused("401 Unauthorized", reason="expired")]) as server:
        async with connect(server.url, token="t", random=lambda: 0) as stream:
            with pytest.raises(Refused):
                await anext(stream)
    assert given(server) == ["t"]


async def test_a_token_whose_key_is_not_known_yet_is_tried_once_more_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An identity provider that has a new key: a gateway fetches it in the background, and refuses meanwhile."""
    monkeypatch.setattr("tidegate.credentials.KEYS_SECONDS", 0.05)
    states: list[State] = []
    async with scripted([refused("401 Unauthorized", reason="kid")]) as server:
        async with connect(server.url, token=counting(), on_state=states.append, random=lambda: 0) as stream:
            with pytest.raises(Refused):
                await anext(stream)
    assert [state.seconds for state in states if state.name == "waiting"] == [0.05]
    assert given(server) == ["t1", "t2"]


async def test_a_stream_whose_token_expires_goes_on_with_another_and_loses_and_repeats_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tidegate.stream.PROVEN_SECONDS", -1)
    states: list[State] = []
    first = OPEN + EXPIRING + "id: e-2\ndata: two\n\n" + Scripted.HOLD
    again = HEAD + "event: connected\ndata: {}\n\nid: e-3\ndata: three\n\n"
    last = HEAD + "id: e-4\ndata: four\n\n" + Scripted.HOLD
    async with scripted([first, again, last]) as server:
        async with connect(server.url, token=counting(), on_state=states.append, random=lambda: 0) as stream:
            got = [await anext(stream) for _ in range(7)]
    assert [event.data for event in got if event.type == "message"] == ["one", "two", "three", "four"]
    assert [event.type for event in got].count("expiring") == 1
    assert given(server) == ["t1", "t2", "t3"]
    assert "last-event-id: e-2" in server.requests[1].lower()
    assert "client_id=c" in server.requests[1]
    assert [state.name for state in states][:5] == ["connecting", "open", "connecting", "open", "waiting"]


async def fails() -> str:
    raise TimeoutError


@pytest.mark.parametrize("what", ["a text", "the same token", "no token", "a function that fails"])
async def test_a_stream_without_another_token_lasts_as_long_as_its_own(
    monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr("tidegate.stream.PROVEN_SECONDS", -1)
    asked: list[None] = []

    def token() -> Any:
        asked.append(None)
        if len(asked) == 2 and what == "a function that fails":
            return fails()
        return None if len(asked) == 2 and what == "no token" else "t"

    async with scripted([OPEN + EXPIRING + Scripted.HOLD]) as server:
        async with connect(server.url, token="t" if what == "a text" else token) as stream:
            assert [(await anext(stream)).type for _ in range(3)] == ["connected", "message", "expiring"]
            following = asyncio.ensure_future(anext(stream))
            await until(lambda: what == "a text" or len(asked) == 2, "the token was asked for")
            server.say("data: more\n\n")
            assert (await following).data == "more"
    assert given(server) == ["t"]


async def test_a_token_that_expires_soon_after_a_connection_is_not_asked_for_in_a_circle() -> None:
    async with scripted([OPEN + EXPIRING + Scripted.HOLD]) as server:
        async with connect(server.url, token=counting()) as stream:
            assert [(await anext(stream)).type for _ in range(3)][2:] == ["expiring"]
            following = asyncio.ensure_future(anext(stream))
            server.say("data: more\n\n")
            assert (await following).data == "more"
    assert given(server) == ["t1"]


async def test_the_end_of_a_token_is_come_back_from_with_another_and_a_revocation_is_not() -> None:
    ended = OPEN + 'retry: 10\nevent: closing\ndata: {"reason":"token_expired","reconnect":true}\n\n'
    revoked = OPEN + 'event: closing\ndata: {"reason":"revoked","reconnect":false}\n\n'
    async with scripted([ended, revoked]) as server:
        async with connect(server.url, token=counting()) as stream:
            reasons = [event.json()["reason"] async for event in stream if event.type == "closing"]
    assert reasons == ["token_expired", "revoked"]
    assert given(server) == ["t1", "t2"]


@pytest.mark.parametrize("token", ["a b", "ü", "a\r\nHost: evil", b"bytes", 5])
async def test_a_token_that_can_not_be_sent_ends_the_stream_and_is_not_told(token: Any) -> None:
    async with scripted([OPEN]) as server, connect(server.url, token=lambda: token) as stream:
        with pytest.raises(Stopped, match="the token can't be sent") as caught:
            await anext(stream)
        assert str(token) not in str(caught.value).replace("the token can't be sent", "")
    assert server.requests == []


async def test_token_and_headers_do_not_both_say_who_asks() -> None:
    async with scripted([OPEN]) as server:
        async with connect(server.url, token="t", headers={"authorization": "Bearer u"}) as stream:
            with pytest.raises(Stopped, match="both give Authorization"):
                await anext(stream)
    assert server.requests == []


async def test_what_the_client_or_the_address_has_to_say_who_asks_gives_way_to_the_token() -> None:
    async with (
        scripted([OPEN + Scripted.HOLD]) as server,
        httpx.AsyncClient(auth=("ann", "password")) as client,
        connect(server.url.replace("//", "//bob:secret@"), client=client, token="t") as stream,
    ):
        await anext(stream)
    assert given(server) == ["t"]


async def test_a_token_does_not_follow_a_redirect_to_another_origin() -> None:
    async with scripted([OPEN + Scripted.HOLD]) as other:
        moved = answer("307 Moved", "", f"Location: {other.url}")
        async with scripted([moved]) as server, connect(server.url, token="t") as stream:
            await anext(stream)
        assert (given(server), given(other)) == (["t"], [""])


async def test_what_the_function_raises_comes_out_and_ends_the_stream() -> None:
    def token() -> str:
        raise LookupError("nobody is logged in")

    async with scripted([OPEN]) as server, connect(server.url, token=token) as stream:
        with pytest.raises(LookupError):
            await anext(stream)
        assert stream.state == State("closed", 0.0, "nobody is logged in", None, stream.state.cause)
    assert server.requests == []


async def test_a_token_that_can_not_be_had_now_is_asked_for_again() -> None:
    asked: list[None] = []

    async def token() -> str:
        asked.append(None)
        if len(asked) == 1:
            raise httpx.ConnectError("away")
        return "t"

    states: list[State] = []
    async with scripted([OPEN + Scripted.HOLD]) as server:
        async with connect(server.url, token=token, on_state=states.append, random=lambda: 0) as stream:
            await anext(stream)
    assert [state.reason for state in states if state.name == "waiting"] == ["token() failed: away"]
    assert given(server) == ["t"]
