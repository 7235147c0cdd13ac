"""Who publishes: services with keys, pages with a cookie. A refused request stores nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx

from tests.support.bus import broker
from tests.support.identity import AUTH, bearer, token
from tests.support.publisher import running_publisher
from tests.support.waiting import until
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.history import History

COOKIE = "__Host-tidegate"
PAGE = "https://app.example"
EVENT: dict[str, Any] = {"topic": "prices.a", "event_type": "note", "data": 1}
OLD, NEW = f"tgk_shop_{'o' * 43}", f"tgk_shop_{'n' * 43}"


@asynccontextmanager
async def publisher(tmp_path: Path, **settings: Any) -> AsyncIterator[tuple[httpx.AsyncClient, Bus]]:
    async with broker(tmp_path) as (server, _), running_publisher(server.url, **{**AUTH, **settings}) as found:
        yield found


def content(*keys: str, publish: str = "topic:prices.>") -> str:
    digests = ", ".join(f'"{sha256(key.encode()).hexdigest()}"' for key in keys)
    return f'[[key]]\nid = "shop"\nsha256 = [{digests}]\npublish = ["{publish}"]\n'


async def stored(bus: Bus) -> int:
    return (await History(bus).position()).last


async def send(client: httpx.AsyncClient, headers: dict[str, str]) -> httpx.Response:
    return await client.post("/api/sse/send", json=EVENT, headers=headers)


async def test_a_service_publishes_with_its_key_as_long_as_it_is_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(content(OLD))
    async with publisher(tmp_path, auth_secret=(), api_keys_file=str(path)) as (client, bus):

        async def status(key: str) -> int:
            return (await send(client, bearer(key))).status_code

        assert (await status(OLD), await status(NEW)) == (202, 401)
        path.write_text(content(OLD, NEW))

        async def new_is_good() -> bool:
            return await status(NEW) == 202

        await until(new_is_good, "the new key is good")
        path.write_text(content(NEW, publish="topic:news.>"))

        async def right_is_gone() -> bool:
            return await status(NEW) == 403

        await until(right_is_gone, "the right is gone")
        before = await stored(bus)
        assert await status(OLD) == 401
        refused = await send(client, bearer(NEW))
        assert refused.json()["needed"] == "publish topic:prices.a"
        assert await stored(bus) == before


async def test_another_sites_page_does_nothing_with_our_cookie(tmp_path: Path) -> None:
    cookie = {"Cookie": f"{COOKIE}={token('ann', publish=['topic:prices.>'])}"}
    async with publisher(tmp_path, auth_cookie=COOKIE, cors_origins=(PAGE,)) as (client, bus):
        before = await stored(bus)
        for site in ({}, {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "same-site"}):
            refused = await send(client, {**cookie, **site})
            assert (refused.status_code, refused.json()["needed"]) == (403, "origin")
        assert (await send(client, {"Origin": PAGE})).status_code == 401
        assert await stored(bus) == before
        for site in ({"Origin": PAGE}, {"Sec-Fetch-Site": "same-origin"}):
            assert (await send(client, {**cookie, **site})).status_code == 202
        assert await stored(bus) == before + 2


async def test_a_listed_page_may_send_the_cookie_and_read_the_answer(tmp_path: Path) -> None:
    asked = {"Origin": PAGE, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    for settings, credentials in (
        ({"auth_cookie": COOKIE, "cors_origins": (PAGE,)}, "true"),
        ({"auth_cookie": COOKIE, "cors_origins": (PAGE, "*")}, None),
        ({"cors_origins": (PAGE,)}, None),
    ):
        async with publisher(tmp_path / str(len(str(settings))), **settings) as (client, _):
            answer = await client.options("/api/sse/send", headers=asked)
            assert answer.status_code == 200
            assert answer.headers.get("access-control-allow-credentials") == credentials


async def test_the_metrics_tell_what_came_of_asking(tmp_path: Path) -> None:
    async with publisher(tmp_path) as (client, _):
        ann = bearer(token("ann", publish=["topic:news"], admin=["metrics"]))
        assert (await send(client, ann)).status_code == 403
        assert (await send(client, bearer("x"))).status_code == 401
        lines = (await client.get("/metrics", headers=ann)).text.splitlines()
    counted = {
        result: next(line.rpartition(" ")[2] for line in lines if f'result="{result}"' in line)
        for result in ("ok", "forbidden", "malformed", "missing")
    }
    assert counted == {"ok": "2.0", "forbidden": "1.0", "malformed": "1.0", "missing": "0.0"}


async def test_no_cache_keeps_what_somebody_was_answered(tmp_path: Path) -> None:
    """A cache in front tells nobody apart who bring a cookie."""
    async with publisher(tmp_path / "asked") as (client, _):
        ann = bearer(token("ann", publish=["topic:prices.>"], admin=["metrics"]))
        for answer in (
            await send(client, ann),
            await send(client, {}),
            await client.get("/api/ai/jobs/none", headers=ann),
            await client.get("/metrics", headers=ann),
            await client.get("/nowhere", headers=ann),
        ):
            assert answer.headers.get_list("cache-control") == ["no-store"], answer
        assert "cache-control" not in (await client.get("/openapi.json")).headers
    async with broker(tmp_path / "open") as (server, _), running_publisher(server.url) as (client, _):
        assert "cache-control" not in (await send(client, {})).headers
