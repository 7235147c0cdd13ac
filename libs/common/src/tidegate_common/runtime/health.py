"""`/healthz` (alive), `/readyz` (may take traffic) and `/metrics` of every service."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tidegate_common.bus.connection import Bus
from tidegate_common.bus.streams.upkeep import Lack
from tidegate_common.errors import BrokerRefused, TidegateError
from tidegate_common.runtime.authentication import principal_of
from tidegate_common.runtime.environment import CommonSettings
from tidegate_common.telemetry.providers import Telemetry

Check = Callable[[], Awaitable[None]]
"""Raises a TidegateError if the thing that it checks is not ready."""

Lacks = Callable[[], Awaitable[list[Lack]]]


class Standing(NamedTuple):
    """How a process stands: `faults` are its own, `dependencies` what others lack, in words, by name."""

    ready: bool
    faults: dict[str, str]
    dependencies: dict[str, str]


class Readiness:
    """Whether a process may take traffic: NATS answers a round trip, nothing drains, `checks` hold, and the streams it
    can't do without are as they have to be. A stream in an election is named, and no reason to send traffic elsewhere:
    the process waits, as any other would.
    """

    def __init__(self, bus: Bus, streams: Lacks | None = None, **checks: Check) -> None:
        """`checks` are of what this process does itself."""
        self.draining = False
        self._streams = streams
        self._bus = bus
        self._checks: dict[str, Check] = {"nats": bus.round_trip, **checks}

    def check_alive(self) -> None:
        """Raises BrokerRefused if the process is about to end, since NATS has refused it for too long."""
        self._bus.check_refused()

    async def faults(self) -> dict[str, str]:
        """What is not ready of the process itself, and why."""
        found = {"process": "draining"} if self.draining else {}
        for name, check in self._checks.items():
            try:
                await check()
            except TidegateError as error:
                found[name] = str(error)
        return found

    async def standing(self) -> Standing:
        faults = await self.faults()
        # Without NATS nothing can be asked about them.
        lacks = await self._streams() if self._streams is not None and "nats" not in faults else []
        ready = not faults and not any(each.needed and not each.passing for each in lacks)
        return Standing(ready, faults, {each.stream: each.reason for each in lacks})


def health_routes(telemetry: Telemetry, readiness: Readiness, settings: CommonSettings) -> list[Route]:
    """`/metrics` is among them, unless it has a port of its own (metrics_port.py). It needs the right `metrics`."""

    async def healthz(_: Request) -> Response:
        try:
            readiness.check_alive()
        except BrokerRefused as error:
            return JSONResponse({"status": "ending", "service": telemetry.service, "fault": str(error)}, 503)
        return JSONResponse({"status": "alive", "service": telemetry.service})

    async def readyz(_: Request) -> Response:
        ready, faults, dependencies = await readiness.standing()
        body = {
            "status": "ready" if ready else "not ready",
            "service": telemetry.service,
            "faults": faults,
            "dependencies": dependencies,
        }
        return JSONResponse(body, 200 if ready else 503, {"Cache-Control": "no-store"})

    async def metrics(request: Request) -> Response:
        principal_of(request).check_admin("metrics")
        return metrics_answer(telemetry)

    routes = [Route("/healthz", healthz), Route("/readyz", readyz)]
    return routes if settings.metrics_port else [*routes, Route("/metrics", metrics)]


def metrics_answer(telemetry: Telemetry) -> Response:
    """The metrics as Prometheus reads them."""
    body, media_type = telemetry.prometheus()
    return Response(body, headers={"content-type": media_type})
