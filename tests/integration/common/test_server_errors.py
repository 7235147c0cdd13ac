"""Whatever nats-server says is wrong, or does, a process hears again afterwards, and its log says what was the matter.

The texts are all those that the server's source sends to a client (sendErr, sendErrAndErr and sendErrAndDebug in
server/*.go). The client library closed for good on most of them: the process answered 503 for ever, was healthy by its
own word, and no line of its log said why.
"""

import asyncio
import logging
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.support.bus import SUBJECTS
from tests.support.nats import NatsServer, nats_server
from tests.support.scripted_nats import scripted_nats
from tests.support.waiting import until
from tidegate_common.bus.connection import Bus, connect
from tidegate_common.bus.wire.limits import SPARE_SUBSCRIPTIONS
from tidegate_common.errors import BrokerUnavailable, SubscriptionRefused, TooLarge

CLOSING = [
    "Authorization Violation",
    "User Authentication Expired",
    "User Authentication Revoked",
    "Account Authentication Expired",
    "Authentication Timeout",
    "Failed Account Registration",
    "maximum connections exceeded",
    "maximum account active connections exceeded",
    "Maximum Payload Violation",
    "maximum control line exceeded",
    "maximum subscriptions exceeded",
    "Unknown Protocol Operation",
    "Stale Connection",
    "Connection throttling is active. Please try again later.",
    "Secure Connection - TLS Required",
    "invalid client protocol",
    "no responders requires headers support",
    "attempted to connect to route port",
    "Slow Consumer",
    "Parser Error",
    "Server Shutdown",
    "an error of a release to come",
    "",
]
"""After these the server closes the connection (after the last but two older servers did, or newer ones may)."""

GOING_ON = [
    'Permissions Violation for Publish to "tg.in.x"',
    'Permissions Violation for Publish with Reply of "x"',
    'Permissions Violation for Subscription to "somebody.else.s"',
    'Permissions Violation for Subscription to "x", too many tokens',
    "Invalid Subject",
    "Invalid Publish Subject",
]


def hang(seconds: float) -> None:
    """Nothing of this process runs for so long."""
    time.sleep(seconds)


class Heard:
    """What came, and how often the connection was lost and came back."""

    def __init__(self, bus: Bus, subject: str = "news") -> None:
        self.got: list[bytes] = []
        self.lost = self.back = 0
        bus.client.subscribe_direct(subject, lambda _, __, payload: self.got.append(payload))
        bus.on_disconnect.append(self._lose)
        bus.on_reconnect.append(self._come_back)

    def _lose(self) -> None:
        self.lost += 1

    async def _come_back(self) -> None:
        self.back += 1


