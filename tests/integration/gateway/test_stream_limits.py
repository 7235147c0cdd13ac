"""How many streams there may be, from where, and with what heads."""

import asyncio
from pathlib import Path
from typing import Any

import httpx

from tests.support.bus import broker
from tests.support.gateway import open_stream, running_gateway
from tests.support.waiting import until
from tests.support.ways import BOTH_PATHS


async def test_headers_over_the_limit_are_refused_whether_whole_or_endless(tmp_path: Path) -> None:
    async with (
        broker(tmp_path) as (server, _),
        running_gateway(server.url, max_header_bytes=2000) as running,
        httpx.AsyncClient() as client,
    ):
        answer = await client.get(f"{running.url}/api/sse", headers={"x-long": "x" * 2000})
        assert answer.status_code == 431
        assert answer.json()["status"] == 431
        host, port = running.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /healthz HTTP/1.1\r\nx-endless: ")
        for _ in range(5):
            writer.write(b"x" * 500)
            await writer.drain()
        async with asyncio.timeout(5):
            assert (await reader.readline()).startswith(b"HTTP/1.1 431")
        writer.close()
        body = b"{" + b" " * 30_000 + b"}"
        json_type = {"content-type": "application/json"}
        async with client.stream("POST", f"{running.url}/api/sse", content=body, headers=json_type) as large:
            assert large.status_code == 200, "a body is not counted as a head"
        assert (await client.get(f"{running.url}/healthz")).status_code == 200


@BOTH_PATHS
async def test_limits_in_all_and_from_one_address_refuse_with_a_time_to_come_back(tmp_path: Path, streams: str) -> None:
    async with broker(tmp_path) as (server, _), httpx.AsyncClient() as client:
        async with running_gateway(server.url, max_connections=2, streams=streams) as running:
            async with open_stream(running.url) as one, open_stream(running.url) as other:
                await one.connected()
                await other.connected()
                full = await client.get(f"{running.url}/api/sse")
                assert (full.status_code, full.json()["type"]) == (503, "urn:tidegate:problem:too-many-connections")
                assert int(full.headers["retry-after"]) > 0
            await until(lambda: running.gateway.admission.active == 0, "both places are free again")
            async with open_stream(running.url) as again:
                await again.connected()
        async with running_gateway(server.url, max_connections_per_ip=1, streams=streams) as running:
            async with open_stream(running.url) as one:
                await one.connected()
                refused = await client.get(f"{running.url}/api/sse")
                assert refused.status_code == 429
                assert int(refused.headers["retry-after"]) > 0


async def test_the_address_that_a_trusted_proxy_names_counts_and_that_of_others_does_not(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, _), httpx.AsyncClient() as client:
        forwarded = [{"x-forwarded-for": f"203.0.113.{number}"} for number in (1, 2)]
        settings: dict[str, Any] = {"max_connections_per_ip": 1}
        async with running_gateway(server.url, trusted_proxies=("127.0.0.1",), **settings) as running:
            async with open_stream(running.url, headers=forwarded[0]) as one:
                await one.connected()
                async with open_stream(running.url, headers=forwarded[1]) as other:
                    await other.connected()
                assert (await client.get(f"{running.url}/api/sse", headers=forwarded[0])).status_code == 429
        async with running_gateway(server.url, **settings) as running:
            async with open_stream(running.url, headers=forwarded[0]) as one:
                await one.connected()
                assert (await client.get(f"{running.url}/api/sse", headers=forwarded[1])).status_code == 429


async def test_who_gets_no_place_is_refused_before_anything_is_made_of_the_request(tmp_path: Path) -> None:
    """A hundred topics were parsed, and held against each other, for a client that got a 429 all the same.

    Each request here has a fault of its own, which would be its answer if it had been read.
    """
    faulty = "topic=a..b&client_id=x&client_id=y"
    async with broker(tmp_path) as (server, _), httpx.AsyncClient() as client:
        async with running_gateway(server.url, max_connections_per_ip=1, max_completions=1) as running:
            async with open_stream(running.url) as one:
                await one.connected()
                url = f"{running.url}/api/sse"
                answers = {
                    "directly": await client.get(f"{url}?{faulty}"),
                    "by ASGI": await client.get(f"{url}?{faulty}", headers={"expect": "100-continue"}),
                    "a head": await client.head(f"{url}?{faulty}"),
                    "a body": await client.post(url, json={"topic": 7}),
                    "a type": await client.post(url, content=b"x" * 100_000, headers={"content-type": "text/plain"}),
                    "a job": await client.get(f"{url}/jobs/none?client_id=x&client_id=y"),
                }
                assert {what: answer.status_code for what, answer in answers.items()} == dict.fromkeys(answers, 429)
                assert all(int(answer.headers["retry-after"]) > 0 for answer in answers.values())
                assert running.gateway.admission.refused["address"] == len(answers)
                assert running.gateway.admission.active == 1
            await until(lambda: running.gateway.admission.active == 0, "the place is free again")
            assert (await client.get(f"{url}?{faulty}")).status_code == 422
            asked = running.gateway.openai.admission
            asked.enter("")
            refused = await client.post(f"{running.url}/v1/chat/completions", json={"model": 7})
            assert refused.status_code == 503
            asked.leave("")
            assert (await client.post(f"{running.url}/v1/chat/completions", json={"model": 7})).status_code == 400
