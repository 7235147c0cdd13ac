"""Builds one worker: the only place that knows all its parts."""

from __future__ import annotations

import asyncio
import logging

from starlette.applications import Starlette
from starlette.middleware import Middleware

from ai_worker.attempt import Attempt, AttemptLimits, Services
from ai_worker.catalogue import Catalogue
from ai_worker.consumer import JobConsumer
from ai_worker.event_writer import Pace
from ai_worker.handlers.handler import Handlers, Work
from ai_worker.handlers.loading import load_handlers
from ai_worker.holders import Holders
from ai_worker.models.choice import build
from ai_worker.models.model import ChatModel
from ai_worker.models.traced import TracedModel
from ai_worker.refusal import refuse
from ai_worker.settings import WorkerSettings
from tidegate_common.auth.identity import Identity
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.history import History
from tidegate_common.bus.events.publisher import EventPublisher
from tidegate_common.bus.jobs.budgets import Budgets
from tidegate_common.bus.jobs.cancel import on_cancel
from tidegate_common.bus.jobs.dead import DeadJobs
from tidegate_common.bus.jobs.dequeue import Delivery, JobQueue
from tidegate_common.bus.jobs.finish import JobEnds
from tidegate_common.bus.jobs.records import JobRecords
from tidegate_common.bus.requests.gateways import AllGateways
from tidegate_common.bus.streams.leaders import Leaders
from tidegate_common.bus.streams.upkeep import Upkeep
from tidegate_common.contract.jobs import Job
from tidegate_common.errors import Unavailable, Unreadable
from tidegate_common.runtime import problems
from tidegate_common.runtime.authentication import Authentication
from tidegate_common.runtime.connected import connected, serve
from tidegate_common.runtime.guard import HTTP_REFUSED, Guard
from tidegate_common.runtime.health import Readiness, health_routes
from tidegate_common.runtime.metrics_port import metrics_port
from tidegate_common.runtime.server import Server, check_port_free, server
from tidegate_common.runtime.tasks import end
from tidegate_common.telemetry import names
from tidegate_common.telemetry.providers import Telemetry, telemetry

log = logging.getLogger(__name__)

DRAIN_SHARE = 0.7
"""Part of the drain time that running jobs have; the rest is for giving them back."""


