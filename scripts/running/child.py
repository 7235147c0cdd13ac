"""A running part: started so that it can't outlive the runner, read line by line, ended within a time."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections import deque
from collections.abc import Callable

from scripts.running.plan import ROOT, Fault, Part
from scripts.running.screen import Screen, serious

KEPT_LINES = 15
PR_SET_PDEATHSIG = 1


def _die_with(parent: int) -> Callable[[], None]:
    """For the child, before exec: the kernel kills it when `parent` dies, however that dies (Linux only)."""
    prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None

    def arrange() -> None:
        if prctl is not None:
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)

    return arrange


class Child:
    """A running part: its process, whether its lines are shown yet, and the last of those that were not."""

    def __init__(self, part: Part, process: asyncio.subprocess.Process, screen: Screen) -> None:
        self.part = part
        self.process = process
        self.unshown: deque[str] = deque(maxlen=KEPT_LINES)
        self.shown = False
        self._screen = screen
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, part: Part, screen: Screen) -> Child:
        """Raises Fault where the program can't be run."""
        try:
            process = await asyncio.create_subprocess_exec(
                *part.command,
                env=part.env,
                cwd=ROOT,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                limit=1 << 20,
                start_new_session=True,  # the terminal's Ctrl-C reaches the runner alone, which ends all in order
                preexec_fn=_die_with(os.getpid()),
            )
        except OSError as error:
            hint = " (set TIDEGATE_NATS_URL to a server of yours)" if part.name == "nats" else ""
            raise Fault(f"{part.command[0]} can't be run here: {error.strerror}{hint}") from None
        return cls(part, process, screen)

    async def ended(self) -> int:
        """The exit code, once the process is gone and its output is read."""
        code = await self.process.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                await asyncio.shield(self._reading)
        return code

    async def stop(self, hurry: asyncio.Event) -> None:
        """SIGTERM, then SIGKILL to its group after `stop_seconds`, or as soon as `hurry` is set."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.terminate()
            waits = {asyncio.create_task(self.process.wait()), asyncio.create_task(hurry.wait())}
            _, left = await asyncio.wait(waits, timeout=self.part.stop_seconds, return_when=asyncio.FIRST_COMPLETED)
            for task in left:
                task.cancel()
        if self.process.returncode is None:
            self._screen.status(self.part.name, "killed", "" if hurry.is_set() else "it did not end in time")
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        await self.ended()
        self._reading.cancel()

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while True:
            try:
                raw = await self.process.stdout.readline()
            except ValueError:  # a line over the limit
                continue
            if not raw:
                return
            line = raw.decode(errors="replace").rstrip()
            if self.shown or serious(line):
                self._screen.log(self.part.name, line)
            else:
                self.unshown.append(line)
