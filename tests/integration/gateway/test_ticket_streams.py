"""Streams that are opened with a ticket: no header says who asks, as the browser's own EventSource can send none."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.bus import SUBJECTS
from tests.support.gateway import RunningGateway, Stream, open_stream, running_gateway
from tests.support.identity import AUTH, bearer, token
from tests.support.nats import NatsServer, nats_server
from tests.support.publisher import running_publisher
from tests.support.streams import make_streams
from tests.support.waiting import until
from tests.support.ways import BOTH_PATHS
from tidegate_common.bus.connection import Bus, connect
from tidegate_common.bus.events.history import History
from tidegate_common.bus.events.publisher import EventPublisher
from tidegate_common.bus.streams.definitions import StreamLimits
from tidegate_common.contract.events import Event
from tidegate_common.contract.subjects import topic_tail, user_tail
from tidegate_common.contract.tickets import digest_of, new_ticket
from tidegate_common.runtime.tasks import end

ANN = token("ann", subscribe=["topic:a", "topic:b", "broadcast"])


class World:
    """A publisher-api, gateways, and a connection to publish by."""

    def __init__(self, nats: NatsServer, api: httpx.AsyncClient, bus: Bus, gateways: list[RunningGateway]) -> None:
        self.nats = nats
        self.api = api
        self.bus = bus
        self.gateways = gateways
        self.url = gateways[0].url

    async def ticket(self, credential: str = ANN, **wish: Any) -> str:
        made = await self.api.post("/api/auth/tickets", json=wish, headers=bearer(credential))
        assert made.status_code == 201, made.text
        assert made.headers["cache-control"] == "no-store"
        return str(made.json()["ticket"])

    async def status(
        self, query: str, path: str = "/api/sse", gateway: int = 0, **request: Any
    ) -> tuple[int, dict[str, Any]]:
        """Of a request that opens no stream."""
        async with httpx.AsyncClient() as client:
            response = await client.request(
                request.pop("method", "GET"), f"{self.gateways[gateway].url}{path}?{query}", **request
            )
        return response.status_code, response.json() if response.content else {}

    async def tell(self, tail: str, data: str) -> None:
        await EventPublisher(self.bus, History(self.bus)).durable(tail, Event("n", data), headers={})

    def sessions(self) -> int:
        return sum(len(each.gateway.hub.sessions) for each in self.gateways)

    def replaced(self) -> int:
        return sum(each.gateway.hub.ended["replaced"] for each in self.gateways)


@asynccontextmanager
async def world(data: Path, gateways: int = 1, **settings: Any) -> AsyncIterator[World]:
    chosen = {**AUTH, **settings}
    shared = {name: value for name, value in chosen.items() if name.startswith("auth")}
    async with nats_server(data) as nats, running_publisher(nats.url, **shared) as (api, bus):
        async with running_gateway(nats.url, **chosen) as one:
            if gateways == 1:
                yield World(nats, api, bus, [one])
                return
            async with running_gateway(nats.url, **chosen) as other:
                yield World(nats, api, bus, [one, other])


def stream(running: RunningGateway | str, ticket: str, **more: Any) -> Any:
    url = running if isinstance(running, str) else running.url
    return open_stream(url, params={"ticket": ticket, **more})


async def ended(found: Stream) -> dict[str, Any]:
    closing = json.loads((await found.next("closing")).data)
    await until(lambda: found.ended, "the stream ends")
    return dict(closing)


@BOTH_PATHS
async def test_a_ticket_alone_hears_what_it_was_asked_for(tmp_path: Path, streams: str) -> None:
    async with world(tmp_path, streams=streams) as w, stream(w.url, await w.ticket(topic="a")) as found:
        told = await found.connected()
        names = ["broadcast", f"client:{told['client_id']}", "user:ann", "topic:a"]
        assert told["listening"] == names
        await w.tell(topic_tail("b"), "not asked for")
        await w.tell(topic_tail("a"), "asked for")
        await w.tell(user_tail("ann"), "her own")
        assert [(await found.next("n")).data for _ in range(2)] == ["asked for", "her own"]


@BOTH_PATHS
async def test_names_beside_a_ticket_narrow_it_and_never_widen_it(tmp_path: Path, streams: str) -> None:
    async with world(tmp_path, streams=streams) as w:
        ticket = await w.ticket(topic=["a", "b"], client_id=None)
        async with stream(w.url, ticket, topic="a") as found:
            assert (await found.connected())["listening"][2:] == ["user:ann", "topic:a"]
        narrow = await w.ticket(topic="a")
        for query, needed in (
            ("topic=b", "subscribe topic:b"),
            ("topic=>", "subscribe topic:>"),
            ("topic=a&topic=b", "subscribe topic:b"),
            ("user_id=bob", "subscribe user:bob"),
            ("client_id=bob", "subscribe client:bob"),
        ):
            status, problem = await w.status(f"ticket={narrow}&{query}")
            assert (status, problem["needed"]) == (403, needed), query
        assert not w.sessions()


async def test_a_ticket_is_for_one_client_and_not_for_others_of_its_owner(tmp_path: Path) -> None:
    """Ann may come as each client that was made for her. Her ticket may not: it was asked for one of them."""
    async with world(tmp_path) as w:
        async with open_stream(w.url, headers=bearer(ANN)) as found:
            others = (await found.connected())["client_id"]
        status, problem = await w.status(f"ticket={await w.ticket()}&client_id={others}")
        assert (status, problem["needed"]) == (403, f"subscribe client:{others}")
        async with stream(w.url, await w.ticket(client_id=others)) as found:
            assert (await found.connected())["client_id"] == others


async def test_who_comes_back_with_a_ticket_loses_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        ticket = await w.ticket(topic="a")
        async with stream(w.url, ticket) as found:
            first = await found.next("connected")
            await w.tell(topic_tail("a"), "one")
            last = (await found.next("n")).id
        await until(lambda: not w.sessions(), "the gateway has noticed")
        await w.tell(topic_tail("a"), "two")
        async with open_stream(w.url, params={"ticket": ticket}, headers={"Last-Event-ID": last}) as found:
            told = await found.connected()
            assert told["resumed"]
            assert told["client_id"] == json.loads(first.data)["client_id"]
            assert (await found.next("n")).data == "two"
        assert w.replaced() == 0


@pytest.mark.parametrize("second", [0, 1])
async def test_a_second_use_ends_the_first_stream_on_whichever_gateway_that_is(tmp_path: Path, second: int) -> None:
    async with world(tmp_path, gateways=2) as w:
        ticket = await w.ticket()
        async with stream(w.url, ticket) as former:
            await former.connected()
            async with stream(w.gateways[second], ticket) as later:
                await later.connected()
                closing = await ended(former)
                assert (closing["reason"], closing["reconnect"]) == ("replaced", False)
                assert closing["retry"] >= 6 * 3_600_000, "or the two would replace each other for ever"
                await w.tell(user_tail("ann"), "to the later one")
                assert (await later.next("n")).data == "to the later one"
        assert w.replaced() == 1


async def test_of_many_uses_in_one_moment_one_stream_is_left(tmp_path: Path) -> None:
    async with world(tmp_path, gateways=2) as w:
        ticket = await w.ticket()
        async with AsyncExitStack() as stack:

            async def use(number: int) -> list[Stream]:
                try:
                    return [await stack.enter_async_context(stream(w.gateways[number % 2], ticket))]
                except AssertionError:  # 503: five others have come in between, each time
                    return []

            found = [each for opened in await asyncio.gather(*map(use, range(6))) for each in opened]
            await until(lambda: sum(not each.ended for each in found) == 1, "one is left")
            [left] = [each for each in found if not each.ended]
            await w.tell(user_tail("ann"), "to one alone")
            assert (await left.next("n")).data == "to one alone"
            assert w.replaced() == len(found) - 1
        await until(lambda: not w.sessions(), "all have gone")
        assert not any(each.gateway.ticket_uses._uses for each in w.gateways), "nothing is kept of who has gone"


async def test_a_use_that_was_not_heard_is_found(tmp_path: Path) -> None:
    """The second gateway writes its use while the first is cut off from NATS."""
    async with world(tmp_path, gateways=2) as w:
        ticket = await w.ticket()
        async with stream(w.url, ticket) as former:
            await former.connected()
            first = w.gateways[0]
            first.bus.client.unsubscribe_direct(first.gateway.ticket_uses.subscription)
            async with stream(w.gateways[1], ticket) as later:
                await later.connected()
                assert not former.ended
                for listener in first.bus.on_reconnect:
                    await listener()
                assert (await ended(former))["reason"] == "replaced"


async def test_uses_are_heard_of_in_a_bucket_that_was_made_anew(tmp_path: Path) -> None:
    """Its places begin again: each use was taken for one after a hole, and had all tickets asked for."""
    async with world(tmp_path, gateways=2) as w:
        for _ in range(3):
            async with stream(w.url, await w.ticket()) as found:
                await found.connected()
        async with connect(w.nats.url, SUBJECTS, "test") as bus:  # no service may
            await bus.api.call("STREAM.DELETE.KV_TG_TICKETS")
        await make_streams(w.nats.url, w.bus.subjects, StreamLimits(identity=True))
        ticket = await w.ticket()
        async with stream(w.url, ticket) as former, stream(w.gateways[1], ticket) as later:
            await later.connected()
            assert (await ended(former))["reason"] == "replaced"
        await w.ticket()
        last = (await w.bus.api.call("STREAM.INFO.KV_TG_TICKETS"))["state"]["last_seq"]
        for each in w.gateways:
            uses = each.gateway.ticket_uses
            await until(lambda uses=uses: uses._upto == last and not uses._lookout.behind, "nothing is missing")


async def test_a_refused_request_is_no_use_of_its_ticket(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        ticket = await w.ticket(topic="a")
        async with stream(w.url, ticket) as found:
            await found.connected()
            for query in ("topic=b", "topics=a", "topic=", "last_event_id=%FF"):
                assert (await w.status(f"ticket={ticket}&{query}"))[0] in (403, 422)
            assert (await w.status(f"ticket={ticket}", method="HEAD"))[0] == 200
            await w.tell(topic_tail("a"), "still there")
            assert (await found.next("n")).data == "still there"
        assert w.replaced() == 0


@BOTH_PATHS
async def test_nothing_is_waited_for_on_account_of_who_has_gone(tmp_path: Path, streams: str) -> None:
    async with world(tmp_path, streams=streams, publish_deadline_seconds=60) as w:
        ticket = await w.ticket()
        await w.nats.run.stop(signal.SIGKILL)
        leaders = w.gateways[0].gateway.history.leaders
        await until(lambda: not w.gateways[0].bus.connected, "NATS is away")
        async with httpx.AsyncClient() as client:
            asking = asyncio.create_task(client.get(f"{w.url}/api/sse?ticket={ticket}", timeout=60))
            await until(lambda: leaders.waiting == 1, "the ticket's record is waited for")
            await end([asking])
        await until(lambda: leaders.waiting == 0, "nobody waits any more")


@BOTH_PATHS
async def test_a_ticket_that_is_no_good_gets_401_with_its_reason(tmp_path: Path, streams: str) -> None:
    async with world(tmp_path, streams=streams) as w:
        for text in (new_ticket(), "", "x", "%00", "tgk_x_y", ANN):
            status, problem = await w.status(f"ticket={text}")
            assert (status, problem["reason"]) == (401, "unknown"), text
            assert text in ("", "x") or text not in json.dumps(problem)
        ticket = await w.ticket()
        assert (await w.status(f"ticket={ticket}&ticket={ticket}"))[0] == 400
        assert (await w.status(f"TICKET={ticket}"))[1]["reason"] == "missing"
        w.gateways[0].gateway.identity.tickets._clock = lambda: 9e9
        status, problem = await w.status(f"ticket={ticket}")
        assert (status, problem["reason"]) == (401, "expired")


async def test_a_token_counts_before_a_ticket(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        ticket = await w.ticket(topic="a")
        async with open_stream(w.url, params={"ticket": ticket}, headers=bearer(token("bob"))) as found:
            assert (await found.connected())["listening"][-1] == "user:bob"
        assert (await w.status(f"ticket={ticket}", headers=bearer("no token")))[0] in (400, 401)


async def test_nothing_but_a_get_of_a_stream_reads_a_ticket(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        ticket = await w.ticket()
        assert (await w.status(f"ticket={ticket}", method="POST", json={}))[1]["reason"] == "missing"
        for path in ("/metrics", "/nothing"):
            assert (await w.status(f"ticket={ticket}", path))[0] == 401, path
        for path in ("/api/sse/send", "/api/auth/tickets"):
            assert (await w.api.post(f"{path}?ticket={ticket}", json={})).status_code == 401, path


@pytest.mark.parametrize(("kind", "value"), [("sub", "ann"), ("jti", "t1"), ("client_id", "laptop")])
async def test_what_is_revoked_for_its_token_is_revoked_for_a_ticket(tmp_path: Path, kind: str, value: str) -> None:
    async with world(tmp_path) as w:
        ticket = await w.ticket(token("ann", jti="t1", client="laptop"))
        async with stream(w.url, ticket) as found:
            await found.connected()
            await w.gateways[0].revoke(kind, value)
            assert (await ended(found))["reason"] == "revoked"
        status, problem = await w.status(f"ticket={ticket}")
        assert (status, problem["reason"]) == (401, "revoked")


async def test_a_stream_ends_with_the_token_that_its_ticket_was_asked_for_with(tmp_path: Path) -> None:
    async with world(tmp_path, auth_leeway_seconds=0) as w:
        ticket = await w.ticket(token("ann", seconds=2))
        async with stream(w.url, ticket) as found:
            assert (await ended(found))["reason"] == "token_expired"


async def test_a_ticket_needs_a_token_and_the_rights_to_its_stream(tmp_path: Path) -> None:
    async with world(tmp_path) as w:

        async def refused(body: Any, **headers: str) -> tuple[int, dict[str, Any]]:
            answer = await w.api.post("/api/auth/tickets", json=body, headers=headers)
            return answer.status_code, answer.json()

        assert (await refused({}))[0] == 401
        assert (await refused({}, Cookie="tidegate=x"))[1]["reason"] == "missing", "no cookie is read here"
        ann = bearer(ANN)
        for body, status, fact in (
            ({"topic": "c"}, 403, ("needed", "subscribe topic:c")),
            ({"topic": ["a", ">"]}, 403, ("needed", "subscribe topic:>")),
            ({"user_id": "bob"}, 403, ("needed", "subscribe user:bob")),
            ({"client_id": "bob"}, 403, ("needed", "subscribe client:bob")),
            ({"topic": "a..b"}, 422, ("field", "topic")),
            ({"topics": "a"}, 422, ("field", "topics")),
            ({"job_id": "1", "topic": "a"}, 422, ("field", "job_id")),
            ({"job_id": "none"}, 404, ("title", "Not found")),
        ):
            found, problem = await refused(body, **ann)
            assert (found, problem[fact[0]]) == (status, fact[1]), body
        stored = await w.bus.api.call("STREAM.INFO.KV_TG_TICKETS")
        assert stored["state"]["messages"] == 0


async def test_a_job_ticket_opens_that_jobs_stream_alone(tmp_path: Path) -> None:
    ann = token("ann", jobs={})
    async with world(tmp_path) as w:
        jobs = []
        for _ in range(2):
            made = await w.api.post("/api/ai/chat", json={"prompt": "hello"}, headers=bearer(ann))
            jobs.append(made.json()["job_id"])
        other = await w.api.post("/api/auth/tickets", json={"job_id": jobs[0]}, headers=bearer(token("bob", jobs={})))
        assert other.status_code == 404
        ticket = await w.ticket(ann, job_id=jobs[0])
        async with open_stream(w.url, params={"ticket": ticket}, path=f"/api/sse/jobs/{jobs[0]}") as found:
            assert (await found.connected())["job_id"] == jobs[0]
        assert (await w.status(f"ticket={ticket}", f"/api/sse/jobs/{jobs[1]}"))[0] == 404
        for names in ("", "&user_id=ann", "&topic=a", "&client_id=ann"):
            assert (await w.status(f"ticket={ticket}{names}"))[0] == 403, names
        streams = await w.ticket(ann)
        assert (await w.status(f"ticket={streams}", f"/api/sse/jobs/{jobs[0]}"))[0] == 404, "it is for another stream"


async def test_connects_are_limited_for_each_subject(tmp_path: Path) -> None:
    async with world(tmp_path, limit_connects="0.01/2") as w:
        codes = [(await w.status("", headers=bearer(token("ann")), method="HEAD"))[0] for _ in range(3)]
        assert codes == [200, 200, 429]
        status, problem = await w.status("topic=not.granted", headers=bearer(ANN))
        assert (status, problem["limit"]) == (429, "connects"), "before the request is read"
        assert (await w.status("", headers=bearer(token("bob")), method="HEAD"))[0] == 200
        assert w.gateways[0].gateway.identity.limits.refused()["connects"] == 2


async def test_in_the_mode_open_there_are_no_tickets(tmp_path: Path) -> None:
    async with world(tmp_path, auth="open") as w:
        assert (await w.status("ticket=x"))[1]["field"] == "ticket"
        assert (await w.status("ticket=x&ticket=y"))[0] == 422, "an unknown parameter as any"
    async with nats_server(tmp_path / "other") as nats, running_publisher(nats.url) as (api, _):
        assert (await api.post("/api/auth/tickets", json={})).status_code == 404


async def test_the_bucket_knows_a_ticket_by_its_hash(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        ticket = await w.ticket()
        assert await w.gateways[0].bus.api.message("KV_TG_TICKETS", last_by_subj=f"$KV.TG_TICKETS.{digest_of(ticket)}")
