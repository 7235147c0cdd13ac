"""The log as an operator reads it: each event is one line, and what lasts is said when it begins and ends."""

import asyncio
import json
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.bus import SUBJECTS
from tests.support.gateway import open_stream
from tests.support.nats import nats_server
from tests.support.ports import free_port
from tests.support.processes import Running, paused, service
from tests.support.waiting import until
from tidegate_common.bus.connection import connect
from tidegate_common.bus.events.history import History
from tidegate_common.bus.jobs.queue_info import consumer_of
from tidegate_common.bus.streams.definitions import StreamLimits
from tidegate_common.bus.streams.leaders import Leaders
from tidegate_common.bus.streams.lineage import Lineage
from tidegate_common.bus.streams.upkeep import Upkeep
from tidegate_common.runtime.tasks import end

SERVICES = ["gateway", "publisher_api", "ai_worker"]


def messages(run: Running, level: str | None = None) -> list[str]:
    """What a process said so far. Each line is JSON: a stack is a field of one, and not lines of its own."""
    found: list[dict[str, Any]] = [json.loads(line) for line in run.output]
    return [each["message"] for each in found if level in (None, each["level"])]


def env(nats_url: str, **more: str) -> dict[str, str]:
    return {
        "TIDEGATE_NATS_URL": nats_url,
        "TIDEGATE_AI_BACKEND": "scripted",
        "TIDEGATE_DRAIN_SECONDS": "3",
        **more,
    }


@pytest.mark.parametrize("module", SERVICES)
async def test_a_start_and_a_stop_are_said(tmp_path: Path, module: str) -> None:
    """Nothing told what version runs where, and a stop was first heard of when its drain was over."""
    async with nats_server(tmp_path) as server:
        port = free_port()
        async with service(module, port, env(server.url)) as run:
            up = [line for line in messages(run) if line.startswith("Tidegate ")]
            assert len(up) == 1, messages(run)
            assert f"is up at http://127.0.0.1:{port}" in up[0]
            assert await run.stop() == 0
            said = messages(run)
            assert [line for line in said if line.startswith("SIGTERM: stopping")] == [said[-2]]
            assert said[-1].startswith("stopped after ")
            assert len(said) <= 6, said


