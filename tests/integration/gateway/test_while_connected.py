"""What becomes of an open stream when its token ends, or is taken back: it ends, and coming back loses nothing."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
from joserfc.jwk import RSAKey
from msgspec.structs import replace

from tests.stress.proxy import Cut, fault_proxy
from tests.support.bus import broker
from tests.support.gateway import RunningGateway, Stream, open_stream, running_gateway
from tests.support.identity import AUTH, bearer, token
from tests.support.signing import claims, signed
from tests.support.waiting import until
from tests.support.ways import BOTH_PATHS
from tests.support.wire import read_answer
from tidegate_common.auth.keyset import RS256, VerifyingKey
from tidegate_common.auth.revocations import Revocations
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.history import History
from tidegate_common.bus.events.publisher import EventPublisher
from tidegate_common.bus.jobs.records import JobRecords
from tidegate_common.contract.events import Event
from tidegate_common.contract.ids import EventId
from tidegate_common.contract.jobs import JobState, JobStatus
from tidegate_common.contract.revocation import Revocation
from tidegate_common.contract.subjects import client_tail

HOUR = 3600.0
JOB = "0123456789abcdef0123456789abcdef"


@asynccontextmanager
async def asked(data: Path, **settings: Any) -> AsyncIterator[tuple[RunningGateway, Bus]]:
    async with broker(data) as (server, bus), running_gateway(server.url, **AUTH, **settings) as running:
        yield running, bus


async def tell(bus: Bus, data: str, tail: str = "user.ann") -> str:
    return (await EventPublisher(bus, History(bus)).durable(tail, Event("n", data), headers={})).id


def later(running: RunningGateway, seconds: float) -> None:
    """The time by which the gateway ends streams is so much ahead."""
    running.gateway.expiry._clock = lambda: time.time() + seconds


async def job_of(bus: Bus, owner: str = "user.ann", tail: str = f"job.{JOB}") -> None:
    position = await History(bus).position()
    start = str(EventId(position.epoch, position.last))
    state = JobState(job_id=JOB, kind="chat", status=JobStatus.RUNNING, created=1, updated=1)
    await JobRecords(bus).create(replace(state, owner=owner, tail=tail, start=start))


async def closing(stream: Stream) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((await stream.next("closing")).data)
    await until(lambda: stream.ended, "the stream ends")
    return found


@BOTH_PATHS
async def test_a_stream_ends_with_its_token_and_a_new_one_goes_on_from_the_last_id(
    tmp_path: Path, streams: str
) -> None:
    async with asked(tmp_path, streams=streams, auth_leeway_seconds=0) as (running, bus):
        async with open_stream(running.url, None, bearer(token("ann", seconds=2))) as stream:
            await stream.connected()
            had = await tell(bus, "1")
            told = await closing(stream)
            assert (told["reason"], told["reconnect"], 1000 <= told["retry"] <= 3000) == ("token_expired", True, True)
            assert [event.event for event in stream.events] == ["connected", "n", "closing"]
            assert stream.events[-1].id == had
        await tell(bus, "2")
        back = {**bearer(token("ann")), "Last-Event-ID": had}
        async with open_stream(running.url, None, back) as stream:
            assert (await stream.connected())["resumed"]
            assert (await stream.next("n")).data == "2"
        assert running.gateway.hub.ended["token_expired"] == 1


@BOTH_PATHS
async def test_a_stream_is_told_before_its_token_ends(tmp_path: Path, streams: str) -> None:
    async with asked(tmp_path, streams=streams) as (running, bus):
        await job_of(bus)
        for path in ("/api/sse", f"/api/sse/jobs/{JOB}"):
            async with open_stream(running.url, None, bearer(token("ann", seconds=HOUR)), path=path) as stream:
                await stream.connected()
                later(running, HOUR + 10 - 25)  # the leeway counts as well
                event = await stream.next()
                assert event.event == "expiring"
                assert 20 <= json.loads(event.data)["seconds"] <= 25
                later(running, HOUR + 11)
                assert (await closing(stream))["reason"] == "token_expired"
                later(running, 0)
        async with open_stream(running.url, None, bearer(token("ann"))) as stream:
            await stream.connected()
            assert running.gateway.expiry.waiting == 1
        await until(lambda: not running.gateway.hub.sessions, "all are gone")
        assert running.gateway.expiry.waiting == 0


@BOTH_PATHS
async def test_a_token_that_ends_in_the_middle_of_a_replay_loses_nothing(tmp_path: Path, streams: str) -> None:
    """Who comes back has an id of somewhere in it: the rest comes, each event once."""
    most = {"max_backlog_bytes": 65_536, "socket_send_bytes": 32_768}
    async with asked(tmp_path, streams=streams, **most) as (running, bus):
        first = await tell(bus, "0")
        expected = [await tell(bus, f"{number} " + "x" * 20_000) for number in range(1, 300)]
        lines = [
            "GET /api/sse HTTP/1.1",
            f"Host: 127.0.0.1:{httpx.URL(running.url).port}",
            f"Authorization: Bearer {token('ann')}",
            f"Last-Event-ID: {first}",
        ]
        reader, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(running.url).port, limit=65_536)
        writer.write("\r\n".join([*lines, "", ""]).encode())
        await until(
            lambda: any(each.paused for each in running.gateway.hub.sessions), "the replay waits for the client"
        )
        later(running, HOUR + 11)
        await until(lambda: any(each.ending for each in running.gateway.hub.sessions), "the stream is ended")
        told = await read_answer(reader, False, lambda received: received.event == "closing")
        received = [each for each in told.events if each.event]
        assert json.loads(received[-1].data)["reason"] == "token_expired"
        writer.close()
        had = [each.id for each in received if each.event == "n"]
        later(running, 0)
        back = {**bearer(token("ann")), "Last-Event-ID": received[-1].id or ""}
        async with open_stream(running.url, None, back) as stream:
            await stream.connected()
            while len(had) < len(expected):
                had.append((await stream.next("n")).id)
        assert had == expected


async def test_a_token_that_ends_while_nats_is_away_loses_nothing(tmp_path: Path) -> None:
    """Its stream ends then too, and whoever comes back with a new token gets what was stored meanwhile."""
    async with broker(tmp_path) as (server, bus), fault_proxy(server.port) as way:
        async with running_gateway(f"nats://127.0.0.1:{way.port}", **AUTH) as running:
            async with open_stream(running.url, None, bearer(token("ann"))) as stream:
                await stream.connected()
                had = await tell(bus, "1")
                await stream.next("n")
                way.refusing = True
                way.cut_all(Cut.RST)
                await until(lambda: not running.bus.connected, "NATS is out of reach")
                await tell(bus, "2")
                later(running, HOUR + 11)
                assert (await closing(stream))["reason"] == "token_expired"
                assert stream.events[-1].id == had
            later(running, 0)
            way.refusing = False
            await until(lambda: running.bus.connected, "NATS is back")
            async with open_stream(running.url, None, {**bearer(token("ann")), "Last-Event-ID": had}) as stream:
                await stream.connected()
                assert (await stream.next("n")).data == "2"


@BOTH_PATHS
async def test_a_replay_is_of_what_the_token_of_that_moment_may_hear(tmp_path: Path, streams: str) -> None:
    """An event's id is no right, whoever had it and whatever was granted then."""
    async with asked(tmp_path, streams=streams) as (running, bus):
        first = await tell(bus, "0", "topic.prices.eur")
        for tail in ("user.ann", "topic.prices.eur", "user.bob"):
            await tell(bus, tail, tail)
        async with open_stream(running.url, None, {**bearer(token("bob")), "Last-Event-ID": first}) as stream:
            assert (await stream.connected())["resumed"]
            assert (await stream.next("n")).data == "user.bob"
        for grants, status in ((["topic:prices.*"], 200), ([], 403)):
            headers = {**bearer(token("ann", subscribe=grants)), "Last-Event-ID": first}
            async with httpx.AsyncClient() as client:
                url = f"{running.url}/api/sse?topic=prices.eur"
                async with client.stream("GET", url, headers=headers) as response:
                    assert response.status_code == status


