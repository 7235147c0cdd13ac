"""What a page of another origin can send without being asked for leave changes nothing (Fetch: CORS-safelisted).

Browsers say whose page it is; one that does not is refused for the media type.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from publisher_api.http.openapi import document
from tests.support.bus import broker
from tests.support.publisher import running_publisher
from tidegate_common.bus.jobs.dead import DeadJobs
from tidegate_common.contract.jobs import DeadJob, Job

SIMPLE: list[tuple[str | None, bytes]] = [
    (None, b""),
    (None, b"{}"),
    ("text/plain", b"{}"),
    ("text/plain;application/json", b"{}"),
    ("application/x-www-form-urlencoded", b"a=1"),
    ("multipart/form-data; boundary=x", b"--x--"),
]
"""Media types and bodies that forms, `fetch` with `no-cors` and beacons send without a preflight."""

DEAD = "0" * 32


async def test_no_post_of_a_form_or_a_beacon_does_anything(tmp_path: Path) -> None:
    """`POST /api/ai/dead/{id}/retry` took no body, and so it took any page's: a job was run, and paid, again."""
    async with broker(tmp_path) as (server, bus), running_publisher(server.url) as (client, _):
        dead = DeadJobs(bus)
        job = Job(job_id=DEAD, kind="chat", tail="client.a", params={}, created=1)
        await dead.keep(DeadJob(job=job, error="backend_error: x", attempts=1, failed=2.0))
        paths: dict[str, Any] = document(asks=False)["paths"]
        posts = [path.replace("{job_id}", DEAD) for path, methods in paths.items() if "post" in methods]
        assert f"/api/ai/dead/{DEAD}/retry" in posts
        for path in posts:
            for media_type, body in SIMPLE:
                headers = {"content-type": media_type} if media_type else {}
                for origin, status in (({"origin": "https://evil.example"}, 403), ({}, 415)):
                    answer = await client.post(path, content=body, headers={**headers, **origin})
                    assert answer.status_code == status, (path, media_type)
        assert (await dead.get(DEAD)).error == "backend_error: x"
        assert (await bus.jetstream.stream_info("TG_JOBS")).state.messages == 0
        assert (await bus.jetstream.stream_info("TG_EVENTS")).state.last_seq == 0


async def test_every_other_method_that_changes_something_needs_leave(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, _), running_publisher(server.url) as (client, _):
        paths: dict[str, Any] = document(asks=False)["paths"]
        changing = {method for methods in paths.values() for method in methods} - {"get", "post", "parameters"}
        assert changing == {"delete"}, "a method that browsers send for other pages only after a preflight"
        asked = {"origin": "https://evil.example", "access-control-request-method": "DELETE"}
        assert "access-control-allow-origin" not in (await client.options("/api/ai/chat/x", headers=asked)).headers


async def test_a_retry_takes_an_empty_object_or_nothing_as_json(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), running_publisher(server.url) as (client, _):
        dead = DeadJobs(bus)
        json_type = {"content-type": "application/json"}

        async def retried(content: bytes) -> httpx.Response:
            job = Job(job_id=DEAD, kind="chat", tail="client.a", params={}, created=1)
            await dead.keep(DeadJob(job=job, error="backend_error: x", attempts=1, failed=2.0))
            return await client.post(f"/api/ai/dead/{DEAD}/retry", content=content, headers=json_type)

        assert (await retried(b"")).status_code == 202
        assert (await retried(b"{}")).status_code == 202
        assert (await retried(b"[]")).status_code == 422
        refused = await retried(b'{"model":"m"}')
        assert (refused.status_code, refused.json()["field"]) == (422, "model")


async def test_a_dead_job_is_shown_without_what_is_the_services_own(tmp_path: Path) -> None:
    """`job.owner` may be a caller's address, and `job.revision` is a number of the store's."""
    async with broker(tmp_path) as (server, bus), running_publisher(server.url) as (client, _):
        owner = "address.192%2E0%2E2%2E7"
        job = Job(job_id=DEAD, kind="chat", tail="client.a", params={"x": 1}, created=1, owner=owner, revision=7)
        await DeadJobs(bus).keep(DeadJob(job=job, error="backend_error: x", attempts=1, failed=2.0))
        for path in (f"/api/ai/dead/{DEAD}", "/api/ai/dead"):
            text = (await client.get(path)).text
            assert "192" not in text
            assert "revision" not in text
        found = (await client.get(f"/api/ai/dead/{DEAD}")).json()
        assert (found["error"], found["job"]["params"], found["job"]["tail"]) == (
            "backend_error: x",
            {"x": 1},
            "client.a",
        )
        described = document()["components"]["schemas"]["Job"]["properties"]
        assert set(found["job"]) == set(described)
