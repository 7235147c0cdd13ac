"""Several gateways on one port: a parent that starts them, watches them and passes signals on.

Each worker is a whole gateway with its own connections, limits and connection to NATS; they share nothing but the port,
which the kernel spreads connections over, half and half (with one inherited socket it was three to two). uvicorn's own
supervisor (uvicorn.supervisors.Multiprocess) makes the app before there is a loop, and starts again without a pause.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from typing import NamedTuple

from gateway.settings import GatewaySettings
from tidegate_common.runtime.listening import listening
from tidegate_common.runtime.process import EXIT_REFUSED, EXIT_UNAVAILABLE
from tidegate_common.runtime.server import check_port_free

log = logging.getLogger(__name__)

WORKER_PORTS = "TIDEGATE_WORKER_PORTS"
"""The setting that a port of a worker's own comes from."""

VARIABLE = "TIDEGATE_WORKER"
"""Set by the parent for its workers alone."""

SPARE_SECONDS = 10.0
"""A worker that is still there so long after the drain time is killed: it is stuck."""

AGAIN_SECONDS = (0.2, 10.0)
"""A worker that died is started again after the first; each time after twice as long, up to the second."""

LOOK_SECONDS = 0.5
"""Between looks whether all workers have ended."""

STEADY_SECONDS = 30.0
"""A worker that was ready for so long starts anew with the first."""


class GatewayWorker(NamedTuple):
    """What a worker is told: its number, and the ends of two pipes."""

    number: int
    ready: int
    """To be written to once it listens."""
    parent: int
    """At its end when the parent is gone."""

    @classmethod
    def from_environment(cls) -> GatewayWorker | None:
        """This process's own; None if it is no worker."""
        text = os.environ.get(VARIABLE)
        return cls(*map(int, text.split(","))) if text else None

    def is_ready(self) -> None:
        """Tells the parent, once."""
        os.write(self.ready, b"1")
        os.close(self.ready)

    def watch_parent(self) -> None:
        """Drains as on SIGTERM when the parent is gone."""
        asyncio.get_running_loop().add_reader(self.parent, self._alone)

    def _alone(self) -> None:
        asyncio.get_running_loop().remove_reader(self.parent)
        os.kill(os.getpid(), signal.SIGTERM)


class Workers:
    """The parent's side."""

    def __init__(self, count: int, drain_seconds: float) -> None:
        self._count = count
        self._patience = drain_seconds + SPARE_SECONDS
        self._forced = asyncio.Event()
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()
        self._lifeline = os.pipe()
        self._code = 0

    async def run(self) -> int:
        """Until told to stop, or a worker could not start. Gives the exit code: 0 for a clean end."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop)
        loop.add_signal_handler(signal.SIGINT, self._stop)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pass_on())
            # One alone at first: what keeps it from starting would keep them all, and is said once.
            code = await self._start(0)
            if code is None:
                for number in range(self._count):
                    group.create_task(self._keep(number))
            else:
                self._give_up(code)
        return self._code

    def _stop(self) -> None:
        """The first time in order, the second time at once."""
        again = self._stopping.is_set()
        log.info("told to stop %d workers%s", len(self._processes), " at once" if again else "")
        (self._forced if again else self._stopping).set()

    def _give_up(self, code: int) -> None:
        """What has never been ready can't start, and what NATS refuses goes for all: the others are ended, too."""
        if not self._stopping.is_set():
            self._code = code
            self._stopping.set()

    async def _keep(self, number: int) -> None:
        """One worker, started again whenever it dies after it was once ready; until the end of its last one."""
        if number not in self._processes:
            code = await self._start(number)
            if code is not None:
                self._give_up(code)
                return
        loop = asyncio.get_running_loop()
        pause, began = AGAIN_SECONDS[0] / 2, loop.time()
        while number in self._processes or not self._stopping.is_set():
            if number in self._processes or await self._start(number) is None:
                code = await self._processes[number].wait()
                del self._processes[number]
                if self._stopping.is_set():
                    self._code = self._code or abs(code)
                    return
                if code == EXIT_REFUSED:
                    self._give_up(code)
                    return
                how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
                log.error(
                    "a worker has died %s and is started again: its streams come back, and its own log says why",
                    how,
                    extra={"worker": number, "exit_code": code},
                )
            pause = AGAIN_SECONDS[0] if loop.time() - began > STEADY_SECONDS else min(pause * 2, AGAIN_SECONDS[1])
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopping.wait()
            began = loop.time()

    async def _start(self, number: int) -> int | None:
        """Starts a worker and returns when it listens; its exit code (not 0) if it ended before."""
        ready, tell = os.pipe()
        worker = GatewayWorker(number, tell, self._lifeline[0])
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "gateway",
            env={**os.environ, VARIABLE: ",".join(map(str, worker))},
            pass_fds=(tell, self._lifeline[0]),
            start_new_session=True,  # a terminal's Ctrl-C is for the parent, which passes it on
        )
        os.close(tell)
        self._processes[number] = process
        if self._stopping.is_set():
            process.terminate()
        try:
            said = await asyncio.get_running_loop().run_in_executor(None, os.read, ready, 1)
        finally:
            os.close(ready)
        if said:
            return None
        del self._processes[number]
        code = await process.wait()
        return code if code > 0 else EXIT_UNAVAILABLE

    async def _pass_on(self) -> None:
        await self._stopping.wait()
        self._signal(signal.SIGTERM)
        deadline = asyncio.get_running_loop().time() + self._patience
        while self._processes:
            try:
                async with asyncio.timeout_at(min(deadline, asyncio.get_running_loop().time() + LOOK_SECONDS)):
                    await self._forced.wait()
            except TimeoutError:
                if asyncio.get_running_loop().time() < deadline:
                    continue
            log.error("workers that do not end are killed", extra={"workers": sorted(self._processes)})
            self._signal(signal.SIGKILL)
            return

    def _signal(self, sig: signal.Signals) -> None:
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(sig)


async def supervise(settings: GatewaySettings) -> None:
    """Runs `settings.workers` gateways. Raises ConfigError if a port is taken, SystemExit with a worker's code."""
    check_port_free(settings)
    for number in range(settings.workers if settings.worker_ports else 0):
        for bound in listening(settings.host, settings.worker_ports + number, variable=WORKER_PORTS):
            bound.close()
    code = await Workers(settings.workers, settings.drain_seconds).run()
    if code:
        sys.exit(code)
