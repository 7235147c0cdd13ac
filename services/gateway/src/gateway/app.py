"""Builds one gateway: the only place that knows all its parts."""

from __future__ import annotations

import asyncio
import gc
import socket
from typing import Any

from msgspec import structs
from starlette.applications import Starlette
from starlette.middleware import Middleware

from gateway import frame
from gateway.feed.attachment import Attachments
from gateway.feed.audit import Audit
from gateway.feed.control import Control
from gateway.feed.holes import HoleDetector
from gateway.feed.life import StreamLife
from gateway.feed.receipts import Receipts
from gateway.feed.recovery import Recovery
from gateway.feed.repair import Repairs
from gateway.feed.replay import Replay
from gateway.feed.stream_ends import StreamEnds
from gateway.feed.subscriptions import Subscriptions
from gateway.feed.ticket_uses import TicketUses
from gateway.hub.endings import Ending
from gateway.hub.expiry import Expiry
from gateway.hub.heartbeat import Heartbeat
from gateway.hub.hub import Hub
from gateway.openai import caller
from gateway.openai.completions import Completions
from gateway.openai.http import OpenAiFront, refusal
from gateway.openai.model_list import ModelList
from gateway.openai.rate_headers import RATE_HEADERS
from gateway.openapi import OPENAPI, openapi_route
from gateway.settings import GatewaySettings
from gateway.sse.admission import Admission
from gateway.sse.console import console_routes
from gateway.sse.cors import Cors
from gateway.sse.endpoint import PATH, StreamEndpoint
from gateway.sse.fastpath import FastPath
from gateway.sse.job_streams import JobStreams
from gateway.sse.portable import stream_routes
from gateway.sse.withdrawals import Withdrawals
from gateway.workers import WORKER_PORTS, GatewayWorker
from tidegate_common.auth.identity import Identity
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.history import History
from tidegate_common.bus.events.publisher import EventPublisher
from tidegate_common.bus.streams.leaders import Leaders
from tidegate_common.bus.streams.upkeep import Upkeep
from tidegate_common.runtime import problems
from tidegate_common.runtime.attendance import attended
from tidegate_common.runtime.authentication import Authentication
from tidegate_common.runtime.connected import connected, serve
from tidegate_common.runtime.guard import HTTP_REFUSED, Guard
from tidegate_common.runtime.health import Readiness, health_routes
from tidegate_common.runtime.hosts import Hosts
from tidegate_common.runtime.listening import listening
from tidegate_common.runtime.metrics_port import metrics_port
from tidegate_common.runtime.paths import Utf8Paths
from tidegate_common.runtime.server import Server, SocketOptions, check_port_free, server
from tidegate_common.runtime.tasks import end, spawn
from tidegate_common.runtime.uvicorn_http.protocol import limited
from tidegate_common.telemetry import names
from tidegate_common.telemetry.providers import Telemetry, telemetry

DRAIN_SHARE = 0.8
"""Part of the drain time over which streams are closed; the rest is for the last of them to go."""


