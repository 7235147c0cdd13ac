"""What the application may ask of all gateways at once: receipts, presence, and to end connections."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from gateway.hub.endings import Ending
from tests.stress.proxy import Cut, fault_proxy
from tests.support.bus import broker
from tests.support.gateway import RunningGateway, open_stream, running_gateway
from tests.support.hub import Peer
from tests.support.nats import NatsServer, nats_server
from tests.support.publisher import running_publisher
from tests.support.waiting import until
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.control import LEARN_SECONDS, SILENCE_SECONDS, AllGateways, LiveGateways
from tidegate_common.bus.history import History, Position
from tidegate_common.bus.streams import StreamLimits, ensure_streams
from tidegate_common.contract.control import Announcement
from tidegate_common.errors import BrokerUnavailable


class World:
    """Two gateways and a publisher-api on one server."""

    def __init__(
        self, server: NatsServer, bus: Bus, gateways: tuple[RunningGateway, RunningGateway], api: httpx.AsyncClient
    ) -> None:
        self.server = server
        self.bus = bus
        self.one, self.two = gateways
        self.api = api

    async def send(self, **fields: object) -> dict[str, object]:
        answer = await self.api.post("/api/sse/send", json={"event_type": "n", "data": 1, "receipt": True, **fields})
        assert answer.status_code == 202, answer.text
        return dict(answer.json())

    async def connections(self, name: str) -> int:
        answer = await self.api.get(f"/api/presence/{name}")
        assert answer.status_code == 200, answer.text
        return int(answer.json()["connections"])


@asynccontextmanager
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with (
        broker(tmp_path) as (server, bus),
        running_gateway(server.url) as one,
        running_gateway(server.url) as two,
        running_publisher(server.url) as (api, _),
    ):
        yield World(server, bus, (one, two), api)


@pytest.mark.parametrize("durable", [True, False])
async def test_a_receipt_counts_the_connections_of_all_gateways(tmp_path: Path, durable: bool) -> None:
    async with (
        world(tmp_path) as w,
        open_stream(w.one.url, {"client_id": "a", "topic": ["x.y", "x.*"]}) as first,
        open_stream(w.two.url, {"client_id": "a"}) as second,
        open_stream(w.two.url, {"client_id": "b", "topic": "x.>"}) as third,
    ):
        for stream in (first, second, third):
            await stream.connected()
        assert (await w.send(client_id="a", durable=durable))["delivered"] == 2
        assert (await w.send(topic="x.y", durable=durable))["delivered"] == 2
        assert (await w.send(topic="elsewhere", durable=durable))["delivered"] == 0
        broadcast = {"event_type": "n", "data": 1, "durable": durable, "receipt": True}
        assert (await w.api.post("/api/sse/broadcast", json=broadcast)).json()["delivered"] == 3
        assert "delivered" not in await w.send(client_id="a", receipt=False)
        heard = [event.event for event in (await first.next("n"), await second.next("n"), await third.next("n"))]
        assert heard == ["n"] * 3


async def test_who_lives_on_in_a_stream_made_anew_is_counted_by_its_place_there(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        for _ in range(5):
            await w.send(client_id="a")
        async with open_stream(w.one.url, {"client_id": "a"}) as stream:
            await stream.connected()
            await w.bus.jetstream.delete_stream("TG_EVENTS")
            await ensure_streams(w.bus, StreamLimits(), update=False)
            await w.send(client_id="a")
            await stream.next("gap")
            hub = w.one.gateway.hub
            (session,) = hub.sessions
            await until(lambda: session.held is None, "the client has its place in the new stream")
            # As when the feed has a hole just then: the second event of the new life finds the client held.
            held = hub.hold(session)
            sending = asyncio.create_task(w.send(client_id="a"))
            await until(lambda: bool(held.events), "the event is here")
            hub.release(session)
            assert (await sending)["delivered"] == 1


async def test_a_client_whose_place_is_after_the_event_did_not_get_it_and_is_not_counted(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        gateway, peer, answers = w.one.gateway, Peer(), []
        hub, history = gateway.hub, gateway.history
        position = history.position

        async def later() -> Position:
            # The client's subscription is there already: the event comes to it, held, before it is given its place.
            await position()
            answers.append(asyncio.create_task(w.send(client_id="a")))
            await until(lambda: peer.held is not None and bool(peer.held.events), "the event is here")
            return await position()

        async def start() -> None: ...

        history.position = later  # type: ignore[method-assign]
        await gateway.attachments.attach(peer, ["client.a"], None, start, lambda _, __: b"hello")
        assert (await answers[0])["delivered"] == 0
        assert peer.writes == [b"hello"]
        hub.end(peer, Ending.CLIENT)
        peer.lost()


async def test_a_batch_answers_each_line_s_receipt(tmp_path: Path) -> None:
    async with world(tmp_path) as w, open_stream(w.one.url, {"client_id": "a"}) as stream:
        await stream.connected()
        lines = [
            {"client_id": "a", "event_type": "n", "data": 1, "receipt": True},
            {"client_id": "b", "event_type": "n", "data": 1, "receipt": True},
            {"client_id": "a", "event_type": "n", "data": 1},
        ]
        content = "\n".join(map(json.dumps, lines))
        answer = await w.api.post("/api/sse/batch", content=content, headers={"content-type": "application/x-ndjson"})
        results = answer.json()["results"]
        assert [result.get("delivered", "not asked") for result in results] == [1, 0, "not asked"]


async def test_a_repeat_under_one_key_is_not_sent_and_says_that_it_has_no_receipt(tmp_path: Path) -> None:
    async with world(tmp_path) as w, open_stream(w.one.url, {"client_id": "a"}) as stream:
        await stream.connected()
        body = {"client_id": "a", "event_type": "n", "data": 1, "receipt": True}
        answers = [
            (await w.api.post("/api/sse/send", json=body, headers={"idempotency-key": "k"})).json() for _ in range(2)
        ]
        assert [(found["delivered"], found.get("duplicate", False)) for found in answers] == [(1, False), (None, True)]


async def test_what_publisher_api_sends_again_by_itself_is_no_repeat_and_has_its_receipt(tmp_path: Path) -> None:
    async with (
        broker(tmp_path) as (server, _),
        running_gateway(server.url) as gateway,
        fault_proxy(server.port) as way,
    ):
        async with running_publisher(f"nats://127.0.0.1:{way.port}", publish_deadline_seconds=10) as (api, _):
            async with open_stream(gateway.url, {"client_id": "a"}) as stream:
                await stream.connected()
                (link,) = way.links
                link.pause(True)
                body = {"client_id": "a", "event_type": "n", "data": 1, "receipt": True}
                sending = asyncio.create_task(api.post("/api/sse/send", json=body))
                assert (await stream.next()).data == "1"
                link.end(Cut.RST)  # the stream's confirmation is lost
                answer = (await sending).json()
                assert answer["id"] == stream.events[-1].id
                assert (answer["delivered"], answer.get("duplicate")) == (1, None)


async def test_a_sum_that_lacks_a_gateway_says_so(tmp_path: Path) -> None:
    async with world(tmp_path) as w, open_stream(w.one.url, {"client_id": "a"}) as stream:
        await stream.connected()
        assert (await w.api.get("/api/presence/clients/a")).json() == {"connections": 1}
        w.bus.client.publish_direct(w.bus.subjects.gateways, b'{"gateway":"one that hangs"}')
        await History(w.bus).position()
        assert (await w.api.get("/api/presence/clients/a")).json() == {"connections": 1, "incomplete": True}
        answer = await w.send(client_id="a")
        assert (answer["delivered"], answer["incomplete"]) == (1, True)
        assert (await w.api.delete("/api/presence/clients/a")).json() == {"ended": 1, "incomplete": True}


async def test_once_the_gateways_are_known_no_answer_waits_for_a_time_to_pass(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        now = [0.0]
        gateways = AllGateways(w.bus, lambda: now[0])
        now[0] = LEARN_SECONDS  # and stays there: nobody is forgotten for being silent, who leaves has to say so
        await until(lambda: len(gateways.live.now()) == 2, "both have announced themselves")
        async with asyncio.timeout(10):
            assert await gateways.presence("client.nobody", 60) == (0, True)
            assert await gateways.delivered("client.nobody", "none", 60) == (0, True)
            await w.one.stop()
            await w.one.gateway.control.aclose()
            await until(lambda: len(gateways.live.now()) == 1, "one has left")
            assert await gateways.presence("client.nobody", 60) == (0, True)


async def test_presence_counts_each_connection_once_over_all_gateways(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        wanted = {"user_id": "ann/1@example.org", "topic": ["x.y", "x.*"]}
        async with open_stream(w.one.url, wanted) as first, open_stream(w.two.url, wanted) as second:
            await first.connected()
            await second.connected()
            assert await w.connections("users/ann%2F1@example.org") == 2
            assert await w.connections("topics/x.y") == 2
            assert await w.connections("topics/x.z") == 2
            assert await w.connections("topics/y") == 0
            assert await w.connections("clients/nobody") == 0
            await second.close()
            await until(lambda: len(w.two.gateway.hub.sessions) == 0, "its gateway has seen it go")
            assert await w.connections("users/ann%2F1@example.org") == 1


async def test_a_client_whose_connections_are_ended_is_told_not_to_come_back(tmp_path: Path) -> None:
    async with (
        world(tmp_path) as w,
        open_stream(w.one.url, {"client_id": "a"}) as first,
        open_stream(w.two.url, {"client_id": "a", "user_id": "u"}) as second,
        open_stream(w.two.url, {"client_id": "b"}) as other,
    ):
        for stream in (first, second, other):
            await stream.connected()
        await w.send(client_id="a")
        answer = await w.api.delete("/api/presence/clients/a")
        assert (answer.status_code, answer.json()) == (200, {"ended": 2})
        for stream in (first, second):
            assert (await stream.next()).event == "n"
            closing = json.loads((await stream.next()).data)
            assert (closing["reason"], closing["reconnect"]) == ("kicked", False)
            await until(lambda stream=stream: stream.ended, "the stream ends")
        assert (await w.api.delete("/api/presence/users/u")).json() == {"ended": 0}
        assert not other.ended
        assert w.one.gateway.hub.ended["kicked"] == 1


@pytest.mark.parametrize(
    ("method", "name", "status"),
    [
        ("GET", "topics/x.*", 422),
        ("GET", "topics/x..y", 422),
        ("GET", "users/" + "x" * 300, 422),
        ("DELETE", "topics/x", 405),
        ("GET", "jobs/x", 404),
        ("GET", "clients/", 422),
    ],
)
async def test_a_name_that_is_not_allowed_is_refused(tmp_path: Path, method: str, name: str, status: int) -> None:
    async with broker(tmp_path) as (server, _), running_publisher(server.url) as (api, _):
        answer = await api.request(method, f"/api/presence/{name}")
        assert answer.status_code == status, answer.text
        if status == 422:
            assert answer.json()["field"] == "name"


async def test_without_nats_presence_is_unknown_rather_than_0(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.server.run.stop(signal.SIGKILL)
        answer = await w.api.get("/api/presence/clients/a")
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0


async def test_nats_going_away_ends_the_waiting_and_who_is_there_is_learned_anew(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus):
        now = [0.0]
        gateways = AllGateways(bus, lambda: now[0])
        gateways.live.said(Announcement("one that will not answer"))
        now[0] = LEARN_SECONDS
        heard: list[bytes] = []
        bus.client.subscribe_direct(bus.subjects.presence, lambda subject, header, payload: heard.append(payload))
        asking = asyncio.create_task(gateways.presence("client.a", 60))
        await until(lambda: bool(heard), "the question is out")
        await server.run.stop(signal.SIGKILL)
        with pytest.raises(BrokerUnavailable):
            async with asyncio.timeout(10):
                await asking
        async with nats_server(tmp_path, server.port):
            await until(lambda: bus.connected and not gateways.live.known, "the connection is back")
            assert gateways.live.now() == set()


def test_a_gateway_that_says_nothing_for_some_time_is_forgotten() -> None:
    now = [0.0]
    live = LiveGateways(lambda: now[0])
    live.said(Announcement("a"))
    live.said(Announcement("b"))
    now[0] = SILENCE_SECONDS - 0.1
    live.said(Announcement("b"))
    assert live.now() == {"a", "b"}
    now[0] = SILENCE_SECONDS + 0.1
    assert live.now() == {"b"}


async def test_what_somebody_else_writes_to_the_control_subjects_harms_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as w, open_stream(w.one.url, {"client_id": "a"}) as stream:
        await stream.connected()
        subjects = w.bus.subjects
        for subject in (subjects.presence, subjects.receipts, subjects.kick, subjects.gateways):
            for payload in (b"", b"{", b"[]", b'{"asker":"a b","number":1,"tail":"client.a"}'):
                await w.bus.client.publish(subject, payload)
        await History(w.bus).position()
        assert await w.connections("clients/a") == 1
        assert not stream.ended
