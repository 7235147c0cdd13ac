"""Receipts: how many connections of all gateways an event was written to."""

import asyncio
import json
from pathlib import Path

import pytest

from gateway.hub.endings import Ending
from tests.integration.publisher_api.support import world
from tests.stress.proxy import Cut, fault_proxy
from tests.support.bus import broker
from tests.support.gateway import open_stream, running_gateway
from tests.support.hub import Peer
from tests.support.publisher import running_publisher
from tests.support.waiting import until
from tidegate_common.bus.events.history import History, Position
from tidegate_common.bus.requests.gateways import AllGateways
from tidegate_common.bus.requests.roll import LEARN_SECONDS
from tidegate_common.bus.streams.definitions import StreamLimits, ensure_streams


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


async def test_who_comes_back_to_a_stream_made_anew_is_counted_by_its_place_there(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        for _ in range(5):
            await w.send(client_id="a")
        async with open_stream(w.one.url, {"client_id": "a"}) as stream:
            await stream.connected()
            await w.bus.jetstream.delete_stream("TG_EVENTS")
            await ensure_streams(w.bus, StreamLimits(), update=False)
            await w.send(client_id="a")
            last = await stream.sent_away()
        async with open_stream(w.one.url, {"client_id": "a"}, {"last-event-id": last}) as stream:
            await stream.next("gap")
            hub = w.one.gateway.hub
            await until(lambda: len(hub.sessions) == 1, "the one before it is gone")
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
            gateway.life.found(await position())  # not its first client: ids are known
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
