"""deploy/nats.conf: the whole product works under it, and no service's user may do what its service does not."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import nats as nats_py
import pytest

from tests.support.bus import SUBJECTS
from tests.support.certificates import certificates
from tests.support.gateway import Stream, open_stream
from tests.support.identity import SECRET, bearer, token
from tests.support.least_rights import CONFIG, as_user, password
from tests.support.nats import NatsServer, nats_with_least_rights
from tests.support.ports import free_port
from tests.support.processes import Running, service
from tests.support.waiting import until
from tidegate_common.bus.connection import connect
from tidegate_common.bus.streams.definitions import StreamLimits, ensure_streams
from tidegate_common.errors import BrokerUnavailable

ADMIN = ["presence", "kick", "dead", "revoke", "events", "ops"]
BOSS = token(
    "boss", subscribe=["topic:>", "broadcast"], publish=["user:*", "client:*", "topic:>", "broadcast"], admin=ADMIN
)
BUDGET = {"max_tokens": 1000, "tokens_per_day": 100_000, "concurrent": 3}
ANN = token("ann", subscribe=["topic:news.>", "broadcast"], jobs=BUDGET)

SERVICES = {"publisher_api": "publisher", "ai_worker": "worker", "gateway": "gateway"}


class Product(NamedTuple):
    """Its services, each as its own user, and who asks them."""

    gateway: str
    boss: httpx.AsyncClient
    """At publisher-api, with every right."""
    ann: httpx.AsyncClient
    """There too, as a user."""
    runs: dict[str, Running]


@asynccontextmanager
async def product(nats_url: str, env: Mapping[str, str]) -> AsyncIterator[Product]:
    async with AsyncExitStack() as stack:
        ports, runs = {module: free_port() for module in SERVICES}, {}
        for module, user in SERVICES.items():
            settings = {
                "TIDEGATE_NATS_URL": as_user(nats_url, user),
                "TIDEGATE_AUTH": "token",
                "TIDEGATE_AUTH_SECRET": SECRET,
                "TIDEGATE_AI_BACKEND": "scripted",
                "TIDEGATE_DRAIN_SECONDS": "2",
                **env,
            }
            runs[module] = await stack.enter_async_context(service(module, ports[module], settings))
        at = f"http://127.0.0.1:{ports['publisher_api']}"
        boss = await stack.enter_async_context(httpx.AsyncClient(base_url=at, headers=bearer(BOSS), timeout=20))
        ann = await stack.enter_async_context(httpx.AsyncClient(base_url=at, headers=bearer(ANN), timeout=20))
        yield Product(f"http://127.0.0.1:{ports['gateway']}", boss, ann, runs)


async def posted(client: httpx.AsyncClient, path: str, body: Any) -> dict[str, Any]:
    answer = await client.post(path, json=body)
    assert answer.status_code in (200, 201, 202), (path, answer.status_code, answer.text)
    return dict(answer.json())


async def publishes(made: Product, stream: Stream, number: int) -> None:
    """Every way to publish, and what comes of it. `number` tells this time from others."""
    sent = await posted(
        made.boss, "/api/sse/send", {"user_id": "ann", "event_type": "note", "data": f"{number}", "receipt": True}
    )
    assert sent["delivered"] == 1, sent
    assert (await stream.next("note")).data == f"{number}"
    await posted(made.boss, "/api/sse/send", {"topic": "news.eu", "event_type": "price", "data": "1", "durable": False})
    await stream.next("price")
    await posted(made.boss, "/api/sse/broadcast", {"event_type": "all", "data": "x"})
    await stream.next("all")
    lines = [
        {"user_id": "ann", "event_type": "line", "data": "1"},
        {"topic": "news.eu", "event_type": "line", "data": "2"},
    ]
    answer = await made.boss.post(
        "/api/sse/batch",
        content="\n".join(map(json.dumps, lines)),
        headers={"Content-Type": "application/x-ndjson"},
    )
    assert answer.status_code == 200, answer.text
    for _ in lines:
        await stream.next("line")


async def jobs(made: Product, stream: Stream) -> None:
    """A chat to its end, one that is watched and cancelled, one that dies and is tried again."""
    await posted(made.ann, "/api/ai/chat", {"user_id": "ann", "messages": [{"role": "user", "content": "hi"}]})
    await stream.next("ai_response")
    long = {"messages": [{"role": "user", "content": "word " * 400}]}
    job_id = (await posted(made.ann, "/api/ai/chat", long))["job_id"]
    async with open_stream(made.gateway, headers=bearer(ANN), path=f"/api/sse/jobs/{job_id}") as own:
        await own.next("ai_response")
        assert (await made.ann.get(f"/api/ai/chat/{job_id}")).status_code == 200
        assert (await made.ann.delete(f"/api/ai/chat/{job_id}")).status_code in (200, 202)
        await until(lambda: own.ended, "the job's stream ends")
    failing = {"user_id": "ann", "messages": [{"role": "user", "content": "[fail] " + "word " * 50}]}
    dead = (await posted(made.ann, "/api/ai/chat", failing))["job_id"]
    await stream.next("ai_error")

    async def kept() -> bool:
        listed = (await made.boss.get("/api/ai/dead")).json()
        return any(each["job_id"] == dead for each in listed["jobs"])

    await until(kept, "the dead job is kept")
    await posted(made.boss, f"/api/ai/dead/{dead}/retry", {})
    await stream.next("ai_error")
    assert (await made.boss.delete(f"/api/ai/dead/{dead}")).status_code in (200, 204, 404)


async def completions(made: Product) -> None:
    """/v1, as a whole and streamed, and one whose asker leaves."""
    ask: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
    async with httpx.AsyncClient(base_url=made.gateway, headers=bearer(ANN), timeout=20) as client:
        models = (await client.get("/v1/models")).json()["data"]
        ask["model"] = models[0]["id"]
        assert (await client.post("/v1/chat/completions", json=ask)).status_code == 200
        ask = {**ask, "stream": True, "messages": [{"role": "user", "content": "word " * 400}]}
        async with client.stream("POST", "/v1/chat/completions", json=ask) as answer:
            assert answer.status_code == 200
            async for _ in answer.aiter_lines():
                break


async def identity(made: Product) -> None:
    """A ticket, and a user who is sent away."""
    ticket = (await posted(made.ann, "/api/auth/tickets", {"topic": "news.eu"}))["ticket"]
    async with open_stream(made.gateway, {"ticket": ticket}) as stream:
        await stream.connected()
        await posted(made.boss, "/api/sse/send", {"topic": "news.eu", "event_type": "price", "data": "1"})
        await stream.next("price")
    async with open_stream(made.gateway, headers=bearer(token("bob"))) as stream:
        await stream.connected()
        await posted(made.boss, "/api/auth/revocations", {"sub": "bob"})
        assert json.loads((await stream.next("closing")).data)["reason"] == "revoked"
    assert (await made.boss.get("/api/auth/revocations")).json()["total"] == 1
    assert (await made.boss.delete("/api/auth/revocations", params={"sub": "bob"})).status_code == 204


async def all_done(nats_url: str) -> None:
    """Returns when no job is in the queue any more."""
    async with connect(as_user(nats_url, "operator"), SUBJECTS, "test") as bus:

        async def empty() -> bool:
            return (await bus.jetstream.stream_info("TG_JOBS")).state.messages == 0

        await until(empty, "all jobs are done, or cancelled")


async def walk(nats: NatsServer, made: Product) -> str:
    """What a stream, and who publishes, may see in a day; gives the last id."""
    headers = bearer(ANN)
    async with open_stream(made.gateway, {"topic": "news.>"}, headers) as stream:
        await stream.connected()
        await publishes(made, stream, 1)
        await jobs(made, stream)
        last = stream.events[-1].id or next(each.id for each in reversed(stream.events) if each.id)
        assert (await made.boss.get("/api/presence/users/ann")).json()["connections"] == 1
        assert (await made.boss.delete("/api/presence/users/ann")).status_code in (200, 202)
        await until(lambda: stream.ended, "it is kicked")
    await identity(made)
    await completions(made)
    await all_done(nats.url)
    return last


async def test_the_product_works_with_least_rights(tmp_path: Path) -> None:
    """A server that has refused anything fails the test in the end (tests/support/nats.py)."""
    port = free_port()
    async with AsyncExitStack() as stack:
        async with nats_with_least_rights(tmp_path, port) as nats:
            made = await stack.enter_async_context(product(nats.url, {}))
            last = await walk(nats, made)
        async with nats_with_least_rights(tmp_path, port):
            await until(partial(is_ready, made), "NATS is back", 20)
            await posted(made.boss, "/api/sse/send", {"user_id": "ann", "event_type": "late", "data": "x"})
            headers = {**bearer(ANN), "Last-Event-ID": last}
            async with open_stream(made.gateway, {"topic": "news.>"}, headers) as stream:
                await stream.connected()
                await stream.next("late")
                await publishes(made, stream, 2)
            await stack.aclose()
    for run in made.runs.values():
        assert not run.said("ermissions"), run.output


async def is_ready(made: Product) -> bool:
    return (await made.boss.get("/readyz")).status_code == 200


async def test_it_works_so_with_tls_certificates_of_clients_and_an_encrypted_store(tmp_path: Path) -> None:
    """As docs/operations.md has it."""
    files = certificates(tmp_path / "certificates")
    more = files.of_server("verify: true") + '\njetstream { cipher: chacha, key: "a key of the tests", '
    env = {
        "TIDEGATE_NATS_CA_FILE": str(files.ca),
        "TIDEGATE_NATS_CERT_FILE": str(files.client),
        "TIDEGATE_NATS_KEY_FILE": str(files.client_key),
    }
    data = tmp_path / "nats"
    async with nats_with_least_rights(data, free_port(), replaced={"jetstream {": more}) as nats:
        url = nats.url.replace("nats://", "tls://")
        async with product(url, env) as made, open_stream(made.gateway, headers=bearer(ANN)) as stream:
            await stream.connected()
            body = {"user_id": "ann", "event_type": "note", "data": "a word that nobody else has"}
            await posted(made.boss, "/api/sse/send", body)
            await stream.next("note")
    stored = b"".join(file.read_bytes() for file in data.rglob("*") if file.is_file())
    assert b"a word that nobody else has" not in stored


EVERYBODY = (
    "$JS.API.STREAM.DELETE.TG_EVENTS",
    "$JS.API.STREAM.PURGE.TG_EVENTS",
    "$JS.API.STREAM.MSG.DELETE.TG_EVENTS",
    "$JS.API.STREAM.SNAPSHOT.TG_EVENTS",
    "$JS.API.STREAM.CREATE.OTHER",
    "$JS.API.STREAM.UPDATE.OTHER",
    "$JS.API.CONSUMER.CREATE.TG_EVENTS",
    "$JS.API.CONSUMER.CREATE.TG_EVENTS.mine",
    "$JS.API.CONSUMER.DURABLE.CREATE.TG_EVENTS.mine",
    "$JS.API.CONSUMER.DELETE.TG_JOBS.workers-0",
    "$JS.API.ACCOUNT.PURGE.$G",
    "$JS.EVENT.ADVISORY.STREAM.DELETED.TG_EVENTS",
    "$SYS.REQ.SERVER.PING",
    "tg.ctl.revoked.x",
    "tg.ctl.tickets.x",
    "other",
)
"""What nobody may write to."""

ALL = (">", "*.>", "tg.>", "tg.*.>", "tg.in.>", "tg.jobs.>", "tg.ctl.>", "$JS.>", "$KV.>", "$SYS.>", "_INBOX.>", "*")
"""What nobody may hear."""

NOT_PUBLISHER = ("$JS.API.STREAM.CREATE.TG_EVENTS", "$JS.API.STREAM.UPDATE.TG_EVENTS", "tg.ctl.kick", "tg.ctl.receipts")

WRITES = {
    "publisher": (
        *EVERYBODY,
        "tg.in.fence.x",
        "tg.ctl.gateways",
        "tg.ctl.answers.x",
        "tg.ctl.holder.x",
        "$KV.TG_JOBS_DEAD.x",
        "$JS.API.STREAM.MSG.GET.KV_TG_TICKETS",
        "$JS.ACK.TG_JOBS.workers-0.1.1.1.1.1",
        "$JS.API.CONSUMER.MSG.NEXT.TG_JOBS.workers-0",
        "$JS.API.CONSUMER.DURABLE.CREATE.TG_JOBS.workers-0",
        "_INBOX_gateway.x",
        "_INBOX_worker.x",
    ),
    "gateway": (
        *EVERYBODY,
        *NOT_PUBLISHER,
        "tg.in.user.ann",
        "tg.in.client.ann",
        "tg.in.topic.a",
        "tg.in.broadcast",
        "tg.in.fence.x",
        "tg.out.user.ann",
        "tg.out.broadcast",
        "tg.jobs.report.0.x",
        "tg.ctl.presence",
        "$KV.TG_AUTH.x",
        "$KV.TG_REVOKED.x",
        "$KV.TG_JOBS_DEAD.x",
        "$JS.ACK.TG_JOBS.workers-0.1.1.1.1.1",
        "$JS.API.CONSUMER.MSG.NEXT.TG_JOBS.workers-0",
        "$JS.API.STREAM.MSG.GET.TG_JOBS",
        "$JS.API.STREAM.MSG.GET.KV_TG_JOBS_DEAD",
        "$JS.API.DIRECT.GET.KV_TG_JOBS_DEAD",
        "_INBOX_publisher.x",
        "_INBOX_worker.x",
    ),
    "worker": (
        *EVERYBODY,
        *NOT_PUBLISHER,
        "tg.out.user.ann",
        "tg.out.topic.a",
        "tg.out.broadcast",
        "tg.out.job.x",
        "tg.jobs.chat.0.x",
        "tg.ctl.gateways",
        "tg.ctl.answers.x",
        "tg.ctl.cancel.x",
        "$KV.TG_AUTH.x",
        "$KV.TG_REVOKED.x",
        "$KV.TG_TICKETS.x",
        "$JS.API.STREAM.MSG.GET.KV_TG_AUTH",
        "$JS.API.STREAM.MSG.GET.KV_TG_TICKETS",
        "$JS.API.STREAM.MSG.GET.KV_TG_JOBS_DEAD",
        "$JS.API.DIRECT.GET.KV_TG_JOBS_DEAD",
        "tg.in.broadcast",
        "$JS.API.STREAM.PURGE.KV_TG_JOBS_DEAD",
        "_INBOX_gateway.x",
        "_INBOX_publisher.x",
    ),
}

HEARS = {
    "publisher": (*ALL, "_INBOX_gateway.>", "_INBOX_worker.>", "tg.out.>", "tg.ctl.kick", "tg.ctl.holder.*"),
    "gateway": (*ALL, "_INBOX_publisher.>", "_INBOX_worker.>", "tg.out.>", "tg.ctl.answers.*", "tg.ctl.cancel.*"),
    "worker": (*ALL, "_INBOX_gateway.>", "_INBOX_publisher.>", "tg.out.>", "tg.out.user.ann", "tg.ctl.kick"),
}


@asynccontextmanager
async def client_of(url: str, user: str) -> AsyncIterator[tuple[Any, list[str]]]:
    """A connection as that user, and what NATS says to it."""
    said: list[str] = []

    async def hear(error: Exception) -> None:
        said.append(str(error))

    client = await nats_py.connect(as_user(url, user), error_cb=hear, allow_reconnect=False)
    try:
        yield client, said
    finally:
        await client.close()


@pytest.mark.parametrize("user", WRITES)
async def test_no_user_may_do_what_its_service_does_not(tmp_path: Path, user: str) -> None:
    async with nats_with_least_rights(tmp_path, free_port(), violations=True) as nats:
        async with connect(as_user(nats.url, "publisher"), SUBJECTS, "publisher-api") as bus:
            await ensure_streams(bus, StreamLimits(identity=True), update=True)
        async with client_of(nats.url, user) as (client, said):
            for subject in WRITES[user]:
                await client.publish(subject, b"x")
                assert f'permissions violation for publish to "{subject.lower()}"' in await answer(said), subject
            for subject in HEARS[user]:
                await client.subscribe(subject)
                assert f'permissions violation for subscription to "{subject.lower()}"' in await answer(said), subject


async def answer(said: list[str]) -> str:
    """What NATS says to what was just sent."""
    await until(lambda: said, "NATS refuses it", 2)
    return said.pop().lower()


async def test_a_worker_can_not_hear_what_a_gateway_is_answered(tmp_path: Path) -> None:
    """With one prefix for all, `_INBOX.>` brought every answer: events, records, keys."""
    async with nats_with_least_rights(tmp_path, free_port(), violations=True) as nats:
        async with connect(as_user(nats.url, "publisher"), SUBJECTS, "publisher-api") as bus:
            await ensure_streams(bus, StreamLimits(), update=True)
        async with client_of(nats.url, "operator") as (all_seeing, _), client_of(nats.url, "worker") as (worker, _):
            seen: list[str] = []
            heard: list[str] = []

            async def see(message: Any) -> None:
                seen.append(message.subject)

            async def hear(message: Any) -> None:
                heard.append(message.subject)

            await all_seeing.subscribe("_INBOX_gateway.>", cb=see)
            for subject in ("_INBOX_gateway.>", "_INBOX.>", ">"):
                await worker.subscribe(subject, cb=hear)
            await asyncio.gather(all_seeing.flush(), worker.flush())
            async with connect(as_user(nats.url, "gateway"), SUBJECTS, "gateway") as bus:
                await bus.api.call("STREAM.INFO.TG_EVENTS")
            await until(lambda: seen, "the answer came, where it was to come")
            await worker.flush()
            assert heard == []


async def test_a_user_without_a_password_or_with_anothers_is_refused(tmp_path: Path) -> None:
    """That of tests is the operator; there is none in the file itself."""
    assert "no_auth_user" not in CONFIG.read_text()
    async with nats_with_least_rights(tmp_path, free_port(), replaced={"no_auth_user: operator": ""}) as nats:
        wrong = as_user(nats.url, "gateway").replace("gateway:", "worker:")
        for url in (nats.url, wrong, nats.url.replace("//", "//nobody:x@")):
            with pytest.raises(BrokerUnavailable, match="NATS refuses user and password"):
                async with connect(url, SUBJECTS, "gateway", connect_seconds=1):
                    pass


async def test_a_right_that_a_newer_release_needs_is_named(tmp_path: Path) -> None:
    """The file of an older release was in use: a start ended with "JetStream does not answer", and no more."""
    lacking = "$JS.API.STREAM.INFO.KV_TG_AUTH"
    replaced = {f'"{lacking}"': '"$JS.API.STREAM.INFO.OTHER"'}
    async with nats_with_least_rights(tmp_path, free_port(), replaced=replaced, violations=True) as nats:
        async with connect(as_user(nats.url, "publisher"), SUBJECTS, "publisher-api") as bus:
            with pytest.raises(BrokerUnavailable, match=f"not allow this process to write to {re.escape(lacking)}"):
                await ensure_streams(bus, StreamLimits(identity=True), update=True)
            with pytest.raises(BrokerUnavailable, match="write to"):
                await bus.api.call("STREAM.INFO.KV_TG_AUTH", seconds=1)


async def test_a_user_who_is_added_without_rights_has_none(tmp_path: Path) -> None:
    users = {"  users: [": f"  users: [ {{ user: other, password: {password('other')} }}"}
    async with nats_with_least_rights(tmp_path, free_port(), replaced=users, violations=True) as nats:
        async with client_of(nats.url, "other") as (client, said):
            await client.publish("other", b"x")
            assert "permissions violation for publish" in await answer(said)
            await client.subscribe("other")
            assert "permissions violation for subscription" in await answer(said)
