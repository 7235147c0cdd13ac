"""A process's limit of open files, which connections meet before any limit of ours where it is low."""

import asyncio
import resource
import sys
from pathlib import Path

import pytest

from tests.support.bus import broker
from tests.support.http import answer_in, head
from tests.support.nats import nats_server
from tests.support.ports import free_port
from tests.support.processes import running
from tests.support.waiting import until

SERVICES = ["gateway", "publisher_api", "ai_worker"]


def started(module: str, limit: str) -> tuple[str, ...]:
    """`module` under a limit of open files that `ulimit` sets."""
    return ("sh", "-c", f"ulimit {limit}; exec {sys.executable} -m {module}")


@pytest.mark.parametrize("module", SERVICES)
async def test_a_process_raises_its_limit_to_what_its_sockets_need(module: str, tmp_path: Path) -> None:
    """A shell's limit is 1024 files. Past it connections were closed that nothing counted, and NATS could not be
    reached again once it had gone."""
    async with broker(tmp_path) as (nats, _):
        env = {"TIDEGATE_NATS_URL": nats.url, "TIDEGATE_PORT": str(free_port()), "TIDEGATE_AI_BACKEND": "scripted"}
        async with running(*started(module, "-Sn 256"), env=env) as run:
            await until(lambda: run.said("is up at"), "it is up", 20)
            soft, _ = resource.prlimit(run.process.pid, resource.RLIMIT_NOFILE)
            assert soft > 4096
            assert not run.said("files open")


@pytest.mark.parametrize("module", SERVICES)
async def test_where_the_limit_can_not_be_raised_fewer_are_taken_and_nats_is_still_reached(
    module: str, tmp_path: Path
) -> None:
    port, settings = free_port(), {"TIDEGATE_AI_BACKEND": "scripted", "TIDEGATE_HEAD_SECONDS": "60"}
    async with broker(tmp_path) as (nats, _):
        env = {"TIDEGATE_NATS_URL": nats.url, "TIDEGATE_PORT": str(port), **settings}
        async with running(*started(module, "-n 94"), env=env) as run:
            await until(lambda: run.said("is up at"), "it is up", 20)
            assert run.said("this process may have 94 files open, so that it takes 30 connections")
            clients = [await asyncio.open_connection("127.0.0.1", port) for _ in range(100)]
            await until(lambda: run.said("all 30 sockets are taken"), "it is said")
            assert await asked(*clients[0]) == 200
            await nats.run.stop()
            async with nats_server(tmp_path, nats.port):

                async def ready() -> bool:
                    return await asked(*clients[0]) == 200

                await until(lambda: run.said("NATS connection is back"), "NATS is reached again", 20)
                await until(ready, "it is ready again", 20)
            for _, writer in clients:
                writer.close()


async def asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
    """The status of `/readyz` on a connection that is kept."""
    writer.write(head("GET /readyz HTTP/1.1"))
    told = answer_in(await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10))
    length = next(line for line in told.head.split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(int(length.split()[1]))
    return told.status