async def test_a_stop_is_said_when_it_begins(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as server:
        port = free_port()
        async with service("gateway", port, env(server.url)) as run, httpx.AsyncClient() as client:
            async with client.stream("GET", f"http://127.0.0.1:{port}/api/sse?client_id=ann"):
                run.process.send_signal(signal.SIGTERM)
                await until(lambda: run.said("SIGTERM: stopping, with 1 connections"), "it is said", 1)
            assert not run.said("ann")


async def test_an_absence_of_nats_is_said_once_by_each(tmp_path: Path) -> None:
    """92 lines of one minute said that there were no jobs for now, and 433 that something was tried again."""
    port = free_port()
    async with _three(tmp_path, port) as (runs, ports, restart):
        async with httpx.AsyncClient() as client:
            await restart()

            async def all_ready() -> bool:
                return all([(await client.get(f"http://127.0.0.1:{each}/readyz")).status_code == 200 for each in ports])

            await until(all_ready, "all are ready again", 30)
        worker = runs[2]
        await until(lambda: worker.count("jobs are taken again") == 1, "jobs are taken")
        assert worker.count("no jobs are taken for now") == 1, "\n".join(worker.output)
        for run in runs:
            assert run.count("stamina") == run.count("never retrieved") == run.count("Traceback") == 0, run.output
            warnings = messages(run, "WARNING") + messages(run, "ERROR")
            assert len(warnings) == len(set(warnings)) <= 6, warnings


@asynccontextmanager
async def _three(data: Path, port: int) -> AsyncIterator[tuple[list[Running], list[int], Any]]:
    """The three services on a NATS that can be killed, and kept away for three seconds."""
    async with nats_server(data, port) as server:
        ports = [free_port() for _ in SERVICES]
        async with (
            service(SERVICES[0], ports[0], env(server.url)) as one,
            service(SERVICES[1], ports[1], env(server.url)) as two,
            service(SERVICES[2], ports[2], env(server.url)) as three,
        ):
            async with asyncio.TaskGroup() as group:
                stack: list[Any] = []

                async def restart() -> None:
                    await server.run.stop(signal.SIGKILL)
                    await until(lambda: one.said("connection lost"), "it is noticed")
                    await asyncio.sleep(3)  # how long NATS is away: what repeats has the time to
                    again = nats_server(data, port)
                    stack.append(again)
                    await again.__aenter__()

                yield [one, two, three], ports, restart
                for run in (one, two, three):
                    group.create_task(run.stop())
            for again in stack:
                await again.__aexit__(None, None, None)


async def test_nats_that_hangs_is_not_taken_for_one_without_jetstream(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as server:
        async with service("publisher_api", free_port(), env(server.url)) as run:
            async with paused(server.run):
                await until(lambda: run.said("could not be looked after"), "it is said", 30)
            assert not run.said("has to be on")
            assert len(messages(run, "WARNING")) <= 3, messages(run)


async def test_a_worker_says_once_that_nats_hangs(tmp_path: Path) -> None:
    """It said that it took no jobs, and that it opened the queue anew, which was there all the while."""
    async with nats_server(tmp_path) as server:
        async with service("ai_worker", free_port(), env(server.url)) as run:
            async with paused(server.run):
                await until(lambda: run.said("no jobs are taken for now"), "it is said", 30)
                await until(lambda: run.said("could not be looked after"), "it is looked at", 30)
            await until(lambda: run.said("jobs are taken again"), "it is over", 30)
            assert not run.said("opened anew"), run.output
            async with connect(server.url, SUBJECTS, "test") as bus:
                await bus.jetstream.delete_consumer(SUBJECTS.jobs_stream, consumer_of(0))
                await until(lambda: run.said("the queue is opened anew"), "a queue that is gone is said", 30)
                await until(lambda: run.said("the queue is there"), "it is there again", 30)


async def test_sessions_that_are_back_are_said(tmp_path: Path) -> None:
    """That they were brought back was said, and not that it was done."""
    port, nats_port = free_port(), free_port()
    async with nats_server(tmp_path, nats_port) as server, service("gateway", port, env(server.url)) as run:
        async with open_stream(f"http://127.0.0.1:{port}", {"client_id": "ann"}) as stream:
            await stream.connected()
            await server.run.stop(signal.SIGKILL)
            await until(lambda: run.said("connection lost"), "it is gone", 30)
            async with nats_server(tmp_path, nats_port):
                await until(lambda: run.said("1 of 1 sessions are live again"), "it is said", 30)


async def test_what_is_noted_already_is_not_said_to_be_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """NATS hung for some seconds, and publisher-api warned that backups would not have the stream's epoch."""
    async with nats_server(tmp_path) as server, connect(server.url, SUBJECTS, "test") as bus:
        await Upkeep(bus, StreamLimits(), Leaders(bus), keeps=True, all_needed=True).start()
        lineage = Lineage(bus, History(bus))
        await lineage.start()
        async with paused(server.run):
            await lineage.start()
        assert "noted" not in caplog.text


async def test_the_streams_are_not_looked_after_while_nats_is_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It hung, which was said, and then it was gone: at that moment all was said to be well again."""
    caplog.set_level(logging.INFO)
    port = free_port()
    async with nats_server(tmp_path, port) as server, connect(server.url, SUBJECTS, "test") as bus:
        upkeep = Upkeep(bus, StreamLimits(), Leaders(bus), keeps=True, all_needed=True)
        await upkeep.start()
        looking = asyncio.create_task(upkeep.run(0.01))
        await server.pause()
        await until(lambda: "could not be looked after" in caplog.text, "it is said", 30)
        await server.run.stop(signal.SIGKILL)
        await until(lambda: "no connection to NATS" in caplog.text, "it is gone", 30)
        async with nats_server(tmp_path, port):
            await until(lambda: "looked after again" in caplog.text, "it is over", 30)
        await end([looking])
    assert caplog.text.index("connection is back") < caplog.text.index("looked after again")


async def test_a_client_that_is_cut_off_for_its_slowness_is_said_without_its_name(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as server:
        port, api = free_port(), free_port()
        small = {"TIDEGATE_MAX_BACKLOG_BYTES": "1000", "TIDEGATE_SOCKET_SEND_BYTES": "4096"}
        async with (
            service("gateway", port, env(server.url, **small)) as run,
            service("publisher_api", api, env(server.url)),
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{api}") as client,
        ):
            slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(5)]
            for each in slow:
                each.sendall(b"GET /api/sse?client_id=secret HTTP/1.1\r\nHost: localhost\r\n\r\n")
            body = {"client_id": "secret", "event_type": "n", "data": "x" * 500_000}

            async def cut() -> bool:
                await client.post("/api/sse/send", json=body)
                return run.said("reads too slowly")

            await until(cut, "it is said", 20)
            for each in slow:
                each.close()
            assert await run.stop() == 0
            assert run.count("reads too slowly") == 1
            assert not run.said("secret")


async def test_a_gateway_that_falls_silent_is_missed(tmp_path: Path) -> None:
    """Nobody said so: receipts and presence were incomplete without a line."""
    async with nats_server(tmp_path) as server:
        settings = env(server.url)
        async with service("publisher_api", free_port(), settings) as api:
            async with service("gateway", free_port(), settings) as first, service("gateway", free_port(), settings):
                await until(lambda: api.count("is here") == 2, "both are heard")
                async with paused(first):
                    await until(lambda: api.said("has been silent for 3 s"), "one is missed")
                await until(lambda: api.said("is heard again; 2 in all"), "it is back")
                assert await first.stop() == 0
                await until(lambda: api.said("has left; 1 in all"), "one has left")
            await until(lambda: api.said("has left; 0 in all"), "both have left")
            assert api.count("has been silent") == 1


@pytest.mark.parametrize("way", ["absent", "failing"])
async def test_an_endpoint_of_telemetry_is_said_when_it_fails_and_when_it_is_back(tmp_path: Path, way: str) -> None:
    """It was 210 lines in two minutes."""
    good = asyncio.Event()
    tries = 0

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tries
        tries += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(head.partition(b"content-length:")[2].split()[0]))
            status = b"200 OK" if good.is_set() else b"404 Not Found"
            writer.write(b"HTTP/1.1 %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % status)
            await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    port = free_port()
    collector = await asyncio.start_server(take, "127.0.0.1", port) if way == "failing" else None
    async with nats_server(tmp_path) as server:
        more = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
            "OTEL_METRIC_EXPORT_INTERVAL": "200",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
            "OTEL_TRACES_EXPORTER": "none",
        }
        async with service("publisher_api", free_port(), env(server.url, **more)) as run:
            await until(lambda: run.said("metrics can't be sent"), "it is said")
            if collector is None:
                await asyncio.sleep(3)  # for some more tries
                collector = await asyncio.start_server(take, "127.0.0.1", port)
            else:
                await until(lambda: tries > 5, "it was tried again and again")
            good.set()
            await until(lambda: run.said("metrics are sent again"), "it is back", 20)
            assert run.count("metrics can't be sent") == 1, "\n".join(run.output)
            assert run.count("opentelemetry.") == 0, "\n".join(run.output)
    collector.close()


async def test_rubbish_on_the_port_is_counted(tmp_path: Path) -> None:
    """A scanner wrote a line for each of its connections."""
    async with nats_server(tmp_path) as server:
        port = free_port()
        async with service("gateway", port, env(server.url)) as run:
            for _ in range(20):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"\x16\x03\x01\x02\x00\x01 rubbish\r\n\r\n")
                await reader.read(100)
                writer.close()
            async with open_stream(f"http://127.0.0.1:{port}", {"client_id": "a"}) as stream:
                await stream.connected()
            assert len(messages(run, "WARNING")) <= 1, messages(run)


async def test_workers_and_their_parent_say_who_died(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as server:
        async with service("gateway", free_port(), env(server.url, TIDEGATE_WORKERS="2")) as run:
            await until(lambda: run.count("is up at") == 2, "both are up", 30)
            number = next(line for line in messages(run) if "is up at" in line).partition("(process ")[2].rstrip(")")
            os.kill(int(number), signal.SIGKILL)
            await until(lambda: run.said("a worker has died by SIGKILL"), "it is said")
            await until(lambda: run.count("is up at") == 3, "another is up", 30)
            assert await run.stop() == 0
            assert run.said("told to stop 2 workers")
