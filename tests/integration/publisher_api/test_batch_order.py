"""A batch in all its forms: what is stored of it is stored in the order of its lines, whatever NATS does meanwhile."""

import asyncio
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.stress.proxy import fault_proxy
from tests.support.bus import broker
from tests.support.nats import nats_server
from tests.support.otlp import collector
from tests.support.ports import free_port
from tests.support.processes import service
from tests.support.publisher import running_publisher
from tests.support.waiting import until
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.history import History

NDJSON = {"content-type": "application/x-ndjson"}
LINES = 60

Form = Callable[[int], dict[str, Any]]

FORMS: dict[str, Form] = {
    "plain": lambda _: {},
    "receipts": lambda _: {"receipt": True},
    "some receipts": lambda number: {"receipt": number % 3 == 0},
    "ttl": lambda number: {"ttl": 60} if number % 2 else {},
    "with volatile": lambda number: {"durable": number % 5 != 2},
    "all at once": lambda number: (
        {"receipt": number % 3 == 0, "durable": number % 7 != 1} | ({"ttl": 60} if number % 7 != 1 else {})
    ),
}


def batch(form: Form, count: int = LINES) -> str:
    lines = ({"topic": f"t{number % 4}", "event_type": "n", "data": number} | form(number) for number in range(count))
    return "\n".join(json.dumps(line) for line in lines)


def durable(form: Form, count: int = LINES) -> list[int]:
    return [number for number in range(count) if form(number).get("durable", True)]


async def kept(bus: Bus) -> list[int]:
    history = History(bus)
    position = await history.position()
    return [int(stored.payload) async for stored in history.after("topic.>", 0, position.last)]


@pytest.mark.parametrize("name", FORMS)
async def test_while_nats_is_away_for_a_moment_the_lines_keep_their_order(tmp_path: Path, name: str) -> None:
    """Lines that were more than a plain store each went by themselves, and each was tried again by a clock of its own.

    With NATS away for a moment they were stored as their clocks had it: 13, 9, 0, 3.
    """
    form = FORMS[name]
    async with broker(tmp_path) as (server, bus):
        async with running_publisher(server.url, publish_deadline_seconds=20) as (client, own):
            await server.run.stop(signal.SIGKILL)
            await until(lambda: not own.connected, "the loss is noticed")
            sending = asyncio.create_task(client.post("/api/sse/batch", content=batch(form), headers=NDJSON))
            async with nats_server(tmp_path, server.port):
                results = (await sending).json()["results"]
                assert [result["line"] for result in results] == list(range(1, LINES + 1))
                await until(lambda: bus.connected, "the test's own connection is back", 20)
                assert await kept(bus) == durable(form)


async def test_a_traced_batch_with_keys_keeps_its_order_too(tmp_path: Path) -> None:
    """In a trace that is recorded each line has a span, and so went by itself."""
    async with collector() as collected, broker(tmp_path) as (server, bus):
        env = {
            "TIDEGATE_NATS_URL": server.url,
            "TIDEGATE_PUBLISH_DEADLINE_SECONDS": "20",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collected.endpoint,
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }
        port, trace = free_port(), "0af7651916cd43dd8448eb211c80319c"
        headers = {**NDJSON, "traceparent": f"00-{trace}-0123456789abcdef-01", "idempotency-key": "k"}
        async with service("publisher_api", port, env) as run:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                await server.run.stop(signal.SIGKILL)
                await until(lambda: run.said("connection lost") or run.said("not connected"), "the loss is noticed")
                content = batch(FORMS["some receipts"])
                sending = asyncio.create_task(client.post("/api/sse/batch", content=content, headers=headers))
                async with nats_server(tmp_path, server.port):
                    results = (await sending).json()["results"]
                    assert {result["status"] for result in results} == {202}
                    await until(lambda: bus.connected, "the test's own connection is back", 20)
                    assert await kept(bus) == list(range(LINES))
                    again = await client.post("/api/sse/batch", content=content, headers=headers)
                    assert [each["id"] for each in again.json()["results"]] == [each["id"] for each in results]
                    assert await kept(bus) == list(range(LINES))

                    def spans() -> bool:
                        return sum(span.name == "send tg.in.topic" for span in collected.of(trace)) == 2 * LINES

                    await until(spans, "each line has its span")


async def test_a_volatile_line_goes_out_when_those_before_it_are_stored(tmp_path: Path) -> None:
    """It went at once, so that where storing took a moment it came before the lines that it follows."""
    async with broker(tmp_path) as (server, bus), fault_proxy(server.port) as way:
        heard: list[bytes] = []
        bus.client.subscribe_direct("tg.out.topic.volatile", lambda _, __, payload: heard.append(payload))
        await bus.round_trip()
        async with running_publisher(f"nats://127.0.0.1:{way.port}", publish_deadline_seconds=20) as (client, _):
            (link,) = way.links
            lines = [
                {"topic": "durable", "event_type": "n", "data": 0},
                {"topic": "volatile", "event_type": "n", "data": 1, "durable": False},
                {"topic": "durable", "event_type": "n", "data": 2},
            ]
            link.pause(True)
            content = "\n".join(json.dumps(line) for line in lines)
            sending = asyncio.create_task(client.post("/api/sse/batch", content=content, headers=NDJSON))

            async def stored() -> bool:
                return await kept(bus) == [0]

            await until(stored, "the first is stored, and not confirmed")
            assert not heard
            link.pause(False)
            assert (await sending).json()["accepted"] == 3
            await until(lambda: heard == [b"1"], "the volatile one comes")
            assert await kept(bus) == [0, 2]


def line_of(number: int, line: dict[str, bool] | None) -> str:
    return "{" if line is None else json.dumps({"topic": "t", "event_type": "n", "data": number} | line)


GOOD = st.fixed_dictionaries({"durable": st.booleans(), "receipt": st.booleans()})


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(st.none() | GOOD, max_size=40))
def test_any_mix_of_lines_comes_out_in_its_order(
    tmp_path_factory: pytest.TempPathFactory, lines: list[dict[str, bool] | None]
) -> None:
    async def run() -> None:
        async with broker(tmp_path_factory.mktemp("nats")) as (server, bus), running_publisher(server.url) as (api, _):
            heard: list[bytes] = []
            bus.client.subscribe_direct("tg.out.>", lambda _, __, payload: heard.append(payload))
            await bus.round_trip()
            content = "\n".join(line_of(number, line) for number, line in enumerate(lines))
            results = (await api.post("/api/sse/batch", content=content, headers=NDJSON)).json()["results"]
            good = [number for number, line in enumerate(lines) if line is not None]
            assert [each["line"] - 1 for each in results if each["status"] == 202] == good
            await until(lambda: len(heard) == len(good), "all come out")
            assert heard == [b"%d" % number for number in good]

    asyncio.run(run())
