"""Presence over all gateways, and ending a client's connections."""

import asyncio
import json
import signal
from pathlib import Path

import pytest

from tests.integration.publisher_api.support import world
from tests.support.bus import broker
from tests.support.gateway import open_stream
from tests.support.nats import nats_server
from tests.support.publisher import running_publisher
from tests.support.waiting import until
from tidegate_common.bus.events.history import History
from tidegate_common.bus.requests.gateways import AllGateways
from tidegate_common.bus.requests.roll import LEARN_SECONDS
from tidegate_common.contract.gateways import Announcement
from tidegate_common.errors import BrokerUnavailable


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
            last = await stream.next()
            closing = json.loads(last.data)
            assert (closing["reason"], closing["reconnect"]) == ("kicked", False)
            assert (last.retry or 0) >= 6 * 3_600_000, "EventSource, which reads no data of ours, stays away too"
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
