"""Builds one publisher-api: the only place that knows all its parts."""

from __future__ import annotations

from typing import NamedTuple

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from publisher_api.events.batch import BatchSender
from publisher_api.events.repeats import Repeats
from publisher_api.events.sender import EventSender
from publisher_api.http import job_endpoints, revocation_endpoints
from publisher_api.http.docs import docs_routes
from publisher_api.http.endpoints import Endpoints
from publisher_api.http.job_endpoints import JobEndpoints
from publisher_api.http.revocation_endpoints import RevocationEndpoints
from publisher_api.http.ticket_endpoints import TicketEndpoints
from publisher_api.http.tracing import traced
from publisher_api.jobs.dead import DeadLetters
from publisher_api.jobs.progress import QueueProgress
from publisher_api.settings import PublisherSettings
from tidegate_common.auth.identity import Identity
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.history import History
from tidegate_common.bus.events.publisher import EventPublisher
from tidegate_common.bus.jobs.budgets import Budgets
from tidegate_common.bus.jobs.cancel import Cancellation
from tidegate_common.bus.jobs.dead import DeadJobs
from tidegate_common.bus.jobs.enqueue import QueueWriter
from tidegate_common.bus.jobs.records import JobRecords
from tidegate_common.bus.jobs.submit import JobSubmitter
from tidegate_common.bus.requests.gateways import AllGateways
from tidegate_common.bus.requests.roll import Roll
from tidegate_common.bus.streams.leaders import Leaders
from tidegate_common.bus.streams.lineage import Lineage
from tidegate_common.bus.streams.upkeep import Upkeep
from tidegate_common.runtime import problems
from tidegate_common.runtime.attendance import attended
from tidegate_common.runtime.authentication import Authentication
from tidegate_common.runtime.connected import connected, serve
from tidegate_common.runtime.guard import HTTP_REFUSED, Guard
from tidegate_common.runtime.health import Readiness, health_routes
from tidegate_common.runtime.metrics_port import metrics_port
from tidegate_common.runtime.paths import Utf8Paths
from tidegate_common.runtime.query import Ignored, strict
from tidegate_common.runtime.server import Server, check_port_free, server
from tidegate_common.runtime.tasks import end, spawn
from tidegate_common.telemetry import names
from tidegate_common.telemetry.providers import Telemetry, telemetry

REQUEST_HEADERS = ["authorization", "content-type", "idempotency-key", "traceparent", "tracestate", "baggage"]
"""What a page of another origin may send: its token too, which a proxy in front of this service may want."""


class Built(NamedTuple):
    """The ASGI app of one publisher-api, and what has to run beside it."""

    app: ASGIApp
    progress: QueueProgress
    readiness: Readiness
    roll: Roll
    guard: Guard
    upkeep: Upkeep
    lineage: Lineage
    identity: Identity
    routes: list[BaseRoute]