REVOKED: list[tuple[str, str, dict[str, Any]]] = [
    ("sub", "ann", {}),
    ("jti", "t1", {"jti": "t1"}),
    ("client_id", "laptop", {"client": "laptop"}),
]


@BOTH_PATHS
async def test_what_is_revoked_ends_its_streams_and_no_others(tmp_path: Path, streams: str) -> None:
    """Each kind, of the stream and of a job's own, which the same client has open."""
    async with asked(tmp_path, streams=streams) as (running, bus):
        await job_of(bus)
        for kind, value, more in REVOKED:
            headers = bearer(token("ann", **more))
            async with AsyncExitStack() as stack:
                opened = [
                    await stack.enter_async_context(open_stream(running.url, None, headers, path=path))
                    for path in ("/api/sse", f"/api/sse/jobs/{JOB}")
                ]
                other = await stack.enter_async_context(
                    open_stream(running.url, {"user_id": "ann"}, bearer(token("bob", subscribe=["user:ann"])))
                )
                for stream in (*opened, other):
                    await stream.connected()
                await running.revoke(kind, value)
                for stream in opened:
                    told = await closing(stream)
                    assert (told["reason"], told["reconnect"], told["retry"] > HOUR * 1000) == ("revoked", False, True)
                await tell(bus, kind)
                assert (await other.next("n")).data == kind, "who is not meant goes on"
            async with httpx.AsyncClient() as client:
                response = await client.get(f"{running.url}/api/sse", headers=headers)
                assert (response.status_code, response.json()["reason"]) == (401, "revoked")
            await running.take_back(kind, value)
        await until(lambda: not running.gateway.hub.sessions, "all are gone")
        assert running.gateway.hub.ended["revoked"] == 2 * len(REVOKED)


