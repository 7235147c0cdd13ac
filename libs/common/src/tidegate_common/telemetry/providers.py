"""Sets up OpenTelemetry from its standard environment variables; nothing is sent if no endpoint is named.

Metrics are always collected, for `/metrics`. Spans are made only if they can go somewhere.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

log = logging.getLogger(__name__)

HTTP_LABELS = View(
    instrument_name="http.*",
    attribute_keys={
        "error.type",
        "http.request.method",
        "http.response.status_code",
        "http.route",
        "network.protocol.version",
        "url.scheme",
    },
)
"""What the metrics of the HTTP instrumentation may tell apart. By its older conventions it would take what a caller
wrote into `Host`."""

END_SECONDS = 2.0
"""What sending the rest may take in a process that ends without having been told to stop."""

LEAST_SECONDS = 0.1
"""What it may take in any case: an endpoint that answers is done by then, however long a drain took."""


class Telemetry:
    """One process's tracer and meter. `tracing` says whether spans go anywhere: hot paths ask it first."""

    def __init__(
        self, service: str, tracer: TracerProvider | None, meter: MeterProvider, registry: CollectorRegistry
    ) -> None:
        self.tracing = tracer is not None
        self.tracer_provider: trace.TracerProvider = tracer or trace.NoOpTracerProvider()
        self.tracer = self.tracer_provider.get_tracer("tidegate")
        self.meter_provider = meter
        self.meter: Meter = meter.get_meter("tidegate")
        self.service = service
        self._registry = registry
        self._deadline: float | None = None

    def stop_by(self, deadline: float) -> None:
        """The process stops: what is still to be sent has until then, on the clock of `time.monotonic`."""
        self._deadline = deadline

    @property
    def deadline(self) -> float:
        """Until when the rest is to be sent."""
        return time.monotonic() + END_SECONDS if self._deadline is None else self._deadline

    def prometheus(self) -> tuple[bytes, str]:
        """All metrics in Prometheus's text format, and its media type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST

    def observe(
        self,
        kind: str,
        name: str,
        read: Callable[[], float | Mapping[str, float]],
        unit: str,
        text: str,
        label: str = "reason",
    ) -> None:
        """Makes a metric of a number that a hot path keeps as a plain attribute.

        `kind` is `counter`, `gauge` or `updown`; `read` gives the number, or a number for each value of `label`.
        """

        def observe(_: CallbackOptions) -> Iterable[Observation]:
            value = read()
            if isinstance(value, Mapping):
                return [Observation(number, {label: key}) for key, number in value.items()]
            return [Observation(value)]

        make = {
            "counter": self.meter.create_observable_counter,
            "gauge": self.meter.create_observable_gauge,
            "updown": self.meter.create_observable_up_down_counter,
        }[kind]
        make(name, callbacks=[observe], unit=unit, description=text)


def exports(signal: str, environ: Mapping[str, str]) -> bool:
    """Whether the standard variables name somewhere to send `signal` (`traces` or `metrics`) to."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    if environ.get(f"OTEL_{signal.upper()}_EXPORTER", "otlp") == "none":
        return False
    return bool(
        environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT")
    )


@contextmanager
def telemetry(service: str, environ: Mapping[str, str] = os.environ) -> Iterator[Telemetry]:
    """The process's telemetry; what is still to be sent is sent at the end."""
    resource = Resource.create(
        {"service.name": environ.get("OTEL_SERVICE_NAME", service), "service.namespace": "tidegate"}
    )
    tracers: TracerProvider | None = None
    if exports("traces", environ):
        # Sampler: OTEL_TRACES_SAMPLER, by the SDK itself. Its own ending at the process's exit would know no deadline.
        from tidegate_common.telemetry.exporters import SpanExporter  # only who exports pays for its import

        tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
        tracers.add_span_processor(BatchSpanProcessor(SpanExporter()))
    registry = CollectorRegistry()
    readers: list[MetricReader] = [PrometheusMetricReader(registry=registry)]
    if exports("metrics", environ):
        from tidegate_common.telemetry.exporters import MetricExporter

        readers.append(PeriodicExportingMetricReader(MetricExporter()))
    meters = MeterProvider(metric_readers=readers, resource=resource, views=[HTTP_LABELS], shutdown_on_exit=False)
    made = Telemetry(service, tracers, meters, registry)
    try:
        yield made
    finally:
        rest: dict[str, Callable[[], object]] = {"metrics": meters.shutdown}
        if tracers is not None:
            rest["spans"] = tracers.shutdown
        send_rest(rest, made.deadline)


def send_rest(works: Mapping[str, Callable[[], object]], deadline: float) -> None:
    """Runs all of `works` at the same time until `deadline` (of `time.monotonic`); says which did not end by then.

    The exporters of OpenTelemetry take up to half a minute each if their endpoint hangs, one after the other, and
    nothing interrupts them. So each has a daemon thread, which the process's end does not wait for.
    """
    threads = {name: threading.Thread(target=_run, args=(name, work), daemon=True) for name, work in works.items()}
    for thread in threads.values():
        thread.start()
    until = max(deadline, time.monotonic() + LEAST_SECONDS)
    for thread in threads.values():
        thread.join(max(0.0, until - time.monotonic()))
    late = [name for name, thread in threads.items() if thread.is_alive()]
    if late:
        log.warning("the OTLP endpoint did not take the last %s in time: they are lost", " and ".join(late))


def _run(name: str, work: Callable[[], object]) -> None:
    try:
        work()
    except Exception as error:
        log.warning("the last %s could not be sent: %s", name, error)
