"""How a connection to NATS is given up for another: when, to which server, and what is left of the old one."""

import asyncio
import logging
from pathlib import Path

import pytest
from nats import errors as nats_errors

from tests.support.bus import SUBJECTS
from tests.support.nats import nats_server
from tests.support.scripted_nats import ScriptedNats, scripted_nats
from tests.support.waiting import until
from tidegate_common.bus.connection import Bus, connect


async def pinging(bus: Bus, nats: ScriptedNats, seconds: float = 0.2) -> None:
    """From here on the connection asks for a sign of life every so many seconds: it is another one, and alone."""
    losses, before = bus.losses, nats.connections
    bus.client.options["ping_interval"] = seconds
    nats.cut()
    await until(lambda: bus.losses > losses and nats.connections > before and bus.connected, "it is back")
    await until(lambda: nats.ended == nats.connections - 1, "all of the lost one is read")


async def test_a_server_that_is_silent_is_asked_twice_before_it_is_given_up() -> None:
    """The second PING ended the connection in the moment in which it was to be sent, so a server that hung for 10 s
    could lose all of its clients, where the documentation gives it 20."""
    async with scripted_nats() as nats, connect(nats.url, SUBJECTS, "test") as bus:
        await pinging(bus, nats)
        asked: list[int] = []
        bus.on_disconnect.append(lambda: asked.append(nats.pings))
        before, nats.mute = nats.pings, True
        await until(lambda: asked, "it is given up")
        nats.mute = False
        assert asked[0] - before == 2


async def test_a_loss_while_much_waits_to_be_written_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """What was writing told of the error too, with a traceback, as if there were something else to look into."""
    async with scripted_nats(max_payload=1 << 24) as nats, connect(nats.url, SUBJECTS, "test") as bus:
        nats.reads.clear()
        for _ in range(60):
            bus.client.publish_direct("news", b"x" * 1_000_000)
        await asyncio.sleep(0)  # the writing has begun
        await asyncio.sleep(0)
        nats.cut()
        await until(lambda: bus.losses == 1, "the connection is lost")
        nats.reads.set()
        await until(lambda: bus.connected, "it is back")
    said = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    assert len(said) == 1, said


async def test_what_was_not_written_yet_at_a_loss_is_never_sent() -> None:
    """The lost connection was closed, but wrote what it still had as soon as the server read again: messages came of
    which their senders had been told that they were refused."""
    async with scripted_nats(max_payload=1 << 24) as nats, connect(nats.url, SUBJECTS, "test") as bus:
        await pinging(bus, nats)
        over, losses = nats.ended, bus.losses
        nats.reads.clear()
        for _ in range(60):
            bus.client.publish_direct("news", b"x" * 1_000_000)
        await until(lambda: bus.losses > losses, "the connection is lost")
        nats.reads.set()
        await until(lambda: nats.ended > over, "nothing more comes on it", 20)
        assert nats.published < 40  # what the kernel's buffers hold can't be had back


async def test_whoever_waits_for_room_to_write_is_told_of_the_loss() -> None:
    """They waited for the next connection, however long that took, and then took their messages for sent."""
    async with scripted_nats(max_payload=1 << 24) as nats, connect(nats.url, SUBJECTS, "test") as bus:
        await pinging(bus, nats)
        losses = bus.losses
        nats.reads.clear()
        sending = [asyncio.create_task(bus.client.publish("news", b"x" * 1_000_000)) for _ in range(60)]
        await until(lambda: bus.losses > losses, "the connection is lost")
        nats.silent = True  # there is no other one
        async with asyncio.timeout(5):
            found = await asyncio.gather(*sending, return_exceptions=True)
        assert sum(isinstance(each, nats_errors.ConnectionReconnectingError) for each in found) >= 40
        nats.silent = False
        nats.reads.set()