@pytest.mark.parametrize("text", CLOSING)
@pytest.mark.parametrize("closes", [True, False], ids=["closes", "stays open"])
async def test_after_an_error_that_ends_the_connection_there_is_another_and_its_reason_is_said(
    text: str, closes: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with scripted_nats() as nats, connect(nats.url, SUBJECTS, "test") as bus:
        heard = Heard(bus)
        await nats.has_subscriber("news")
        nats.fail(text, close=closes)
        await until(lambda: heard.back == 1, "the connection is back")
        assert (heard.lost, nats.connections) == (1, 2)
        nats.send("news", b"again")
        await until(lambda: heard.got == [b"again"], "it hears again")
        await bus.round_trip()
    said = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    assert len(said) == 1, said
    assert text in said[0]


@pytest.mark.parametrize("text", GOING_ON)
async def test_after_an_error_that_ends_nothing_the_connection_goes_on_and_it_is_said_once(
    text: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with scripted_nats() as nats, connect(nats.url, SUBJECTS, "test") as bus:
        heard = Heard(bus)
        await nats.has_subscriber("news")
        for _ in range(3):
            nats.fail(text, close=False)
        nats.send("news", b"still")
        await until(lambda: heard.got == [b"still"], "it hears")
        await bus.round_trip()
        assert (heard.lost, nats.connections) == (0, 1)
    said = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    assert len(said) == 1, said
    assert text in said[0]


@pytest.mark.parametrize(
    "nonsense",
    [b"\r\n", b"HELLO\r\n", b"MSG news 1 many\r\n", b"MSG\r\n", b"HMSG news 1 9\r\n", bytes(range(256)) + b"\r\n"],
)
async def test_what_is_not_the_protocol_costs_one_connection(nonsense: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with scripted_nats() as nats, connect(nats.url, SUBJECTS, "test") as bus:
        heard = Heard(bus)
        await nats.has_subscriber("news")
        nats.write(nonsense)
        await until(lambda: heard.back == 1, "the connection is back")
        nats.send("news", b"again")
        await until(lambda: heard.got == [b"again"], "it hears again")
    assert "is not the NATS protocol" in caplog.text


async def test_what_breaks_off_while_a_connection_is_being_opened_is_tried_again() -> None:
    async with scripted_nats() as nats, connect(nats.url, SUBJECTS, "test") as bus:
        heard = Heard(bus)
        nats.refuses = "maximum connections exceeded"
        nats.cut()
        # One that has begun, and is not refused yet, would be accepted: nothing would connect again.
        await until(lambda: nats.connections >= 4 and nats.idle, "it tries again and again", 20)
        assert not bus.connected
        nats.refuses, nats.silent = "", True
        before = nats.connections
        await until(lambda: nats.connections > before, "it tries a server that says nothing", 20)
        nats.silent = False
        await until(lambda: heard.back == 1, "the connection is back", 20)
        nats.send("news", b"again")
        await until(lambda: heard.got == [b"again"], "it hears again")
        assert heard.lost == 1


async def test_a_listener_that_fails_keeps_nobody_from_hearing_of_the_return(caplog: pytest.LogCaptureFixture) -> None:
    """An error in one of them ended the task that connects anew, and with it the process's connection for good."""
    async with scripted_nats() as nats, connect(nats.url, SUBJECTS, "test") as bus:

        def fail() -> None:
            raise ValueError("first")

        async def fail_later() -> None:
            raise ValueError("second")

        bus.on_disconnect.append(fail)
        bus.on_reconnect.append(fail_later)
        heard = Heard(bus)
        nats.cut()
        await until(lambda: heard.back == 1, "the connection is back")
        nats.send("news", b"again")
        await until(lambda: heard.got == [b"again"], "it hears again")


async def test_requests_end_with_the_connection_and_not_with_their_time() -> None:
    async with scripted_nats() as nats, connect(nats.url, SUBJECTS, "test") as bus:
        requests = [asyncio.create_task(bus.client.request("nobody", b"", timeout=60)) for _ in range(3)]
        flush = asyncio.create_task(bus.client.flush(60))
        await until(lambda: any("_INBOX" in each for each in nats.subscribed.values()), "they are asked")
        await asyncio.gather(flush)
        nats.cut()
        async with asyncio.timeout(5):
            found = await asyncio.gather(*requests, return_exceptions=True)
        assert [type(each).__name__ for each in found] == ["ConnectionReconnectingError"] * 3


# --- a real server -------------------------------------------------------------------------------------------------


async def reaching(stack: AsyncExitStack, nats: NatsServer) -> Bus:
    """A connection that is to nobody's bus but the test's own: it sends what it hears of."""
    return await stack.enter_async_context(connect(nats.url, SUBJECTS, "other"))


async def test_a_limit_of_messages_that_was_lowered_costs_one_connection_and_is_known_then(tmp_path: Path) -> None:
    """The server tells nobody that it takes less now: the first message that is too large ends the connection."""
    async with nats_server(tmp_path, config="max_payload: 1000000") as nats, connect(nats.url, SUBJECTS, "a") as bus:
        heard = Heard(bus)
        inbox = bus.new_inbox(bytes, 2)
        await nats.reload("max_payload: 2000")
        assert await inbox.ask("nobody", b"x" * 3000) is None
        await until(lambda: heard.back == 1, "the connection is back")
        with pytest.raises(TooLarge) as refused:
            await inbox.ask("nobody", b"x" * 1989)
        assert refused.value.limit == 1988
        assert await inbox.ask("nobody", b"x" * 1988) == b""
        assert heard.lost == 1


async def test_subscriptions_over_the_server_s_limit_are_refused_and_the_others_hear(tmp_path: Path) -> None:
    async with nats_server(tmp_path, config="max_subscriptions: 100") as nats, AsyncExitStack() as stack:
        bus = await stack.enter_async_context(connect(nats.url, SUBJECTS, "test"))
        heard = Heard(bus)
        got: list[bytes] = []
        refused: list[str] = []

        def subscribe(subject: str) -> None:
            def deliver(heard_on: bytes, _: bytes, __: bytes) -> None:
                got.append(heard_on)

            try:
                bus.client.subscribe_direct(subject, deliver, refused=lambda *_: refused.append(subject))
            except SubscriptionRefused:
                refused.append(subject)

        for number in range(150):
            subscribe(f"s.{number}")
        await until(lambda: heard.back == 1, "the limit is found out")
        await until(lambda: refused, "those that are too many are told")
        with pytest.raises(SubscriptionRefused, match="max_subscriptions"):
            bus.client.subscribe_direct("one.more", lambda *_: None, refused=lambda *_: None)
        kept = [f"s.{number}" for number in range(150) if f"s.{number}" not in refused]
        assert 100 - SPARE_SUBSCRIPTIONS - 10 <= len(kept) <= 100 - SPARE_SUBSCRIPTIONS
        other = await reaching(stack, nats)
        for number in range(150):
            other.client.publish_direct(f"s.{number}", b"")
        other.client.publish_direct("news", b"for all")
        await until(lambda: heard.got, "the last came")
        assert [each.decode() for each in got] == kept
        for _ in range(SPARE_SUBSCRIPTIONS - 4):  # what nothing works without has room
            bus.client.subscribe_direct("needed", lambda *_: None)
        await bus.round_trip()
        assert heard.lost == 1


async def test_a_subject_that_is_too_long_for_the_server_goes_and_the_connection_stays(tmp_path: Path) -> None:
    """Subscribed to anew on each connection, it would have ended all of them."""
    async with nats_server(tmp_path, config="max_control_line: 300") as nats, AsyncExitStack() as stack:
        bus = await stack.enter_async_context(connect(nats.url, SUBJECTS, "test"))
        heard = Heard(bus)
        refused: list[str] = []
        bus.client.subscribe_direct("x" * 400, lambda *_: None, refused=lambda _, reason: refused.append(reason))
        await until(lambda: heard.back == 1, "the connection is back")
        assert len(refused) == 1
        with pytest.raises(SubscriptionRefused, match="max_control_line"):
            bus.client.subscribe_direct("y" * 400, lambda *_: None, refused=lambda _, reason: refused.append(reason))
        await bus.round_trip()
        assert heard.lost == 1


USERS = """
authorization {{ users: [
  {{ user: a, password: {password},
    permissions: {{ subscribe: {{ deny: "secret.>" }}, publish: {{ deny: "sealed" }} }} }}
  {{ user: b, password: b }}
] }}
"""


async def test_what_is_not_permitted_is_told_to_whoever_wanted_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with nats_server(tmp_path, config=USERS.format(password="pw")) as nats:
        url = nats.url.replace("//", "//a:pw@")
        async with connect(url, SUBJECTS, "test") as bus:
            heard = Heard(bus)
            refused: list[str] = []
            bus.client.subscribe_direct("secret.one", lambda *_: None, refused=lambda _, reason: refused.append(reason))
            bus.client.publish_direct("sealed", b"")
            bus.client.publish_direct("news", b"after")
            await until(lambda: heard.got == [b"after"] and refused, "it goes on, and the one is told")
            assert "secret.one" in refused[0]
            await bus.round_trip()
            bus.client.subscribe_direct("secret.two", lambda *_: None)
            await until(lambda: bus.client.denied, "the other is known of")
            with pytest.raises(BrokerUnavailable, match=r"secret\.two"):
                await bus.round_trip()
            assert heard.lost == 0
    assert 'Publish to "sealed"' in caplog.text


async def test_a_permission_that_is_given_later_is_used_without_another_connection(tmp_path: Path) -> None:
    """The server tells nobody of it, so a process that it was given to stayed unready until it was started again."""
    config = "authorization {{ users: [{{ user: a, password: pw, permissions: {{ subscribe: {{ deny: {} }} }} }}] }}"
    async with nats_server(tmp_path, config=config.format('"secret.>"')) as nats:
        async with connect(nats.url.replace("//", "//a:pw@"), SUBJECTS, "test") as bus:
            heard = Heard(bus, "secret.one")
            for _ in range(2):
                with pytest.raises(BrokerUnavailable, match=r"secret\.one"):
                    await bus.round_trip()
            await nats.reload(config.format('"other.>"'))
            await bus.round_trip()
            bus.client.publish_direct("secret.one", b"now")
            await until(lambda: heard.got == [b"now"], "it hears")
            assert heard.lost == 0


async def test_credentials_that_are_taken_away_and_given_back_end_nothing_for_good(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with nats_server(tmp_path, config=USERS.format(password="pw")) as nats:
        async with connect(nats.url.replace("//", "//a:pw@"), SUBJECTS, "test") as bus:
            heard = Heard(bus)
            await bus.round_trip()
            await nats.reload(USERS.format(password="another"))
            await until(lambda: heard.lost == 1, "the server cuts it off")
            await until(lambda: "no connection to NATS" in caplog.text, "it is said why there is no other")
            await nats.reload(USERS.format(password="pw"))
            await until(lambda: heard.back == 1, "the connection is back")
            bus.client.publish_direct("news", b"again")
            await until(lambda: heard.got == [b"again"], "it hears again")
            assert not bus.refused.done()
    assert "refuses user and password" in caplog.text
    assert caplog.text.count("no connection to NATS") == 1
    assert "pw" not in caplog.text


async def test_a_server_that_counts_this_client_as_stale_is_connected_to_again(tmp_path: Path) -> None:
    """The process hung for longer than the server waits for its PONGs."""
    async with nats_server(tmp_path, config='ping_interval: "100ms", ping_max: 1') as nats:
        async with connect(nats.url, SUBJECTS, "test") as bus:
            heard = Heard(bus)
            hang(1)
            await until(lambda: heard.back == 1, "the connection is back")
            bus.client.publish_direct("news", b"again")
            await until(lambda: heard.got == [b"again"], "it hears again")
