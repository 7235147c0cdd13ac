"""What the command `tidegate` makes, shown to real services."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import httpx

from tests.support.gateway import open_stream, running_gateway
from tests.support.identity import bearer
from tests.support.nats import nats_server
from tests.support.publisher import running_publisher
from tests.support.waiting import until

COMMAND = Path(sys.executable).with_name("tidegate")
SECRET = "the secret of a first try: 32 bytes or more"
AUTH = {"auth": "token", "auth_secret": (SECRET,)}


async def tidegate(*arguments: str) -> str:
    """What the command prints."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        COMMAND, *arguments, env={"TIDEGATE_AUTH_SECRET": SECRET}, stdout=pipe, stderr=pipe
    )
    out, error = await process.communicate()
    assert process.returncode == 0, error.decode()
    return out.decode().strip()


async def test_a_made_token_opens_what_it_grants_and_nothing_else(tmp_path: Path) -> None:
    token = await tidegate("token", "ann", "--subscribe", "topic:prices.*")
    async with nats_server(tmp_path) as nats, running_gateway(nats.url, **AUTH) as running:
        async with open_stream(running.url, {"topic": "prices.eur"}, bearer(token)) as stream:
            assert "topic:prices.eur" in (await stream.connected())["listening"]
        async with httpx.AsyncClient() as client:
            refused = await client.get(f"{running.url}/api/sse", params={"topic": "news"}, headers=bearer(token))
        assert (refused.status_code, refused.json()["needed"]) == (403, "subscribe topic:news")


async def test_a_token_with_every_right_publishes(tmp_path: Path) -> None:
    token = await tidegate("token", "ann", "--all", "--seconds", "60")
    event = {"topic": "prices.eur", "event_type": "price", "data": 1}
    async with nats_server(tmp_path) as nats, running_publisher(nats.url, **AUTH) as (client, _):
        assert (await client.post("/api/sse/send", json=event)).status_code == 401
        assert (await client.post("/api/sse/send", json=event, headers=bearer(token))).status_code == 202


async def test_a_made_key_publishes_what_it_grants_until_it_is_revoked(tmp_path: Path) -> None:
    file = ("--file", str(tmp_path / "keys.toml"))
    rights = ("--publish", "topic:prices.>", "--kinds", "chat", "--admin", "presence", "--metrics")
    key = await tidegate("keys", "add", "shop", *file, *rights, "--limit", "publishes=5/10", "--expires", "2100-01-01")
    settings = {**AUTH, "api_keys_file": file[1]}
    event = {"topic": "prices.eur", "event_type": "price", "data": 1}
    async with nats_server(tmp_path) as nats, running_publisher(nats.url, **settings) as (client, _):
        assert (await client.post("/api/sse/send", json=event, headers=bearer(key))).status_code == 202
        refused = await client.post("/api/sse/broadcast", json={"event_type": "n", "data": 1}, headers=bearer(key))
        assert (refused.status_code, refused.json()["needed"]) == (403, "publish broadcast")
        another = await tidegate("keys", "add", "cms", *file, "--publish", "broadcast")
        await tidegate("keys", "revoke", "shop", *file)

        await until(lambda: forgotten(client, key), "the key is good no more", 20)
        assert (await client.post("/api/sse/send", json=event, headers=bearer(key))).status_code == 401
        said = {"event_type": "n", "data": 1}
        assert (await client.post("/api/sse/broadcast", json=said, headers=bearer(another))).status_code == 202


async def forgotten(client: httpx.AsyncClient, key: str) -> bool:
    return (await client.get("/metrics", headers=bearer(key))).status_code == 401
