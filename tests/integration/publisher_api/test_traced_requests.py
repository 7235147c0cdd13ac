"""Requests that are recorded: what a caller writes into them is no error of ours, and costs nobody a span."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.nats import nats_server
from tests.support.otlp import Collector, collector
from tests.support.ports import free_port
from tests.support.processes import Running, service
from tests.support.waiting import until


@asynccontextmanager
async def recorded(data: Path) -> AsyncIterator[tuple[int, Running, Collector]]:
    """The port of a publisher-api whose requests are all recorded."""
    async with collector() as collected, nats_server(data) as nats:
        port = free_port()
        env = {
            "TIDEGATE_NATS_URL": nats.url,
            "OTEL_EXPORTER_OTLP_ENDPOINT": collected.endpoint,
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }
        async with service("publisher_api", port, env) as run:
            yield port, run, collected


async def status(port: int, target: bytes, fields: bytes) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET %b HTTP/1.1\r\nHost: localhost\r\n%bConnection: close\r\n\r\n" % (target, fields))
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    return int(answer.split(b" ", 2)[1])


ODD = [b"\xff\\x", b"\xff\\N{x}", b"\xff\\ud83d", b"\xed\xa0\xbd", "\u00e9\\x".encode()]
BYTES = st.sampled_from(ODD) | st.lists(st.integers(0x21, 0xFF).filter(lambda byte: byte != 0x7F)).map(bytes)
FIELDS = [b"User-Agent", b"X-Forwarded-For", b"X-Forwarded-Proto", b"traceparent", b"tracestate", b"Accept"]
NAMES = st.sampled_from(FIELDS)


async def test_no_bytes_of_a_recorded_request_are_an_error_of_ours(tmp_path: Path) -> None:
    """A `User-Agent` of two odd bytes was a 500 with a traceback, but only where traces were sent somewhere: the
    instrumentation reads what is no UTF-8 as Python writes its strings, and fails where that is not so either."""
    async with recorded(tmp_path) as (port, run, collected):
        for value in ODD:
            assert await status(port, b"/api/ai/dead", b"User-Agent: %b\r\n" % value) == 200
        loop = asyncio.get_running_loop()

        def check(name: bytes, value: bytes, query: bytes) -> None:
            asking = status(port, b"/api/ai/dead?" + query.replace(b"#", b""), b"%b: %b\r\n" % (name, value))
            assert asyncio.run_coroutine_threadsafe(asking, loop).result(20) < 500

        quick = settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        await asyncio.to_thread(quick(given(NAMES, BYTES, BYTES)(check)))
        assert await status(port, b"/api/ai/dead", b"User-Agent: last\r\n") == 200
        await until(lambda: "last" in [each.attributes.get("user_agent.original") for each in collected.spans], "spans")
        assert not run.said("Traceback"), "\n".join(run.output)
