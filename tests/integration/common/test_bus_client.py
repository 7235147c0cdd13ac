"""The client subclass rests on private names of nats-py: these tests fail when they move."""

import asyncio
import signal
from importlib.metadata import version
from pathlib import Path

import httpx
import pytest
from nats.aio.msg import Msg

from tests.support.bus import SUBJECTS, broker, connected
from tests.support.nats import nats_server
from tests.support.ports import free_port
from tests.support.waiting import until
from tidegate_common.bus.connection import connect
from tidegate_common.bus.events.history import History
from tidegate_common.bus.wire import headers
from tidegate_common.bus.wire.tap import Deliver


def collect(into: list[bytes]) -> Deliver:
    return lambda _, __, payload: into.append(payload)


def test_the_version_that_the_subclass_was_written_for_is_installed() -> None:
    assert version("nats-py") == "2.16.0", "read bus/wire/client.py against the new version, then change this line"


async def test_messages_are_handed_over_in_wire_order_across_subscriptions(tmp_path: Path) -> None:
    async with broker(tmp_path) as (_, bus):
        got: list[int] = []
        for letter in "abcd":
            bus.client.subscribe_direct(f"x.{letter}", lambda _, __, payload: got.append(int(payload)))
        for number in range(2000):
            await bus.client.publish(f"x.{'abcd'[number % 4]}", b"%d" % number)
        await until(lambda: len(got) == 2000, "all messages came")
        assert got == list(range(2000))


async def test_requests_are_answered_where_the_server_takes_no_more_subscriptions(tmp_path: Path) -> None:
    """The inbox for answers was made with the first request: past the limit that cost the connection instead."""
    async with (
        nats_server(tmp_path, config="max_subscriptions: 3") as server,
        connect(server.url, SUBJECTS, "asks") as asking,
        connect(server.url, SUBJECTS, "answers") as answering,
    ):

        async def answer(message: Msg) -> None:
            await message.respond(b"a")

        await answering.client.subscribe("q", cb=answer)
        asking.client.subscribe_direct("x", lambda *_: None)
        await asyncio.gather(asking.round_trip(), answering.round_trip())
        assert (await asking.client.request("q", timeout=5)).data == await asking.ask("q") == b"a"
        assert asking.losses == 0


@pytest.mark.parametrize("barrier", ["a request", "a ping"])
async def test_a_subscription_is_in_force_before_what_is_asked_later_is_answered(tmp_path: Path, barrier: str) -> None:
    """nats-py writes a PING past what waits to be written: its PONG came before the server had seen that."""
    async with broker(tmp_path) as (_, bus):
        settled = History(bus).position if barrier == "a request" else bus.round_trip
        for number in range(50):
            got: list[bytes] = []
            sid = bus.client.subscribe_direct(f"x.{number}", collect(got))
            await bus.client.publish(f"x.{number}", b"now")
            await settled()
            assert got == [b"now"]
            bus.client.unsubscribe_direct(sid)
            await bus.client.publish(f"x.{number}", b"later")
            await settled()
            assert got == [b"now"]


async def test_what_is_asked_for_at_the_end_of_a_read_comes_before_the_loop_s_next_turn(tmp_path: Path) -> None:
    async with broker(tmp_path) as (_, bus):
        order: list[str] = []

        def deliver(*_: bytes) -> None:
            asyncio.get_running_loop().call_soon(order.append, "turn")
            bus.client.at_end_of_read(lambda: order.append("end"))
            order.append("event")

        bus.client.subscribe_direct("x", deliver)
        await bus.client.publish("x", b"")
        await until(lambda: len(order) == 3, "all was called")
        assert order == ["event", "end", "turn"]
        bus.client.at_end_of_read(lambda: order.append("nothing read"))
        assert len(order) == 3
        await until(lambda: order[3:] == ["nothing read"], "the loop has called it")


async def test_raw_headers_reach_the_callback(tmp_path: Path) -> None:
    async with broker(tmp_path) as (_, bus):
        got: list[tuple[bytes, bytes, bytes]] = []
        bus.client.subscribe_direct("x", lambda *message: got.append(message))
        await bus.client.publish("x", b"1", headers={"Tidegate-Event": "note"})
        await bus.client.publish("x", b"2")
        await until(lambda: len(got) == 2, "both came")
        assert headers.field(got[0][1], headers.EVENT_TYPE) == b"note"
        assert got[1] == (b"x", b"", b"2")


async def test_subscriptions_outlive_the_server_and_those_who_wait_are_told(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus):
        got: list[bytes] = []
        told: list[str] = []

        async def back() -> None:
            told.append("back")

        bus.on_disconnect.append(lambda: told.append("lost"))
        bus.on_reconnect.append(back)
        bus.client.subscribe_direct("x", lambda _, __, payload: got.append(payload))
        await server.run.stop(signal.SIGKILL)
        await until(lambda: told == ["lost"], "the loss is told")
        assert not bus.connected
        during = bus.client.subscribe_direct("y", lambda _, __, payload: got.append(payload))
        dropped = bus.client.subscribe_direct("z", lambda _, __, payload: got.append(payload))
        bus.client.unsubscribe_direct(dropped)
        async with nats_server(tmp_path, server.port):
            await until(lambda: told == ["lost", "back"], "the return is told", 20)
            for subject in ("x", "y", "z"):
                await bus.client.publish(subject, subject.encode())
            await until(lambda: got == [b"x", b"y"], "both subscriptions are in force again")
            bus.client.unsubscribe_direct(during)
            await bus.round_trip()


async def test_a_callback_is_called_without_a_task_or_a_queue_between(tmp_path: Path) -> None:
    async with broker(tmp_path) as (_, bus):
        await bus.round_trip()  # the tasks of the connection itself have started
        before = len(asyncio.all_tasks())
        for number in range(100):
            bus.client.subscribe_direct(f"x.{number}", lambda *_: None)
        await bus.round_trip()
        assert len(asyncio.all_tasks()) == before


@pytest.mark.parametrize(
    ("service", "inbox"),
    [("gateway", "_INBOX_gateway."), ("publisher-api", "_INBOX_publisher."), ("ai-worker", "_INBOX_worker.")],
)
async def test_answers_to_a_service_come_to_subjects_of_its_own(tmp_path: Path, service: str, inbox: str) -> None:
    """All had one prefix: whoever was allowed to hear answers could hear everybody's."""
    monitor = free_port()
    async with nats_server(tmp_path, monitor_port=monitor) as server, connected(server.url) as test:
        async with connect(server.url, SUBJECTS, service) as bus, httpx.AsyncClient() as http:
            heard: list[str] = []
            test.client.subscribe_direct(">", lambda subject, *_: heard.append(subject.decode()))
            await test.round_trip()
            await bus.ask("$JS.API.INFO")
            await bus.jetstream.account_info()
            await History(bus).position()
            asked = await http.get(f"http://127.0.0.1:{monitor}/connz", params={"subs": "true"})
            mine = [each for each in asked.json()["connections"] if each.get("name") == service]
            subjects = [subject for each in mine for subject in each["subscriptions_list"]]
            await until(lambda: len([each for each in heard if each.startswith(inbox)]) >= 3, "the answers came there")
            assert subjects
            assert all(subject.startswith(inbox) for subject in subjects), subjects
