"""Real processes: started with an environment of their own, read line by line, ended by id."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from tests.support.least_rights import as_service_in
from tests.support.streams import make_streams_for
from tests.support.waiting import until


class Running:
    """A process; `output` holds its lines, standard error and output together, as they come."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.output: list[str] = []
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.output.append(line.decode(errors="replace").rstrip())

    def said(self, text: str) -> bool:
        """Whether some line holds `text`."""
        return any(text in line for line in self.output)

    def count(self, text: str) -> int:
        """In how many lines `text` is."""
        return sum(text in line for line in self.output)

    async def stop(self, sig: signal.Signals = signal.SIGTERM, seconds: float = 20) -> int:
        """Sends `sig` and gives the exit code; kills it after `seconds`, which is an error."""
        if self.process.returncode is None:
            self.process.send_signal(sig)
        try:
            async with asyncio.timeout(seconds):
                code = await self.process.wait()
                await self._reading
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
            raise AssertionError(
                f"still there {seconds} s after {sig.name}:\n" + "\n".join(self.output[-30:])
            ) from None
        return code


@asynccontextmanager
async def running(
    *command: str, env: Mapping[str, str] | None = None, cwd: str | None = None
) -> AsyncIterator[Running]:
    """`command` running, ended at the latest with the block. `env` is added to PATH and HOME only."""
    base = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG") if name in os.environ}
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**base, "PYTHONUNBUFFERED": "1", **(env or {})},
        cwd=cwd,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        limit=1 << 20,
    )
    run = Running(process)
    try:
        yield run
    finally:
        with contextlib.suppress(ProcessLookupError):
            await run.stop()


@asynccontextmanager
async def paused(run: Running) -> AsyncIterator[None]:
    """`run` stands still meanwhile."""
    try:
        await halt(run.process.pid)
        yield
    finally:
        if run.process.returncode is None:
            run.process.send_signal(signal.SIGCONT)


async def halt(pid: int) -> None:
    """Returns when the process stands still, with all threads.

    The signal needs a moment to reach them, in which they answer; and one that is sent behind it may overtake it.
    """
    os.kill(pid, signal.SIGSTOP)
    await until(lambda: _stands_still(pid), "the process has stopped")


def _stands_still(pid: int) -> bool:
    return all(
        path.read_text().rpartition(")")[2].split()[0] == "T" for path in Path(f"/proc/{pid}/task").glob("*/stat")
    )


@asynccontextmanager
async def service(
    module: str, port: int, env: Mapping[str, str], seconds: float = 20, *, python: str = sys.executable
) -> AsyncIterator[Running]:
    """`python -m module` on loopback `port`, ready to take traffic. What publisher-api makes for it is made before."""
    if module != "publisher_api":
        await make_streams_for(env)
    env = {"TIDEGATE_PORT": str(port), **as_service_in(env, module)}
    async with running(python, "-m", module, env=env) as run:
        # Asked over HTTP only once it listens: a client's attempts in vain cost as much CPU as the start itself.
        await until(lambda: run.process.returncode is not None or listens(port), f"{module} listens", seconds)
        async with httpx.AsyncClient() as client:

            async def ready() -> bool:
                assert run.process.returncode is None, "\n".join(run.output)
                try:
                    return (await client.get(f"http://127.0.0.1:{port}/readyz")).status_code == 200
                except httpx.TransportError:
                    return False

            await until(ready, f"{module} is ready", seconds)
        yield run


def listens(port: int) -> bool:
    """Whether something listens on loopback `port`."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
