"""The benchmark's own C programs: compiled here, driven by lines on their standard input and output."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

NATIVE = Path(__file__).with_name("native")
ANSWER_SECONDS = 300.0


def compile_all(build: Path) -> None:
    """Compiles native/*.c into `build`. Raises subprocess.CalledProcessError, FileNotFoundError (no compiler)."""
    build.mkdir(parents=True, exist_ok=True)
    for source in NATIVE.glob("*.c"):
        target = build / source.stem
        if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
            subprocess.run(["cc", "-O2", "-Wall", "-o", str(target), str(source)], check=True)


class Tool:
    """A running C program."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @property
    def pid(self) -> int:
        return self.process.pid

    async def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        await self.process.stdin.drain()

    async def ask(self, line: str) -> bytes:
        """The answer to a command. Raises RuntimeError where the program has ended, TimeoutError."""
        await self.tell(line)
        assert self.process.stdout is not None
        async with asyncio.timeout(ANSWER_SECONDS):
            answer = await self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"ended during {line!r}")
        return answer


@asynccontextmanager
async def tool(*command: str) -> AsyncIterator[Tool]:
    """`command` running; the end of its input ends it."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield Tool(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


class Opened(msgspec.Struct):
    opened: int
    refused: int
    refusal: str
    seconds: float


class Account(msgspec.Struct):
    """What came to all streams since the last reset; times from publishing to reading, on one clock."""

    delivered: int
    bytes: int
    open: int
    lost: int
    """Streams that ended."""
    broken: int
    """Events whose number could not be read."""
    fewest: int
    """Events on the stream that got the fewest."""
    most: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    seconds: float


class LoadClient:
    """Event streams held by the C load client (native/client.c tells the commands)."""

    def __init__(self, program: Tool) -> None:
        self._program = program

    async def open(self, count: int, path: str, window: int = 64) -> Opened:
        """Opens `count` more. Raises RuntimeError where one is refused."""
        return await self._open("open", count, path, window)

    async def churn(self, count: int, path: str, window: int = 64) -> Opened:
        """Opens `count` one after the other, `window` at a time, and closes each as soon as it is open."""
        return await self._open("churn", count, path, window)

    async def turned_away(self, count: int, path: str, status: int, window: int = 64) -> None:
        """Asks for `count` streams that are all refused. Raises RuntimeError where one is not, or not so."""
        found = msgspec.json.decode(await self._program.ask(f"churn {count} {window} {path}"), type=Opened)
        if found.refused != count or f" {status} " not in found.refusal:
            raise RuntimeError(f"{found.refused} of {count} streams were refused: {found.refusal}")

    async def bring(self, tokens: Sequence[str], file: Path) -> None:
        """The streams that are opened from now on bring these, one each in turn; `file` is where they are told."""
        file.write_text("".join(f"{token}\n" for token in tokens))
        await self._program.ask(f"tokens {file}")

    async def _open(self, how: str, count: int, path: str, window: int) -> Opened:
        found = msgspec.json.decode(await self._program.ask(f"{how} {count} {window} {path}"), type=Opened)
        if found.refused:
            raise RuntimeError(f"{found.refused} of {count} streams were refused: {found.refusal}")
        return found

    async def reset(self) -> None:
        await self._program.ask("reset")

    async def close(self) -> None:
        await self._program.ask("close")

    async def wait(self, events: int, seconds: float) -> Account:
        """The account as soon as `events` came since the last reset, or after `seconds`."""
        return msgspec.json.decode(await self._program.ask(f"wait {events} {seconds}"), type=Account)

    async def record(self, count: int) -> None:
        """Keeps stream, number and time of each event from now on, of `count` at most."""
        await self._program.ask(f"record {count}")

    async def dump(self, file: Path) -> int:
        """Writes what was recorded; gives how many."""
        answer: Any = json.loads(await self._program.ask(f"dump {file}"))
        return int(answer["records"])


@asynccontextmanager
async def load_client(
    build: Path, port: int, ready: str = "\r\n\r\n", marker: str = "@T=", *, measure_text: bool = False
) -> AsyncIterator[LoadClient]:
    """A load client of 127.0.0.1:`port`; `ready` is the text that says that a stream is open.

    With `measure_text` an event's number is the length of the text from `marker` to the next quotation mark.
    """
    kind = "text" if measure_text else "marker"
    async with tool(str(build / "client"), str(port), "ready", ready, kind, marker) as program:
        yield LoadClient(program)
