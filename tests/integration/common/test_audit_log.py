"""What the audit log of each service tells of who did what, and who was refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.audit import Lines
from tests.support.bus import broker
from tests.support.gateway import running_gateway
from tests.support.identity import AUTH, SECRET, bearer, token
from tests.support.ports import free_port
from tests.support.processes import service
from tests.support.publisher import running_publisher
from tests.support.waiting import until
from tests.support.ways import BOTH_PATHS
from tidegate_common.telemetry.logging import AUDIT

EVENT: dict[str, Any] = {"event_type": "note", "data": "what was sent is not told"}
KEY = "tgk_shop_" + "A" * 43
TRACE = "0123456789abcdef0123456789abcdef"
PARENT = {"traceparent": f"00-{TRACE}-0123456789abcdef-01"}


@pytest.fixture
def key_file(tmp_path: Path) -> str:
    file = tmp_path / "keys.toml"
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    file.write_text(f'[[key]]\nid = "shop"\nsha256 = "{digest}"\npublish = ["topic:>"]\nadmin = ["kick", "dead"]\n')
    return str(file)


async def test_publishes_by_keys_are_told_and_those_of_users_are_not(tmp_path: Path, key_file: str) -> None:
    async with broker(tmp_path) as (server, _):
        with Lines() as lines:
            async with running_publisher(server.url, **AUTH, api_keys_file=key_file) as (api, _):
                headers = {**bearer(KEY), **PARENT}
                assert (
                    await api.post("/api/sse/send", json={**EVENT, "topic": "a"}, headers=headers)
                ).status_code == 202
                batch = [{**EVENT, "topic": topic} for topic in ("a", "b", "a")] + [{**EVENT, "user_id": "ann"}]
                sent = {**headers, "content-type": "application/x-ndjson"}
                await api.post("/api/sse/batch", content="\n".join(map(json.dumps, batch)), headers=sent)
                ann = bearer(token("ann", publish=["topic:a"]))
                assert (await api.post("/api/sse/send", json={**EVENT, "topic": "a"}, headers=ann)).status_code == 202
            found = [
                (line["who"], line["what"], line.get("target"), line["result"], line.get("times", 1), line["trace_id"])
                for line in lines.all
            ]
            assert sorted(found) == [
                ("key:shop", "POST /api/sse/batch", "publish user:ann", "forbidden", 1, TRACE),
                ("key:shop", "publish", "topic:a", "ok", 1, TRACE),
                ("key:shop", "publish", "topic:a", "ok", 2, TRACE),
                ("key:shop", "publish", "topic:b", "ok", 1, TRACE),
            ]
            assert {line["address"] for line in lines.all} == {"127.0.0.1"}
            assert "what was sent" not in lines.text
            assert KEY not in lines.text


async def test_what_admins_do_is_told(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, _), running_publisher(server.url, **AUTH) as (api, _):
        root = bearer(token("root", admin=["kick", "dead", "revoke"]))
        with Lines() as lines:
            await api.delete("/api/presence/users/ann", headers=root)
            await api.get("/api/ai/dead", headers=root)
            await api.post("/api/ai/dead/none/retry", json={}, headers=root)
            await api.post("/api/auth/revocations", json={"sub": "ann"}, headers=root)
            ann = bearer(token("ann"))
            assert (await api.get("/api/ai/dead", headers=ann)).status_code == 401
            await api.delete("/api/auth/revocations", params={"sub": "ann"}, headers=root)
        # A name that is known, of somebody who may not come any more.
        (refused,) = (line for line in lines.all if line["result"] == "revoked")
        assert (refused["who"], refused["what"]) == ("user:ann", "GET /api/ai/dead")
        assert {line["who"] for line in lines.all if line != refused} == {"user:root"}
        assert [(line["what"], line.get("target"), line["result"]) for line in lines.all if line != refused] == [
            ("kick", "user:ann", "ok"),
            ("list dead jobs", None, "ok"),
            ("retry dead job", "none", "not found"),
            ("revoke", "sub:ann", "ok"),
            ("take a revocation back", "sub:ann", "ok"),
        ]


async def test_a_refusal_is_told_with_the_trace_of_its_answer(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, _), running_publisher(server.url, **AUTH) as (api, _):
        with Lines() as lines:
            missing = await api.post("/api/sse/send", json={**EVENT, "topic": "a"})
            forbidden = await api.post("/api/sse/send", json={**EVENT, "topic": "a"}, headers=bearer(token("ann")))
        told = [(line["who"], line["what"], line["result"], line.get("target"), line["trace_id"]) for line in lines.all]
        assert told == [
            ("", "POST /api/sse/send", "missing", None, missing.json()["trace_id"]),
            ("user:ann", "POST /api/sse/send", "forbidden", "publish topic:a", forbidden.json()["trace_id"]),
        ]


@BOTH_PATHS
async def test_a_gateway_tells_refusals_on_both_ways_in(tmp_path: Path, streams: str) -> None:
    async with (
        broker(tmp_path) as (server, _),
        running_gateway(server.url, streams=streams, **AUTH) as running,
        httpx.AsyncClient(base_url=running.url) as client,
    ):
        ann = bearer(token("ann"))
        with Lines() as lines:
            answers = [
                await client.get("/api/sse"),
                await client.get("/api/sse?topic=a", headers=ann),
                await client.get("/api/sse", headers=bearer("ann")),
            ]
            await client.post("/api/sse", json={"topic": "b"}, headers=ann)
            await client.get("/v1/models", headers=ann)
            await until(lambda: len(lines.all) == 4, "the refusals that came together are told")
        assert [answer.status_code for answer in answers] == [401, 403, 401]
        told = [
            (line["who"], line["what"], line["result"], line.get("target"), line.get("times")) for line in lines.all
        ]
        assert told == [
            ("", "GET /api/sse", "missing", None, None),
            ("user:ann", "GET /api/sse", "forbidden", "subscribe topic:a", None),
            ("", "GET /api/sse", "malformed", None, None),
            ("user:ann", "POST /api/sse", "forbidden", "subscribe topic:b", 2),
        ]
        assert [line["trace_id"] for line in lines.all[:3]] == [answer.json()["trace_id"] for answer in answers]


async def test_in_the_mode_open_and_switched_off_there_is_none(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, _):
        for settings in ({}, {**AUTH, "audit_log": "off"}):
            with Lines() as lines:
                async with running_publisher(server.url, **settings) as (api, _):
                    await api.delete("/api/presence/users/ann")
                    await api.delete("/api/presence/users/ann", headers=bearer(token("root", admin=["kick"])))
            assert lines.all == []


async def test_a_process_writes_it_among_its_other_lines_and_loses_none_when_it_stops(
    tmp_path: Path, key_file: str
) -> None:
    """At a level of the log that leaves nearly all other lines out."""
    async with broker(tmp_path) as (nats, _):
        port = free_port()
        env = {
            "TIDEGATE_NATS_URL": nats.url,
            "TIDEGATE_AUTH": "token",
            "TIDEGATE_AUTH_SECRET": SECRET,
            "TIDEGATE_API_KEYS_FILE": key_file,
            "TIDEGATE_LOG_LEVEL": "ERROR",
        }
        async with service("publisher_api", port, env) as run:
            url = f"http://127.0.0.1:{port}/api/sse/send"
            async with httpx.AsyncClient() as client:
                for _ in range(3):
                    answer = await client.post(url, json={**EVENT, "topic": "a"}, headers={**bearer(KEY), **PARENT})
                    assert answer.status_code == 202
                assert (await client.post(url, json={**EVENT, "topic": "a"})).status_code == 401
            await run.stop()
    lines = [json.loads(line) for line in run.output if AUDIT in line]
    assert [(line["who"], line["result"]) for line in lines] == [("key:shop", "ok")] * 3 + [("", "missing")]
    assert {"timestamp", "level", "logger", "service", "message"} <= set(lines[0])
    assert lines[0]["service"] == "publisher-api"