class Gateway:
    """The parts of one gateway, wired."""

    def __init__(self, settings: GatewaySettings, bus: Bus, signals: Telemetry) -> None:
        loop = asyncio.get_running_loop()
        self._settings = settings
        # Streams that wait have places of their own: there are no more of them than there may be connections.
        patience = settings.patience()
        leaders = Leaders(bus, structs.replace(patience, most=patience.most + settings.max_connections))
        self.upkeep = Upkeep(bus, settings.stream_limits(), leaders, keeps=False, all_needed=False)
        # Not the loop's call_soon: at the end of a read its events can be written without another turn of the loop.
        self.hub = Hub(bus.client.at_end_of_read, Ending.farewell)
        self.heartbeat = Heartbeat(
            self.hub,
            frame.chunk(frame.comment("heartbeat")),
            loop.time,
            heartbeat_seconds=settings.heartbeat_seconds,
            idle_seconds=settings.idle_seconds,
            max_age_seconds=settings.max_age_seconds,
        )
        self.expiry = Expiry(self.hub)
        self.history = History(bus, leaders)
        self._feed(bus, signals)
        self.guard = Guard(settings.http_limits())
        self.admission = Admission(settings.max_connections, settings.max_connections_per_ip)
        self.identity = Identity(settings, bus, signals, makes_key=False, leaders=leaders)
        self.upkeep.on_remade.append(self.identity.look_again)
        self.readiness = Readiness(bus, self.upkeep.lacks, tokens=self.identity.authenticator.check_ready)
        self.ticket_uses = TicketUses(bus, self.identity.tickets, self.hub)
        jobs = JobStreams(bus, self.history, self.identity.client_ids)
        withdrawals = Withdrawals(self.hub, self.expiry, self.identity)
        self.streams = StreamEndpoint(
            settings,
            self.identity,
            self.ticket_uses,
            self.admission,
            self.attachments,
            self.heartbeat,
            withdrawals,
            jobs,
            signals,
        )
        self.hub.on_removed = self.streams.forget
        self.cors = Cors(settings.cors_origins, caller.REQUEST_HEADERS, RATE_HEADERS)
        publisher = EventPublisher(bus, self.history, leaders=leaders)
        completions = Completions(
            bus,
            self.hub,
            self.attachments,
            self.history,
            publisher,
            signals.tracer,
            settings.completion_seconds,
            settings.jobs_max_per_owner,
        )
        self.identity.limits.others = completions.refused
        refused = publisher.refusals.counts
        signals.observe("counter", names.METRIC_PUBLISHES_REFUSED, lambda: refused, "{message}", "Publishes refused")
        self.openai = OpenAiFront(settings, completions, ModelList(bus), self.identity, signals)
        self.app = Starlette(
            routes=[
                *stream_routes(self.streams, settings.max_backlog_bytes),
                *health_routes(signals, self.readiness, settings),
                self.openai.routes(),
                openapi_route(settings.asks),
                *console_routes(settings.publisher_url, asks=settings.asks),
            ],
            middleware=[
                self.cors.middleware,
                Middleware(Utf8Paths, refusal=refusal),
                Middleware(
                    Authentication,
                    self.identity,
                    open_paths=("/", OPENAPI),
                    open_starts=("/console/",),
                    own_paths=(PATH,),
                    own_starts=(f"{PATH}/jobs/",),
                    refusal=refusal,
                ),
            ],
        )
        problems.install(self.app)
        self._observe(signals)
        signals.observe(
            "counter", names.METRIC_FOREIGN, lambda: bus.foreign.counts, "{thing}", "Passed over on NATS", label="what"
        )

    def _feed(self, bus: Bus, signals: Telemetry) -> None:
        """From NATS to the hub, and back in time."""
        settings, hub = self._settings, self.hub
        receipts = Receipts(hub)
        self.stream_ends = stream_ends = StreamEnds(hub)
        spread_seconds = settings.drain_seconds * DRAIN_SHARE
        self.life = StreamLife(bus, hub, self.history, self.heartbeat, stream_ends, spread_seconds)
        self.replay = Replay(hub, self.history, self.life, stream_ends)
        self.recovery = Recovery(hub, self.life, self.replay, stream_ends, settings.replay_patience_seconds)
        self.repairs = Repairs(bus, hub, self.history, self.life, self.recovery)
        holes = HoleDetector(self.life, self.repairs)
        self.subscriptions = Subscriptions(bus, hub, self.life, holes, receipts, stream_ends, signals)
        self.control = Control(bus, hub, receipts)
        self.attachments = Attachments(hub, self.life, self.subscriptions, self.replay, self.recovery, stream_ends)
        self.audit = Audit(bus, hub, self.history, self.life, self.repairs, settings.audit_seconds)

    async def aclose(self) -> None:
        """Ends the tasks that bring streams back, or end them, and those of identity."""
        await self.ticket_uses.aclose()
        await self.identity.aclose()
        await self.repairs.aclose()
        await self.life.aclose()

    async def drain(self) -> None:
        """Takes no more streams and ends those that there are, spread over the drain time."""
        self.readiness.draining = self.admission.draining = True
        seconds = self._settings.drain_seconds * DRAIN_SHARE
        await asyncio.gather(self.heartbeat.drain(seconds), self.openai.drain(seconds))

    def server(self) -> Server:
        settings = self._settings
        protocol: Any = limited(self.guard)
        if settings.streams == "slim":
            hosts = Hosts(settings.allowed_hosts)
            protocol = FastPath(protocol, self.streams, self.guard, hosts, self.cors, settings.max_backlog_bytes)
        return server(
            attended(self.app),
            settings,
            drain=self.drain,
            protocol=protocol,
            sockets=SocketOptions(settings.write_timeout_seconds, settings.socket_send_bytes),
            refusal=refusal,
            guard=self.guard,
        )

    def _observe(self, signals: Telemetry) -> None:
        hub, admission, attachments = self.hub, self.admission, self.attachments
        observe, loop = signals.observe, asyncio.get_running_loop()  # an exporter asks from a thread of its own
        observe("updown", names.METRIC_ACTIVE_CONNECTIONS, lambda: admission.active, "{connection}", "Open streams")
        observe("counter", names.METRIC_CONNECTIONS, lambda: admission.total, "{connection}", "Streams opened")
        observe("counter", names.METRIC_REFUSED, lambda: admission.refused, "{connection}", "Streams refused")
        observe("counter", names.METRIC_CLOSED, lambda: hub.ended, "{connection}", "Streams ended")
        observe("counter", names.METRIC_HTTP_REFUSED, lambda: self.guard.refused, "{request}", HTTP_REFUSED)
        asked = self.openai.admission
        observe("updown", names.METRIC_COMPLETIONS_ACTIVE, lambda: asked.active, "{request}", "Completions waited for")
        observe("counter", names.METRIC_COMPLETIONS, lambda: asked.total, "{request}", "Completions asked for")
        observe("counter", names.METRIC_COMPLETIONS_REFUSED, lambda: asked.refused, "{request}", "Completions refused")
        observe("counter", names.METRIC_MESSAGES_SENT, lambda: hub.sent, "{message}", "Events written to streams")
        observe(
            "counter",
            names.METRIC_MESSAGES_DROPPED,
            lambda: hub.dropped,
            "{message}",
            "Volatile events that a client had no room for",
        )
        observe("counter", names.METRIC_RECONNECTS, lambda: attachments.returned, "{connection}", "Clients come back")
        observe("counter", names.METRIC_REPLAYED, lambda: self.replay.replayed, "{message}", "Events replayed")
        observe("counter", names.METRIC_GAPS, lambda: self.replay.gaps, "{gap}", "Gaps announced")
        observe(
            "counter",
            names.METRIC_FEED_HOLES,
            lambda: self.repairs.holes,
            "{hole}",
            "Holes in the feed, mended",
        )
        observe(
            "counter",
            names.METRIC_FEED_FOREIGN,
            lambda: self.subscriptions.other_streams.count,
            "{message}",
            "Messages of other streams on our subjects",
        )
        observe("counter", names.METRIC_REPLAYS_STUCK, lambda: self.recovery.stuck, "{replay}", "Replays given up")
        leaders = self.history.leaders
        waiting = "Requests that wait for NATS"
        observe("updown", names.METRIC_REQUESTS_WAITING, lambda: leaders.waiting, "{request}", waiting)
        observe("updown", names.METRIC_SUBSCRIPTIONS, lambda: hub.audiences, "{subscription}", "NATS subscriptions")
        observe("updown", names.METRIC_TASKS, lambda: len(asyncio.all_tasks(loop)), "{task}", "Tasks of the event loop")