async def test_a_made_client_is_revoked_too_while_it_watches_a_job(tmp_path: Path) -> None:
    """A job's own stream says nowhere else which client it is of."""
    async with asked(tmp_path) as (running, bus):
        await job_of(bus)
        headers = bearer(token("ann"))
        async with open_stream(running.url, None, headers, path=f"/api/sse/jobs/{JOB}") as stream:
            made = (await stream.connected())["client_id"]
            async with open_stream(running.url, None, headers, path=f"/api/sse/jobs/{JOB}") as other:
                await other.connected()
                await running.revoke("client_id", made)
                assert (await closing(stream))["reason"] == "revoked"
                assert not other.ended
        await until(lambda: not running.gateway.hub.sessions, "both are gone")
        assert not running.gateway.streams._withdrawals._watchers


async def test_tokens_that_are_issued_later_are_good(tmp_path: Path) -> None:
    async with asked(tmp_path) as (running, _):
        now = int(time.time())
        before, after = (bearer(token("ann", iat=now + shift)) for shift in (-60, -20))
        async with open_stream(running.url, None, before) as old, open_stream(running.url, None, after) as new:
            await old.connected()
            await new.connected()
            await running.revoke("sub", "ann", now - 40)
            assert (await closing(old))["reason"] == "revoked"
            assert not new.ended


RSA = RSAKey.generate_key(2048)


def public(kid: str) -> VerifyingKey:
    return VerifyingKey(RSAKey.import_key(RSA.as_dict(private=False)), RS256, frozenset({"RS256"}), kid)


