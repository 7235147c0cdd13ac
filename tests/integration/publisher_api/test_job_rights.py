"""Whose a job is: who may ask for it, whom it may address, and who may look at it or cancel it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.bus import SUBJECTS, broker
from tests.support.identity import AUTH, bearer, token
from tests.support.publisher import running_publisher
from tidegate_common.auth.client_id_key import ClientIdKey
from tidegate_common.auth.client_ids import ClientIds
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.jobs.dead import DeadJobs
from tidegate_common.bus.jobs.queue_info import stream_state
from tidegate_common.bus.jobs.records import JobRecords
from tidegate_common.bus.requests.bucket import Bucket
from tidegate_common.contract.jobs import DeadJob, Job
from tidegate_common.contract.principal import Principal

CHAT: dict[str, Any] = {"prompt": "hi"}
JOB: dict[str, Any] = {"kind": "chat", "params": {"messages": []}}
ANY: dict[str, Any] = {}


def chats(sub: str, **claims: Any) -> dict[str, str]:
    return bearer(token(sub, jobs=ANY, **claims))


@asynccontextmanager
async def publisher(tmp_path: Path) -> AsyncIterator[tuple[httpx.AsyncClient, Bus]]:
    async with broker(tmp_path) as (server, _), running_publisher(server.url, **AUTH) as found:
        yield found


async def queued(bus: Bus) -> int:
    return (await stream_state(bus, ">")).messages


async def started(api: httpx.AsyncClient, headers: dict[str, str], **body: Any) -> str:
    answer = await api.post("/api/ai/chat", json={**CHAT, **body}, headers=headers)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["job_id"])


async def statuses(api: httpx.AsyncClient, job_id: str, headers: dict[str, str]) -> list[int]:
    """What looking and cancelling give, under both addresses."""
    calls = [(method, f"/api/ai/{kind}/{job_id}") for kind in ("chat", "jobs") for method in ("GET", "DELETE")]
    return [(await api.request(method, path, headers=headers)).status_code for method, path in calls]


@pytest.mark.parametrize(("path", "body"), [("/api/ai/chat", CHAT), ("/api/ai/jobs", JOB)])
async def test_a_job_needs_the_right(tmp_path: Path, path: str, body: dict[str, Any]) -> None:
    async with publisher(tmp_path) as (api, bus):
        without = token("ann", publish=["user:*", "client:*", "topic:>", "broadcast"], admin=["dead"])
        refused = await api.post(path, json=body, headers=bearer(without))
        assert (refused.status_code, refused.json()["needed"]) == (403, "jobs")
        assert await queued(bus) == 0
        assert (await api.post(path, json=body, headers=chats("ann"))).status_code == 202


async def test_a_job_may_address_the_own_user_and_any_other_target_needs_the_right_to_publish(tmp_path: Path) -> None:
    async with publisher(tmp_path) as (api, bus):
        for body, needed in (
            ({"user_id": "bob"}, "publish user:bob"),
            ({"client_id": "ann"}, "publish client:ann"),
            ({"topic": "ann"}, "publish topic:ann"),
        ):
            refused = await api.post("/api/ai/chat", json={**CHAT, **body}, headers=chats("ann", subscribe=["topic:>"]))
            assert (refused.status_code, refused.json()["needed"]) == (403, needed)
        assert await queued(bus) == 0
        await started(api, chats("ann"), user_id="ann")
        await started(api, chats("ann"))
        await started(api, chats("ann", client="laptop"), client_id="laptop")
        await started(api, chats("ann", publish=["user:bob"]), user_id="bob")
        assert await queued(bus) == 4


async def test_a_client_id_that_was_made_for_a_user_is_their_own(tmp_path: Path) -> None:
    async with publisher(tmp_path) as (api, bus):
        ids = ClientIds()
        await ClientIdKey(bus, ids, makes=False).read()
        made = ids.make(Principal("user:ann", subject="ann"))
        job_id = await started(api, chats("ann"), client_id=made)
        refused = await api.post("/api/ai/chat", json={**CHAT, "client_id": made}, headers=chats("bob"))
        assert (refused.status_code, refused.json()["needed"]) == (403, f"publish client:{made}")
        assert await statuses(api, job_id, chats("bob")) == [404] * 4


async def test_the_owner_of_a_users_jobs_is_the_user_whatever_they_address(tmp_path: Path) -> None:
    async with publisher(tmp_path) as (api, bus):
        asked = chats("ann", publish=["user:bob", "topic:room"])
        for body in ({}, {"user_id": "ann"}, {"user_id": "bob"}, {"topic": "room"}):
            state = await JobRecords(bus).get(await started(api, asked, **body))
            assert state.owner == "user.ann"
        assert (await stream_state(bus, SUBJECTS.jobs(owner="user.ann"))).subjects.keys() == {
            f"tg.jobs.chat.{level}.user.ann" for level in (0, 1)
        }


async def test_a_job_is_seen_by_its_owner_by_whom_it_addresses_and_by_who_may_see_all(tmp_path: Path) -> None:
    async with publisher(tmp_path) as (api, _):
        job_id = await started(api, chats("ann", publish=["user:bob"]), user_id="bob")
        for sees in (
            bearer(token("ann")),
            bearer(token("bob")),
            bearer(token("eve", subscribe=["jobs:*"])),
            bearer(token("eve", publish=["jobs:*"])),
        ):
            answer = await api.get(f"/api/ai/jobs/{job_id}", headers=sees)
            assert answer.status_code == 200
            assert not {"owner", "holder", "request"} & set(answer.json())
        everything_else = {
            "subscribe": ["user:*", "client:*", "topic:>", "broadcast"],
            "publish": ["user:*", "client:*", "topic:>", "broadcast"],
            "admin": ["dead", "presence", "kick", "revoke", "events", "ops", "metrics"],
        }
        assert await statuses(api, job_id, chats("eve", **everything_else)) == [404] * 4
        assert (await api.get(f"/api/ai/jobs/{job_id}", headers=bearer(token("ann")))).json()["status"] == "queued"
        assert await statuses(api, job_id, bearer(token("bob"))) == [200, 200, 200, 200]
        assert (await api.get(f"/api/ai/jobs/{job_id}", headers=bearer(token("ann")))).json()["status"] == "cancelled"


async def test_anothers_job_is_told_as_one_that_is_not_there(tmp_path: Path) -> None:
    """Word by word: else whoever tries ids would learn which there are."""
    async with publisher(tmp_path) as (api, bus):
        theirs = await started(api, chats("ann"))
        unreadable = "1" * 32
        await Bucket(bus, SUBJECTS.jobs_bucket).put(unreadable, b"{")
        for method in ("GET", "DELETE"):
            answers = []
            for job_id in ("0" * 32, theirs, unreadable):
                answer = await api.request(method, f"/api/ai/jobs/{job_id}", headers=chats("eve"))
                answers.append((answer.status_code, re.sub(f"{job_id}|[0-9a-f]{{32}}", "<id>", answer.text)))
            assert answers[0][0] == 404
            assert answers[0] == answers[1] == answers[2]
        one_who_may = await api.get(f"/api/ai/jobs/{unreadable}", headers=bearer(token("eve", subscribe=["jobs:*"])))
        assert "can't be read" in one_who_may.json()["detail"]


async def test_anothers_job_takes_as_many_questions_as_none(tmp_path: Path) -> None:
    """So it takes as long: nobody learns by the time which jobs there are."""
    async with broker(tmp_path) as (server, watcher), running_publisher(server.url, **AUTH) as (api, _):
        theirs = await started(api, chats("ann"))
        heard: list[str] = []
        for subjects in ("$JS.API.STREAM.MSG.>", "$JS.API.DIRECT.>", "$KV.>", "tg.>"):
            watcher.client.subscribe_direct(subjects, lambda subject, *_: heard.append(subject.decode()))
        await watcher.round_trip()
        for method in ("GET", "DELETE"):
            for job_id in ("0" * 32, theirs):
                heard.clear()
                answer = await api.request(method, f"/api/ai/jobs/{job_id}", headers=chats("eve"))
                assert answer.status_code == 404
                await watcher.round_trip()
                assert heard == [f"$JS.API.STREAM.MSG.GET.KV_{SUBJECTS.jobs_bucket}"]


async def test_anothers_key_is_not_theirs(tmp_path: Path) -> None:
    """With Ann's Idempotency-Key, Bob was given the id of her job."""
    async with publisher(tmp_path) as (api, bus):
        key = {"Idempotency-Key": "k"}
        first = await started(api, {**chats("ann"), **key})
        assert await started(api, {**chats("ann"), **key}) == first
        other = await started(api, {**chats("bob"), **key})
        assert other != first
        assert await statuses(api, first, chats("bob")) == [404] * 4
        reused = await api.post("/api/ai/chat", json={"prompt": "ho"}, headers={**chats("ann"), **key})
        assert (reused.status_code, reused.json()["field"]) == (422, "Idempotency-Key")
        assert await queued(bus) == 2