def _spare_collections() -> None:
    """Cycles are looked for less often, and not at all among what the start has made: a connection leaves none.

    Looking costs 15 to 40 µs for each connection that comes (measured).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 50, 100)


async def main(settings: GatewaySettings) -> None:
    """Runs a gateway until it is told to stop. Raises ConfigError, BrokerUnavailable if it can't start."""
    worker = GatewayWorker.from_environment()
    sockets = _own_sockets(settings, worker)
    with telemetry("gateway") as signals:
        async with connected(settings, "gateway", signals) as bus:
            gateway = Gateway(settings, bus, signals)
            await gateway.upkeep.start()
            await gateway.identity.start()
            tasks = [
                spawn(gateway.heartbeat.run(), "keeping streams alive"),
                spawn(gateway.expiry.run(), "ending streams whose tokens end"),
                spawn(gateway.audit.run(), "the audit of the feed"),
                spawn(gateway.upkeep.run(), "looking after the streams"),
            ]
            gateway.control.start()
            if settings.asks:
                gateway.ticket_uses.start()
            _spare_collections()
            server = gateway.server()
            server.on_stopping = signals.stop_by
            if worker is not None:
                worker.watch_parent()
                server.on_started = worker.is_ready
            try:
                async with metrics_port(settings, signals, worker.number if worker else 0):
                    await serve(server, bus, sockets)
            finally:
                await end(tasks)
                await gateway.control.aclose()
                await gateway.aclose()


def _own_sockets(settings: GatewaySettings, worker: GatewayWorker | None) -> list[socket.socket] | None:
    """What a worker listens on: the shared port, and one of its own if it is to have one. Raises ConfigError."""
    if worker is None:
        check_port_free(settings)
        return None
    sockets = listening(settings.host, settings.port, shared=True)
    if settings.worker_ports:
        sockets += listening(settings.host, settings.worker_ports + worker.number, variable=WORKER_PORTS)
    return sockets