async def build(settings: PublisherSettings, bus: Bus, signals: Telemetry) -> Built:
    """One publisher-api on `bus`. Raises BrokerUnavailable."""
    leaders = Leaders(bus, settings.patience())
    history = History(bus, leaders)
    publisher = EventPublisher(bus, history, leaders=leaders)
    records, dead = JobRecords(bus, leaders, publisher.refusals), DeadJobs(bus)
    upkeep = Upkeep(bus, settings.stream_limits(), leaders, keeps=True, all_needed=True, refusals=publisher.refusals)
    identity = Identity(settings, bus, signals, makes_key=True, leaders=leaders)
    upkeep.on_remade.append(identity.look_again)
    readiness = Readiness(bus, upkeep.lacks, tokens=identity.authenticator.check_ready)
    progress = QueueProgress(bus, records, publisher)
    gateways = AllGateways(bus)
    sender = EventSender(
        publisher, Repeats(bus), gateways, bus.subjects, signals.tracer, settings.max_event_ttl_seconds
    )
    queue = QueueWriter(bus, publisher, records, progress.follow, settings.jobs_max_per_owner)
    submitter = JobSubmitter(bus, history, queue, Budgets(bus, records, leaders), signals.tracer)
    identity.limits.others = submitter.refused
    jobs = JobEndpoints(
        submitter,
        records,
        history,
        Cancellation(bus, records, publisher, history),
        DeadLetters(dead, submitter),
        identity,
        settings.max_body_bytes,
    )
    api = [
        *Endpoints(settings, sender, BatchSender(sender), gateways, identity).routes(),
        *jobs.routes(),
    ]
    if settings.asks:
        api += RevocationEndpoints(settings, identity).routes()
        api += TicketEndpoints(settings, identity, records).routes()
    parameters = {**job_endpoints.PARAMETERS, **revocation_endpoints.PARAMETERS}
    ignored = Ignored(settings.ignored_parameters)
    app = Starlette(
        routes=[
            *(strict(route, ignored, parameters.get(route.path, ())) for route in api),
            *docs_routes(settings.asks),
            *health_routes(signals, readiness, settings),
        ],
        middleware=[
            Middleware(
                CORSMiddleware,
                allow_origins=list(settings.cors_origins),
                allow_methods=["GET", "POST", "DELETE"],
                allow_headers=REQUEST_HEADERS,
                # For the cookie, of pages that are listed: `*` gets none (Fetch, 3.2.5).
                allow_credentials=bool(settings.auth_cookie) and "*" not in settings.cors_origins,
                expose_headers=["retry-after", "www-authenticate"],
            ),
            Middleware(Utf8Paths),
            Middleware(
                Authentication,
                identity,
                open_paths=("/openapi.json", "/api/openapi.json", "/docs", "/api/docs"),
                open_starts=("/docs/", "/api/docs/"),
            ),
        ],
    )
    problems.install(app)
    signals.observe(
        "counter", names.METRIC_FOREIGN, lambda: bus.foreign.counts, "{thing}", "Passed over on NATS", label="what"
    )
    signals.observe(
        "counter", names.METRIC_PUBLISHED, lambda: publisher.published, "{message}", "Events published", label="kind"
    )
    guard = Guard(settings.http_limits())
    signals.observe("counter", names.METRIC_HTTP_REFUSED, lambda: guard.refused, "{request}", HTTP_REFUSED)
    refused = publisher.refusals.counts
    signals.observe("counter", names.METRIC_PUBLISHES_REFUSED, lambda: refused, "{message}", "Publishes refused")
    signals.observe(
        "updown", names.METRIC_REQUESTS_WAITING, lambda: leaders.waiting, "{request}", "Requests that wait for NATS"
    )
    lineage = Lineage(bus, history, settings.events_restored)
    roll = Roll(bus, gateways.live)
    return Built(
        attended(traced(app, signals)), progress, readiness, roll, guard, upkeep, lineage, identity, app.routes
    )


async def main(settings: PublisherSettings) -> None:
    """Runs publisher-api until it is told to stop. Raises ConfigError, BrokerUnavailable if it can't start."""
    check_port_free(settings)
    with telemetry("publisher-api") as signals:
        async with connected(settings, "publisher-api", signals) as bus:
            built = await build(settings, bus, signals)
            await built.upkeep.start()
            await built.lineage.start()  # before anything is stored, and has an id
            await built.identity.start()
            beside = [
                spawn(built.upkeep.run(), "looking after the streams"),
                spawn(built.lineage.run(), "noting the stream's lives"),
                spawn(built.progress.run(), "telling places in the queue"),
                spawn(built.roll.run(), "hearing which gateways are here"),
            ]
            try:
                listening = serving(built, settings)
                listening.on_stopping = signals.stop_by
                async with metrics_port(settings, signals):
                    await serve(listening, bus)
            finally:
                await end(beside)
                await built.identity.aclose()


def serving(built: Built, settings: PublisherSettings) -> Server:
    """A server that says it is not ready before it stops."""

    async def drain() -> None:
        built.readiness.draining = True

    return server(built.app, settings, drain=drain, guard=built.guard)
