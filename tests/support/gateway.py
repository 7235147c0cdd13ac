"""A gateway in this process on a real socket, and a client that reads its streams with a parser that is not ours."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
from httpx_sse import ServerSentEvent
from httpx_sse._decoders import SSEDecoder

from gateway.app import Gateway
from gateway.settings import GatewaySettings
from tests.support.bus import SUBJECTS
from tests.support.least_rights import as_service
from tests.support.streams import make_streams
from tests.support.waiting import until
from tidegate_common.auth.revocations import Revocations
from tidegate_common.bus.connection import Bus, connect
from tidegate_common.runtime.server import Server
from tidegate_common.runtime.tasks import end
from tidegate_common.telemetry.providers import telemetry


class RunningGateway:
    """Its address, its parts, and its connection to NATS."""

    def __init__(self, url: str, nats_url: str, gateway: Gateway, bus: Bus, server: Server, stop: Any) -> None:
        self.url = url
        self.gateway = gateway
        self.bus = bus
        self.server = server
        self.stop = stop
        self._nats_url = nats_url

    async def revoke(self, kind: str, value: str, before: float = 0.0) -> None:
        """As publisher-api does it. Returns when this gateway knows."""
        async with self._publisher() as listed:
            made = await listed.revoke(kind, value, before)
        known = self.gateway.identity.revocations
        await until(lambda: known.latest(1, (kind, value))[0] == [made], "the gateway knows of the revocation")

    async def take_back(self, kind: str, value: str) -> None:
        """A revocation, likewise."""
        async with self._publisher() as listed:
            await listed.take_back(kind, value)
        known = self.gateway.identity.revocations
        await until(lambda: not known.latest(1, (kind, value))[0], "the gateway knows that it was taken back")

    @asynccontextmanager
    async def _publisher(self) -> AsyncIterator[Revocations]:
        async with connect(as_service(self._nats_url, "publisher-api"), SUBJECTS, "publisher-api") as bus:
            yield Revocations(bus, token_seconds=3600)


@asynccontextmanager
async def running_gateway(nats_url: str, *, environ: Any = None, **settings: Any) -> AsyncIterator[RunningGateway]:
    """A gateway listening on a free port, stopped in order at the end. `environ` is what its telemetry reads."""
    plain_url, nats_url = nats_url, as_service(nats_url, "gateway")
    chosen = GatewaySettings(nats_url=nats_url, port=0, **{"drain_seconds": 2.0, **settings})
    with telemetry("gateway", environ or {}) as signals:
        async with connect(nats_url, SUBJECTS, "gateway") as bus:
            await make_streams(plain_url, SUBJECTS, chosen.stream_limits())
            gateway = Gateway(chosen, bus, signals)
            await gateway.identity.start()
            server = gateway.server()
            running = (gateway.heartbeat.run(), gateway.expiry.run(), gateway.audit.run())
            tasks = [asyncio.create_task(each) for each in running]
            gateway.control.start()
            if chosen.asks:
                gateway.ticket_uses.start()
            serving = asyncio.create_task(server.serve())
            await until(lambda: server.started, "the gateway listens")

            async def stop() -> None:
                server.should_exit = True
                await serving

            try:
                yield RunningGateway(f"http://127.0.0.1:{server.port}", plain_url, gateway, bus, server, stop)
            finally:
                await stop()
                await end(tasks)
                await gateway.control.aclose()
                await gateway.aclose()


class Stream:
    """A client's open stream. `events` holds all that came so far; `comments` counts comment lines."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.events: list[ServerSentEvent] = []
        self.comments = 0
        self.ended = False
        self._read = 0
        self._reading = asyncio.create_task(self._run())

    async def _run(self) -> None:
        decoder = SSEDecoder()
        try:
            async for line in self.response.aiter_lines():
                if line.startswith(":"):
                    self.comments += 1
                event = decoder.decode(line)
                if event is not None:
                    self.events.append(event)
        except httpx.HTTPError:
            pass
        self.ended = True

    async def next(self, event_type: str | None = None, seconds: float = 10) -> ServerSentEvent:
        """The next event that was not asked for yet; those of other types are passed over where one is given."""
        while True:
            await until(lambda: len(self.events) > self._read or self.ended, f"an event {event_type or ''}", seconds)
            assert len(self.events) > self._read, "the stream ended"
            event = self.events[self._read]
            self._read += 1
            if event_type in (None, event.event):
                return event

    async def connected(self) -> dict[str, Any]:
        """Data of the first event, which has to be `connected`."""
        event = await self.next()
        assert event.event == "connected"
        return dict(json.loads(event.data))

    async def sent_away(self) -> str:
        """Returns when the gateway has ended the stream because the event stream is another; gives the last id."""
        closing = json.loads((await self.next("closing")).data)
        assert (closing["reason"], closing["reconnect"]) == ("feed", True)
        await until(lambda: self.ended, "the stream ends")
        return self.events[-1].id

    async def close(self) -> None:
        await end([self._reading])
        await self.response.aclose()


@asynccontextmanager
async def open_stream(
    url: str,
    params: Any = None,
    headers: Mapping[str, str] | None = None,
    body: Any = None,
    path: str = "/api/sse",
) -> AsyncIterator[Stream]:
    """`GET url/path` (or POST, with a body) as a stream; the response has to be 200."""
    async with httpx.AsyncClient(timeout=httpx.Timeout(10, read=None)) as client:
        method = "GET" if body is None else "POST"
        request = client.build_request(method, f"{url}{path}", params=params, headers=headers, json=body)
        response = await client.send(request, stream=True)
        if response.status_code != 200:
            text = (await response.aread()).decode()
            raise AssertionError(f"{response.status_code}: {text}")
        stream = Stream(response)
        try:
            yield stream
        finally:
            await stream.close()
