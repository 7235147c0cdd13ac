"""`/metrics` on a port of its own, where nobody is asked who they are: it is for the network that Prometheus is in."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tidegate_common.runtime import problems
from tidegate_common.runtime.environment import CommonSettings
from tidegate_common.runtime.guard import Guard
from tidegate_common.runtime.health import metrics_answer
from tidegate_common.runtime.hosts import HostCheck, Hosts, problem
from tidegate_common.runtime.listening import in_url, listening
from tidegate_common.runtime.server import HEADERS
from tidegate_common.runtime.tasks import spawn
from tidegate_common.runtime.uvicorn_http.protocol import limited
from tidegate_common.telemetry.providers import Telemetry

log = logging.getLogger(__name__)

VARIABLE = "TIDEGATE_METRICS_PORT"

STOP_SECONDS = 1
"""How long an answer may take once the process has stopped: the metrics are there until the end of its drain."""


class _Beside(uvicorn.Server):
    """A second server of a process, which leaves the signals to the first."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def metrics_port(settings: CommonSettings, signals: Telemetry, worker: int = 0) -> AsyncIterator[None]:
    """Serves the metrics on their port meanwhile, if they have one. Each `worker` has the next one.

    Raises ConfigError if it can't be listened on.
    """
    if not settings.metrics_port:
        yield
        return
    sockets = listening(settings.host, settings.metrics_port + worker, variable=VARIABLE)
    server = _Beside(_config(settings, signals))
    for each in sockets:
        log.info("metrics are at http://%s/metrics", in_url(*each.getsockname()[:2]))
    serving = spawn(server.serve(sockets), "serving the metrics")
    try:
        yield
    finally:
        server.should_exit = True
        await asyncio.wait([serving])


def _config(settings: CommonSettings, signals: Telemetry) -> uvicorn.Config:
    async def metrics(_: Request) -> Response:
        return metrics_answer(signals)

    app = Starlette(routes=[Route("/metrics", metrics)])
    problems.install(app)
    return uvicorn.Config(
        HostCheck(app, Hosts(settings.allowed_hosts), problem),
        http=limited(Guard(settings.http_limits())),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        headers=HEADERS,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
