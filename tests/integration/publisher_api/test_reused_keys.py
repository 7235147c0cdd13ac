"""An `Idempotency-Key` stands for one request: another one under it is refused, and has not the first one's answer."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.publisher_api.support import world
from tests.support.bus import broker
from tests.support.publisher import running_publisher
from tests.support.waiting import until
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.history import History
from tidegate_common.bus.jobs.records import JobRecords

KEY = {"idempotency-key": "k"}
NDJSON = {"content-type": "application/x-ndjson"}
EVENT: dict[str, Any] = {"event_type": "note", "data": {"a": 1, "b": "\u00e9"}, "ttl": 60}
FIRST = {"client_id": "ann", **EVENT}
OTHERS = {
    "another client": {**FIRST, "client_id": "bob"},
    "a user of that name": {**EVENT, "user_id": "ann"},
    "a topic": {**EVENT, "topic": "ann"},
    "another type": {**FIRST, "event_type": "notes"},
    "other data": {**FIRST, "data": {"a": 2, "b": "\u00e9"}},
    "data as a text": {**FIRST, "data": json.dumps(EVENT["data"])},
    "another time to live": {**FIRST, "ttl": 61},
    "no time to live": {key: value for key, value in FIRST.items() if key != "ttl"},
}


def refused(answer: httpx.Response) -> None:
    assert (answer.status_code, answer.json().get("field")) == (422, "Idempotency-Key"), answer.text


async def last(bus: Bus) -> int:
    return (await History(bus).position()).last


@pytest.mark.parametrize("receipt", [False, True])
async def test_another_event_under_the_same_key_is_refused(tmp_path: Path, receipt: bool) -> None:
    """Another event under a key that was used was answered 202 with the first one's id, and sent to nobody."""
    async with world(tmp_path) as w:
        first = await w.api.post("/api/sse/send", json={**FIRST, "receipt": receipt}, headers=KEY)
        assert first.status_code == 202
        for body in OTHERS.values():
            refused(await w.api.post("/api/sse/send", json={**body, "receipt": receipt}, headers=KEY))
        refused(await w.api.post("/api/sse/broadcast", json=EVENT, headers=KEY))
        # The same event, written otherwise, and whether a receipt is wanted or not.
        spaced = json.dumps({**FIRST, "receipt": not receipt}, indent=2, ensure_ascii=False)
        is_json = {"content-type": "application/json"}
        again = await w.api.post("/api/sse/send", content=spaced, headers={**KEY, **is_json})
        assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
        assert again.json()["duplicate"]
        assert await last(w.bus) == 1