async def test_more_tokens_than_the_claim_allows_are_refused_and_none_named_gets_the_claims(tmp_path: Path) -> None:
    async with publisher(tmp_path) as (api, bus):
        limited = bearer(token("ann", jobs={"kinds": ["chat"], "models": ["small"], "max_tokens": 10}))
        for body, needed in (
            ({"model": "small", "max_tokens": 11}, "jobs max_tokens 11"),
            ({"model": "large", "max_tokens": 5}, "jobs model large"),
        ):
            refused = await api.post("/api/ai/chat", json={**CHAT, **body}, headers=limited)
            assert (refused.status_code, refused.json().get("needed")) == (403, needed)
        other = {"kind": "transform", "params": {}}
        refused = await api.post("/api/ai/jobs", json=other, headers=limited)
        assert (refused.status_code, refused.json()["needed"]) == (403, "jobs kind transform")
        assert await queued(bus) == 0
        await started(api, limited, model="small")
        found = await bus.jetstream.get_msg(SUBJECTS.jobs_stream, seq=1)
        assert b'"max_tokens":10' in (found.data or b"")


async def test_a_services_jobs_are_its_own_and_its_users_share_them(tmp_path: Path) -> None:
    keys = {name: f"tgk_{name}_" + letter * 43 for name, letter in (("shop", "A"), ("other", "B"))}
    file = tmp_path / "keys.toml"
    file.write_text(
        "\n".join(
            f'[[key]]\nid = "{name}"\nsha256 = "{hashlib.sha256(key.encode()).hexdigest()}"\n'
            f'publish = ["user:*", "client:*"]\njobs = {{}}\n'
            for name, key in keys.items()
        )
    )
    shop, other = bearer(keys["shop"]), bearer(keys["other"])
    settings = {**AUTH, "api_keys_file": str(file)}
    async with broker(tmp_path) as (server, _), running_publisher(server.url, **settings) as (api, bus):
        made = [
            (await started(api, shop, user_id="ann"), "key.shop.ann"),
            (await started(api, shop, client_id="a.b"), "key.shop.a%2Eb"),
            (await started(api, shop), "key.shop"),
        ]
        for job_id, owner in made:
            assert (await JobRecords(bus).get(job_id)).owner == owner
            assert await statuses(api, job_id, other) == [404] * 4
            assert (await api.get(f"/api/ai/jobs/{job_id}", headers=shop)).status_code == 200
        assert (await api.get(f"/api/ai/jobs/{made[0][0]}", headers=bearer(token("ann")))).status_code == 200
        assert await statuses(api, made[2][0], bearer(token("ann"))) == [404] * 4
        # A user of that name is another than the service's.
        assert await statuses(api, made[2][0], bearer(token("shop"))) == [404] * 4


async def test_a_dead_job_that_is_tried_again_is_still_its_owners(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), running_publisher(server.url, **AUTH) as (api, _):
        job = Job(job_id="1" * 32, kind="chat", tail="topic.a", params={}, created=1, owner="user.ann")
        await DeadJobs(bus).keep(DeadJob(job=job, error="backend_error: x", attempts=1, failed=2.0))
        root = bearer(token("root", admin=["dead"]))
        again = await api.post(f"/api/ai/dead/{job.job_id}/retry", json={}, headers=root)
        assert again.status_code == 202
        assert (
            await api.get(f"/api/ai/jobs/{again.json()['job_id']}", headers=bearer(token("ann")))
        ).status_code == 200
        assert await statuses(api, again.json()["job_id"], root) == [404] * 4