class Worker:
    """The parts of one worker, wired. `handlers` is filled once the model is there."""

    def __init__(
        self, settings: WorkerSettings, bus: Bus, leaders: Leaders, upkeep: Upkeep, signals: Telemetry
    ) -> None:
        self._settings = settings
        self._upkeep = upkeep
        self._bus = bus
        self._signals = signals
        self._loaded = False
        history = History(bus, leaders)
        publisher = EventPublisher(bus, history, leaders=leaders)
        records, dead, holders = JobRecords(bus, leaders), DeadJobs(bus), Holders(bus)
        ends = JobEnds(records, history, publisher, Budgets(bus, records, leaders))
        gateways = AllGateways(bus, doubt_seconds=settings.ai_doubt_seconds)
        self._services = Services(publisher, history, bus.subjects, records, ends, dead, gateways, holders)
        pace = Pace(settings.ai_coalesce_ms / 1000, settings.ai_coalesce_chars, settings.ai_patience_seconds)
        self._limits = AttemptLimits(settings.ai_job_seconds, settings.ai_ack_seconds, settings.ai_max_attempts, pace)
        self._handlers: Handlers = {}
        self._model: TracedModel | None = None
        self.consumer = JobConsumer(
            self._open_queue,
            self._attempt,
            self._refuse,
            settings.ai_concurrency,
            f"{settings.namespace}.jobs",
            lambda: self._handlers,
            signals,
        )
        bus.on_reconnect += [self.consumer.show_life, self.consumer.renew]
        self.identity = Identity(settings, bus, signals)
        self.readiness = Readiness(
            bus,
            upkeep.lacks,
            model=self._model_ready,
            queue=self._queue_open,
            tokens=self.identity.authenticator.check_ready,
        )
        self.app = Starlette(
            routes=health_routes(signals, self.readiness, settings),
            middleware=[Middleware(Authentication, self.identity)],
        )
        problems.install(self.app)
        guard = self._guard = Guard(settings.http_limits())
        consumer, observe, refused = self.consumer, signals.observe, publisher.refusals.counts
        observe("counter", names.METRIC_PUBLISHES_REFUSED, lambda: refused, "{message}", "Publishes refused")
        observe("counter", names.METRIC_HTTP_REFUSED, lambda: guard.refused, "{request}", HTTP_REFUSED)
        observe("updown", names.METRIC_JOBS_ACTIVE, lambda: len(consumer.active), "{job}", "Jobs in hand")
        observe("counter", names.METRIC_JOBS, lambda: dict(consumer.outcomes), "{job}", "Attempts by how they ended")
        observe(
            "counter", names.METRIC_FOREIGN, lambda: bus.foreign.counts, "{thing}", "Passed over on NATS", label="what"
        )
        observe("gauge", names.METRIC_STRAYS, lambda: consumer.strays, "{message}", "In the queue and nobody's job")
        observe("gauge", names.METRIC_QUEUE_DEPTH, lambda: consumer.depth, "{job}", "Jobs that wait for a worker")

    async def run(self, model: ChatModel) -> None:
        """Loads the model, then takes jobs until the drain. Raises Unavailable if it can't be loaded."""
        default = await model.start()
        catalogue = Catalogue(model, default)
        self._model = TracedModel(model, default, self._signals, self._settings.ai_max_tokens, catalogue.label)
        self._handlers = load_handlers(self._model, self._settings)
        self._loaded = True
        log.info("ready for jobs, model %s", default or "as each job names it")
        stop_listening = on_cancel(self._bus, self.consumer.cancel)
        await catalogue.serve(self._bus)
        await self._services.holders.serve()
        try:
            await self.consumer.run()
        finally:
            stop_listening()
            await catalogue.aclose()

    def server(self) -> Server:
        return server(self.app, self._settings, drain=self._drain, guard=self._guard)

    async def _drain(self) -> None:
        self.readiness.draining = True
        await self.consumer.drain(self._settings.drain_seconds * DRAIN_SHARE)

    async def _model_ready(self) -> None:
        if not self._loaded:
            raise Unavailable("model loading")

    async def _queue_open(self) -> None:
        if self.consumer.refused:
            raise Unavailable(self.consumer.refused)

    async def _open_queue(self) -> JobQueue:
        await self._upkeep.look()
        return await JobQueue.open(self._bus, self._settings.ai_ack_seconds)

    def _attempt(self, job: Job, delivery: Delivery, work: Work) -> Attempt:
        assert self._model is not None, "jobs are taken once the model is there"
        work.give_model(self._model)
        work.max_tokens = job.max_tokens
        return Attempt(job, delivery, work, self._handlers, self._services, self._limits)

    async def _refuse(self, delivery: Delivery, why: Unreadable) -> None:
        self._bus.foreign.note("job", "in the queue", str(why))
        await refuse(delivery, self._services.ends)


async def main(settings: WorkerSettings) -> None:
    """Runs a worker until it is told to stop. Raises ConfigError, Unavailable if it can't start."""
    check_port_free(settings)
    with telemetry("ai-worker") as signals:
        async with connected(settings, "ai-worker", signals) as bus:
            leaders = Leaders(bus, settings.patience())
            upkeep = Upkeep(bus, settings.stream_limits(), leaders, keeps=False, all_needed=True)
            await upkeep.start()
            worker = Worker(settings, bus, leaders, upkeep, signals)
            await worker.identity.start()
            model = build(settings)
            running = asyncio.create_task(worker.run(model))
            looking = asyncio.create_task(upkeep.run())
            listening = worker.server()
            listening.on_stopping = signals.stop_by

            def stop(_: asyncio.Task[None]) -> None:
                listening.should_exit = True

            running.add_done_callback(stop)
            try:
                async with metrics_port(settings, signals):
                    await serve(listening, bus)
                if running.done():
                    running.result()
            finally:
                await end([running, looking])
                await worker.identity.aclose()
                await model.aclose()