@pytest.mark.parametrize("receipt", [False, True])
async def test_a_batch_whose_lines_have_changed_is_refused_line_by_line(tmp_path: Path, receipt: bool) -> None:
    async with world(tmp_path) as w:

        async def send(bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
            content = "\n".join(json.dumps({**body, "receipt": receipt}) for body in bodies)
            answer = await w.api.post("/api/sse/batch", content=content, headers={**KEY, **NDJSON})
            return list(answer.json()["results"])

        first = await send([FIRST] * len(OTHERS))
        second = await send([*list(OTHERS.values())[1:], FIRST])
        assert [(each["status"], each.get("field")) for each in second[:-1]] == [(422, "Idempotency-Key")] * (
            len(OTHERS) - 1
        )
        assert (second[-1]["id"], second[-1]["duplicate"]) == (first[-1]["id"], True)
        assert await last(w.bus) == len(OTHERS)


async def test_a_line_and_a_send_have_keys_of_their_own(tmp_path: Path) -> None:
    """A line's key was that of a send whose key ends with a colon and a number."""
    async with broker(tmp_path) as (server, bus), running_publisher(server.url) as (client, _):
        batch = await client.post("/api/sse/batch", content=json.dumps(FIRST), headers={**KEY, **NDJSON})
        sent = await client.post("/api/sse/send", json=OTHERS["a topic"], headers={"idempotency-key": "k:1"})
        assert (batch.json()["accepted"], sent.status_code, await last(bus)) == (1, 202, 2)


async def test_where_the_first_event_is_gone_its_answer_is_given(tmp_path: Path) -> None:
    """Nobody can tell any more what it was; the stream remembers the key for two minutes."""
    async with broker(tmp_path) as (server, bus), running_publisher(server.url) as (client, _):
        first = (await client.post("/api/sse/send", json={**FIRST, "ttl": 1}, headers=KEY)).json()

        async def gone() -> bool:
            return (await History(bus).position()).first > 1

        await until(gone, "the event has expired")
        again = await client.post("/api/sse/send", json=OTHERS["other data"], headers=KEY)
        assert (again.status_code, again.json()["id"], again.json()["duplicate"]) == (202, first["id"], True)


async def test_only_a_repeat_is_looked_up(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), running_publisher(server.url) as (client, _):
        asked: list[bytes] = []
        bus.client.subscribe_direct("$JS.API.STREAM.MSG.GET.>", lambda subject, *_: asked.append(subject))
        await bus.round_trip()
        await client.post("/api/sse/send", json=FIRST, headers=KEY)
        await client.post("/api/sse/send", json=FIRST)
        await bus.round_trip()
        assert asked == []
        await client.post("/api/sse/send", json=FIRST, headers=KEY)
        await until(lambda: len(asked) == 1, "a repeat is looked up")


CHAT = {"prompt": "hello", "client_id": "ann", "max_tokens": 5}
JOB = {"kind": "count", "params": {"from": 5, "to": [1, {"x": 2, "y": 3}]}, "user_id": "ann"}
CHATS = [{"prompt": "other"}, {"client_id": "bob"}, {"max_tokens": 6}, {"deadline_seconds": 60}, {"n": 2}]
JOBS = [{"kind": "counts"}, {"params": {"from": 6}}, {"user_id": "bob"}, {"on_disconnect": "cancel"}]


@pytest.mark.parametrize(
    ("path", "body", "changes"), [("/api/ai/chat", CHAT, CHATS), ("/api/ai/jobs", JOB, JOBS)], ids=["chat", "job"]
)
async def test_another_job_under_the_same_key_is_refused(
    tmp_path: Path, path: str, body: dict[str, Any], changes: list[dict[str, Any]]
) -> None:
    """With another prompt the first job's id came back, and its answer was taken for that to the new one."""
    async with broker(tmp_path) as (server, bus), running_publisher(server.url) as (client, _):
        first = await client.post(path, json=body, headers=KEY)
        for change in changes:
            refused(await client.post(path, json={**body, **change}, headers=KEY))
        other_path = {"/api/ai/chat": ("/api/ai/jobs", JOB), "/api/ai/jobs": ("/api/ai/chat", CHAT)}[path]
        refused(await client.post(other_path[0], json=other_path[1], headers=KEY))
        again = await client.post(path, content=json.dumps(dict(reversed(body.items()))), headers={**KEY, **IS_JSON})
        assert (again.status_code, again.json()["job_id"]) == (202, first.json()["job_id"])
        assert (await bus.jetstream.stream_info("TG_JOBS")).state.messages == 1
        shown = (await client.get(f"/api/ai/jobs/{first.json()['job_id']}")).json()
        assert "request" not in shown


@pytest.mark.parametrize(
    ("path", "body", "noted"),
    [
        ("/api/ai/chat", CHAT, "207034bc5629bfbfa503932a27a2f704"),
        ("/api/ai/chat", {"prompt": "hi"}, "073095c7710e0e1bbcf6225a75bd4af3"),
        ("/api/ai/jobs", JOB, "07e073b6f274e8bb99693ada360a831f"),
    ],
    ids=["chat", "without a target", "job"],
)
async def test_a_job_is_known_by_what_an_earlier_release_has_noted_of_it(
    tmp_path: Path, path: str, body: dict[str, Any], noted: str
) -> None:
    """A caller that asks again across an upgrade gets the job that it has, and no refusal."""
    async with broker(tmp_path) as (server, bus), running_publisher(server.url) as (client, _):
        answer = await client.post(path, json=body, headers=KEY)
        state = await JobRecords(bus).get(answer.json()["job_id"])
        assert (state.job_id, state.request) == ("9a5d4adca82fbf8d97d233d3355774ac", noted)


IS_JSON = {"content-type": "application/json"}


async def test_of_different_requests_at_once_under_one_key_one_is_accepted(tmp_path: Path) -> None:
    """Who is first is NATS's word, for events as for jobs: the others are refused, whichever of them asks again."""
    async with broker(tmp_path) as (server, bus), running_publisher(server.url) as (client, _):
        for path, body, name in (("/api/sse/send", FIRST, "event_type"), ("/api/ai/chat", CHAT, "prompt")):
            bodies = [{**body, name: f"n{number}"} for number in range(20)]
            for _ in range(2):
                answers = await asyncio.gather(*(client.post(path, json=each, headers=KEY) for each in bodies))
                statuses = [answer.status_code for answer in answers]
                assert (sorted(statuses), path) == ([202] + [422] * 19, path)
        assert await last(bus) == 1
        assert (await bus.jetstream.stream_info("TG_JOBS")).state.messages == 1
