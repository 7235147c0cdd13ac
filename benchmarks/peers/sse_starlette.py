"""sse-starlette with a queue for each client, on uvicorn and uvloop: what most Python users run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from benchmarks.options import Options
from benchmarks.peers.answering import until_answering
from benchmarks.server import NotHad, Server
from tests.support.ports import free_port
from tests.support.processes import running

APP = Path(__file__).with_name("queue_per_client.py")
LOCK = Path(__file__).parents[2] / "requirements" / "peers.lock"


def _python(options: Options) -> Path:
    """An interpreter that has what the lock says. Raises NotHad."""
    home = options.build / "sse-starlette"
    installed = home / "installed.lock"
    if not installed.exists() or installed.read_bytes() != LOCK.read_bytes():
        pip = [str(home / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        for command in (
            [sys.executable, "-m", "venv", "--clear", str(home)],
            [*pip, "--no-deps", "--require-hashes", "-r", str(LOCK)],
        ):
            said = subprocess.run(command, capture_output=True, text=True)
            if said.returncode:
                why = (said.stderr.strip().splitlines() or ["?"])[-1]
                raise NotHad(f"sse-starlette could not be installed: {why}")
        installed.write_bytes(LOCK.read_bytes())
    return home / "bin/python"


@asynccontextmanager
async def sse_starlette(options: Options) -> AsyncIterator[Server]:
    """One process. Raises NotHad."""
    port = free_port()
    async with running(str(_python(options)), "-P", str(APP), str(port)) as run:
        await until_answering(port, run)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:

            async def publish(text: str) -> None:
                (await http.post("/publish", content=text)).raise_for_status()

            yield Server("sse-starlette", port, "/stream", [run.process.pid], publish, "event: connected")
