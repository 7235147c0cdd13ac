"""The browser's own EventSource with a ticket, in a real Chromium: it can send no header, and repeats its address."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from selenium.webdriver import Chrome

from tests.support.gateway import RunningGateway, open_stream, running_gateway
from tests.support.identity import AUTH, bearer, token
from tests.support.nats import nats_server
from tests.support.publisher import running_publisher
from tests.support.waiting import until

ASK = """
    const [url, token, wish, done] = arguments;
    const headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/json" };
    fetch(`${url}/api/auth/tickets`, { method: "POST", headers, body: JSON.stringify(wish) })
      .then((answer) => answer.json()).then(done, (error) => done(String(error)));
"""
OPEN = """
    window.seen = [];
    window.source = new EventSource(`/api/sse?ticket=${arguments[0]}`);
    for (const type of ["connected", "closing", "note"])
      source.addEventListener(type, ({ data, lastEventId }) => seen.push([type, data, lastEventId]));
"""

CONNECTING, CLOSED = 0, 2
"""States of an EventSource: it comes back by itself, or it has stopped for good."""


class Page:
    """A page of the gateway's own origin. The browser's calls block, and the services are in this process."""

    def __init__(self, browser: Chrome, gateway: RunningGateway, api: httpx.AsyncClient) -> None:
        self._browser = browser
        self.gateway = gateway
        self.api = api

    async def load(self) -> None:
        await asyncio.to_thread(self._browser.get, self.gateway.url)

    async def ticket(self, credential: str, **wish: Any) -> str:
        url = str(self.api.base_url)
        made = await asyncio.to_thread(self._browser.execute_async_script, ASK, url, credential, wish)
        assert "ticket" in made, made
        return str(made["ticket"])

    async def open(self, ticket: str) -> None:
        await self.script(OPEN, ticket)

    async def script(self, code: str, *arguments: Any) -> Any:
        return await asyncio.to_thread(self._browser.execute_script, code, *arguments)

    async def seen(self, kind: str) -> list[str]:
        """Data of the events of that type so far."""
        return [data for found, data, _ in await self.script("return seen") if found == kind]

    async def has(self, kind: str, count: int) -> None:
        async def there() -> bool:
            return len(await self.seen(kind)) >= count

        await until(there, f"{count} of {kind}", 20)

    async def is_in(self, state: int) -> None:
        async def there() -> bool:
            return bool(await self.script("return source.readyState") == state)

        await until(there, f"the EventSource is in the state {state}", 20)

    async def publish(self, text: str) -> None:
        headers = bearer(token("backend", publish=["user:*"]))
        event = {"user_id": "ann", "event_type": "note", "data": text}
        (await self.api.post("/api/sse/send", json=event, headers=headers)).raise_for_status()

    def break_connections(self) -> None:
        for connection in list(self.gateway.server.server_state.connections):
            connection.abort()  # type: ignore[union-attr]  # all of ours have that


@asynccontextmanager
async def page(data: Path, browser: Chrome, **settings: Any) -> AsyncIterator[Page]:
    chosen = {**AUTH, **settings}
    async with (
        nats_server(data) as nats,
        running_publisher(nats.url, **chosen, cors_origins=("*",)) as (api, _),
        running_gateway(nats.url, **chosen, publisher_url=str(api.base_url).rstrip("/")) as gateway,
    ):
        made = Page(browser, gateway, api)
        await made.load()
        try:
            yield made
        finally:
            await asyncio.to_thread(browser.get, "about:blank")


async def test_a_browser_comes_back_with_its_ticket_and_misses_nothing(tmp_path: Path, browser: Chrome) -> None:
    async with page(tmp_path, browser) as found:
        await found.open(await found.ticket(token("ann")))
        await found.has("connected", 1)
        await found.publish("before")
        await found.has("note", 1)
        for number in range(2):
            found.break_connections()
            await found.publish(f"away {number}")
            await found.has("connected", number + 2)
            await found.has("note", number + 2)
        assert await found.seen("note") == ["before", "away 0", "away 1"]
        ids = {json.loads(data)["client_id"] for data in await found.seen("connected")}
        assert len(ids) == 1, "it is the same client each time"


async def test_two_with_one_ticket_do_not_take_turns(tmp_path: Path, browser: Chrome) -> None:
    async with page(tmp_path, browser) as found:
        ticket = await found.ticket(token("ann"))
        await found.open(ticket)
        await found.has("connected", 1)
        async with open_stream(found.gateway.url, params={"ticket": ticket}) as other:
            await other.connected()
            await found.has("closing", 1)
            closing = json.loads((await found.seen("closing"))[0])
            assert (closing["reason"], closing["retry"] >= 6 * 3_600_000) == ("replaced", True)
            await found.is_in(CONNECTING)
            await found.publish("to the other one")
            assert (await other.next("note")).data == "to the other one"
        assert await found.seen("note") == []
        assert len(await found.seen("connected")) == 1


async def test_a_browser_stops_when_the_token_of_its_ticket_has_ended(tmp_path: Path, browser: Chrome) -> None:
    """It comes back once more, and 401 ends an EventSource for good."""
    async with page(tmp_path, browser, auth_leeway_seconds=0) as found:
        await found.open(await found.ticket(token("ann", seconds=3)))
        await found.has("closing", 1)
        assert json.loads((await found.seen("closing"))[0])["reason"] == "token_expired"
        await found.is_in(CLOSED)
        assert found.gateway.gateway.identity.authenticator.results["expired"] == 1