async def test_a_server_that_was_away_for_long_is_not_passed_over_for_as_long() -> None:
    """The server that had failed least often was tried first, over all times. So one that an earlier outage had seen
    fail was tried only when the lost one had failed as often, however well it was."""
    async with scripted_nats() as first, scripted_nats() as second:
        async with connect(f"{first.url},{second.url}", SUBJECTS, "test") as bus:
            for each in (first, second):
                each.refuses = "maximum connections exceeded"
            url = bus.client.connected_url
            (first if url is not None and url.port == first.port else second).cut()
            await until(lambda: min(first.connections, second.connections) >= 6, "both fail for long", 60)
            first.refuses = ""
            await until(lambda: bus.connected, "the first is there again", 20)
            first.refuses, second.refuses = "maximum connections exceeded", ""
            before, losses = first.connections, bus.losses
            first.cut()
            await until(lambda: bus.losses > losses and bus.connected, "it goes to the second", 60)
            assert first.connections - before <= 2


async def test_servers_that_another_one_names_are_entered_as_that_one_is() -> None:
    """They were entered with the first address's name and password, whichever server had told of them."""
    async with scripted_nats() as absent:
        pass
    async with scripted_nats() as other, scripted_nats(connect_urls=[f"127.0.0.1:{other.port}", "[::1", 7]) as nats:
        urls = f"{absent.url.replace('//', '//ann:1@')},{nats.url.replace('//', '//bob:2@')}"
        async with connect(urls, SUBJECTS, "test") as bus:
            nats.refuses = "maximum connections exceeded"
            nats.cut()
            await until(lambda: bus.losses == 1 and bus.connected, "it goes to the other", 20)
            assert (other.connects[0]["user"], other.connects[0]["pass"]) == ("bob", "2")


async def test_a_question_that_could_not_be_sent_leaves_nothing_behind() -> None:
    """The client kept a future for each of them, for ever: too large ones, or those of the time without NATS."""
    async with scripted_nats(max_payload=100) as nats, connect(nats.url, SUBJECTS, "test") as bus:
        for _ in range(3):
            with pytest.raises(nats_errors.MaxPayloadError):
                await bus.client.request("news", b"x" * 101)
        nats.silent = True
        nats.cut()
        await until(lambda: not bus.connected, "the connection is lost")
        for _ in range(3):
            with pytest.raises(nats_errors.ConnectionReconnectingError):
                await bus.client.request("news", b"x")
        assert not bus.client._resp_map


async def test_what_is_subscribed_to_or_not_any_more_while_a_connection_is_opened_counts_on_it() -> None:
    """By then the subscriptions that are to be in force again are on their way."""
    async with scripted_nats() as nats, connect(nats.url, SUBJECTS, "test") as bus:
        old, new = bus.client.subscribe_direct("old", lambda *_: None), list[int]()

        def meanwhile(subject: str) -> None:
            if subject == "old" and not new:
                assert not bus.connected
                new.append(bus.client.subscribe_direct("new", lambda *_: None))
                bus.client.unsubscribe_direct(old)

        await nats.has_subscriber("old")
        nats.on_subscribed = meanwhile
        nats.cut()
        await nats.has_subscriber("new")
        await until(lambda: "old" not in nats.subscribed.values(), "the other is gone")


@pytest.mark.parametrize("headers", [{"A": "b"}, {"A": "\u00e4" * 50, "Nats-Msg-Id": "x" * 60}])
async def test_headers_count_in_what_a_message_may_have(tmp_path: Path, headers: dict[str, str]) -> None:
    """The client counted the data alone, and the server ended the connection."""
    async with nats_server(tmp_path, config="max_payload: 1000") as nats, connect(nats.url, SUBJECTS, "test") as bus:
        taken = 0
        for size in range(700, 1001, 3):
            try:
                await bus.client.publish("news", b"x" * size, headers=headers)
                taken = size
            except nats_errors.MaxPayloadError:
                break
        await bus.round_trip()
        assert bus.losses == 0
        block = 12 + sum(len(name) + len(value.encode()) + 4 for name, value in headers.items())
        assert 1000 - block - 3 < taken <= 1000 - block