@pytest.mark.parametrize("reason", ["revoked", "expired", "kid"])
async def test_what_ends_while_a_request_is_read_opens_no_stream(tmp_path: Path, reason: str) -> None:
    """The token was good when the head came, and the body took longer than that."""
    async with asked(tmp_path, auth_leeway_seconds=0) as (running, _):
        seconds = 1.0 if reason == "expired" else HOUR
        ends = time.time() + seconds
        good = token("ann", seconds=seconds)
        tokens = running.gateway.identity.authenticator.tokens
        if reason == "kid":
            tokens.use([public("1")])
            good = signed(claims(), {"alg": "RS256", "kid": "1"}, RSA)
        head = {**bearer(good), "Content-Type": "application/json"}
        begun = asyncio.Event()
        go_on = asyncio.Event()

        async def body() -> AsyncIterator[bytes]:
            yield b"{"
            begun.set()
            await go_on.wait()
            yield b"}"

        async with httpx.AsyncClient() as client:
            asking = asyncio.ensure_future(client.post(f"{running.url}/api/sse", headers=head, content=body()))
            await begun.wait()
            counts = running.gateway.identity.authenticator
            await until(lambda: counts.results["ok"] == 1, "the token was looked at")
            if reason == "revoked":
                await running.revoke("sub", "ann")
            if reason == "kid":
                tokens.use([public("2")])
            await until(lambda: reason != "expired" or time.time() > ends, "the token has ended")
            go_on.set()
            response = await asking
        assert (response.status_code, response.json()["reason"]) == (401, reason)
        assert not running.gateway.hub.sessions
        assert not running.gateway.admission.active
        assert running.gateway.admission.total == 0
        assert not any(running.gateway.admission.refused.values()), "nothing was wrong with the gateway"


@BOTH_PATHS
async def test_who_is_revoked_while_being_attached_gets_nothing(tmp_path: Path, streams: str) -> None:
    """The stream waits for NATS, which does not answer yet."""
    async with broker(tmp_path) as (server, bus), fault_proxy(server.port) as way:
        async with running_gateway(f"nats://127.0.0.1:{way.port}", streams=streams, **AUTH) as running:
            first = await tell(bus, "secret")
            held = asyncio.Event()
            position = running.gateway.life.first_position

            async def waited() -> Any:
                await held.wait()
                return await position()

            running.gateway.life.first_position = waited  # type: ignore[method-assign]
            async with httpx.AsyncClient() as client:
                headers = {**bearer(token("ann")), "Last-Event-ID": f"{EventId.parse(first).epoch}-0"}  # type: ignore[union-attr]
                asking = asyncio.ensure_future(client.get(f"{running.url}/api/sse", headers=headers))
                await until(lambda: bool(running.gateway.hub.sessions), "it is being attached")
                await running.revoke("sub", "ann")
                held.set()
                response = await asking
            assert "secret" not in response.text
            assert "revoked" in response.text


async def test_while_nats_is_away_the_last_known_list_holds(tmp_path: Path) -> None:
    """What is revoked meanwhile counts as soon as it can be known."""
    async with broker(tmp_path) as (server, bus), fault_proxy(server.port) as way:
        async with running_gateway(f"nats://127.0.0.1:{way.port}", **AUTH) as running:
            elsewhere = Revocations(bus, HOUR)
            await elsewhere.revoke("sub", "bob")
            known = running.gateway.identity.revocations
            await until(lambda: bool(known._by_key), "the gateway knows of bob")
            async with open_stream(running.url, None, bearer(token("ann"))) as stream:
                await stream.connected()
                way.refusing = True
                way.cut_all(Cut.RST)
                await until(lambda: not running.bus.connected, "NATS is out of reach")
                await elsewhere.revoke("sub", "ann")
                async with httpx.AsyncClient() as client:
                    response = await client.get(f"{running.url}/api/sse", headers=bearer(token("bob")))
                    assert (response.status_code, response.json()["reason"]) == (401, "revoked")
                assert not stream.ended
                way.refusing = False
                assert (await closing(stream))["reason"] == "revoked"


async def test_whom_revocations_meet_is_found_whatever_they_name(tmp_path: Path) -> None:
    """As the list itself says it, for any of them."""
    async with asked(tmp_path) as (running, _):
        async with AsyncExitStack() as stack:
            tokens = [token("ann", jti="t1", client="laptop"), token("ann", jti="t2"), token("bob", client="phone")]
            opened = [await stack.enter_async_context(open_stream(running.url, None, bearer(each))) for each in tokens]
            for stream in opened:
                await stream.connected()
            running.gateway.streams._withdrawals.revoke(
                [Revocation(jti="t1", before=1.0), Revocation(client_id="phone"), Revocation(key="ann")]
            )
            await closing(opened[2])
            assert [stream.ended for stream in opened] == [False, False, True]


KEY, OTHER_KEY = (f"tgk_shop_{letter * 43}" for letter in "ab")


