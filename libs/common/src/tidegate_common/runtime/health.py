"""`/healthz` (alive), `/readyz` (may take traffic) and `/metrics` of every service."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tidegate_common.bus.connection import Bus
from tidegate_common.errors import TidegateError
from tidegate_common.telemetry.providers import Telemetry

Check = Callable[[], Awaitable[None]]
"""Raises a TidegateError where the thing that it checks is not ready."""


class Readiness:
    """Whether a process may take traffic: NATS answers a round trip, nothing drains, and `checks` hold."""

    def __init__(self, bus: Bus, **checks: Check) -> None:
        self.draining = False
        self._checks: dict[str, Check] = {"nats": bus.round_trip, **checks}

    async def faults(self) -> dict[str, str]:
        """What is not ready, and why."""
        found = {"process": "draining"} if self.draining else {}
        for name, check in self._checks.items():
            try:
                await check()
            except TidegateError as error:
                found[name] = str(error)
        return found


def health_routes(telemetry: Telemetry, readiness: Readiness) -> list[Route]:
    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "alive", "service": telemetry.service})

    async def readyz(_: Request) -> Response:
        faults = await readiness.faults()
        body = {"status": "not ready" if faults else "ready", "service": telemetry.service, "faults": faults}
        return JSONResponse(body, 503 if faults else 200, {"Cache-Control": "no-store"})

    async def metrics(_: Request) -> Response:
        body, media_type = telemetry.prometheus()
        return Response(body, headers={"content-type": media_type})

    return [Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics)]