def keys_file(path: Path, *keys: str, grants: Sequence[str], expires: str = "") -> None:
    digests = [sha256(key.encode()).hexdigest() for key in keys]
    lines = ["[[key]]", 'id = "shop"', f"sha256 = {json.dumps(digests)}", f"subscribe = {json.dumps(list(grants))}"]
    path.write_text("\n".join([*lines, expires] if keys else []))


@BOTH_PATHS
async def test_a_key_whose_rights_change_keeps_what_they_cover(tmp_path: Path, streams: str) -> None:
    """A stream with less than it hears ends; one whose rights are as good goes on, with the new ones."""
    file = tmp_path / "keys.toml"
    keys_file(file, KEY, OTHER_KEY, grants=["topic:a", "topic:b", "user:*", "jobs:*"])
    async with asked(tmp_path / "nats", streams=streams, api_keys_file=str(file)) as (running, bus):
        await job_of(bus)
        async with AsyncExitStack() as stack:

            async def opened(path: str, key: str = KEY) -> Stream:
                stream = await stack.enter_async_context(open_stream(running.url, None, bearer(key), path=path))
                await stream.connected()
                return stream

            wide, narrow = await opened("/api/sse?topic=a&topic=b"), await opened("/api/sse?topic=a")
            job, user = await opened(f"/api/sse/jobs/{JOB}"), await opened("/api/sse?user_id=ann", OTHER_KEY)
            keys_file(file, KEY, OTHER_KEY, grants=["topic:a", "user:ann"])
            for stream in (wide, job):
                assert (await closing(stream))["reason"] == "revoked"
            for stream, tail in ((narrow, "topic.a"), (user, "user.ann")):
                await tell(bus, "1", tail)
                assert (await stream.next("n")).data == "1"
            keys_file(file, OTHER_KEY, grants=["topic:a", "user:ann"])
            assert (await closing(narrow))["reason"] == "revoked"
            assert not user.ended
            keys_file(file, OTHER_KEY, grants=["user:ann"], expires="expires = 2020-01-01T00:00:00Z")
            assert (await closing(user))["reason"] == "token_expired"


@BOTH_PATHS
async def test_a_ticket_grants_no_more_than_its_key_does_still(tmp_path: Path, streams: str) -> None:
    file = tmp_path / "keys.toml"
    keys_file(file, KEY, grants=["topic:a", "topic:b"])
    async with asked(tmp_path / "nats", streams=streams, api_keys_file=str(file)) as (running, _):
        identity = running.gateway.identity
        assert identity.authenticator.keys is not None
        principal = identity.authenticator.keys.principal(KEY)
        tickets = []
        for topic in ("a", "b"):
            client_id = identity.client_ids.make(principal)
            tails, names = (f"topic.{topic}", client_tail(client_id)), (f"topic:{topic}", f"client:{client_id}")
            tickets.append((await identity.tickets.issue(principal, client_id=client_id, tails=tails, names=names))[0])
        async with AsyncExitStack() as stack:
            opened = [
                await stack.enter_async_context(open_stream(running.url, {"ticket": ticket})) for ticket in tickets
            ]
            for stream in opened:
                await stream.connected()
            keys_file(file, KEY, grants=["topic:a"])
            assert (await closing(opened[1]))["reason"] == "revoked"
            assert not opened[0].ended
        async with httpx.AsyncClient() as client:
            response = await client.get(f"{running.url}/api/sse", params={"ticket": tickets[1]})
            assert (response.status_code, response.json()["reason"]) == (401, "revoked")
        async with open_stream(running.url, {"ticket": tickets[0]}) as stream:
            assert (await stream.connected())["listening"][0] == "topic:a"
            keys_file(file, KEY, grants=["topic:a"], expires="expires = 2020-01-01T00:00:00Z")
            assert (await closing(stream))["reason"] == "revoked"
        async with httpx.AsyncClient() as client:
            response = await client.get(f"{running.url}/api/sse", params={"ticket": tickets[0]})
            assert (response.status_code, response.json()["reason"]) == (401, "revoked")
