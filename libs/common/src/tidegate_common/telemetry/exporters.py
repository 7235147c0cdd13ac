"""The exporters of spans and metrics, with one line when their endpoint fails and one when it is back.

The SDK's own say two or three lines for each try, and not when it is over.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import MetricExportResult, MetricsData
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult

from tidegate_common.telemetry.trouble import Trouble

log = logging.getLogger(__name__)

_TEXT = "%s can't be sent to the OTLP endpoint %s (OTEL_EXPORTER_OTLP_ENDPOINT) and are lost"


class _Reason(logging.Filter):
    """Keeps what an exporter's logger says of its last failure, and lets no line pass.

    An error is its kind: its text would name the object in memory that had it, and never be the same.
    """

    def __init__(self, logger: str) -> None:
        super().__init__()
        self.text = self.first = ""
        found = logging.getLogger(logger)
        for each in [each for each in found.filters if isinstance(each, _Reason)]:
            found.removeFilter(each)
        found.addFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        args = record.args if isinstance(record.args, tuple) else ()
        told = [type(each).__name__ if isinstance(each, Exception) else str(each)[:200] for each in args]
        if "Transient error" in str(record.msg) and told:
            self.text = told[0]
        elif "code:" in str(record.msg) and len(told) == 3:
            self.text = f"{told[1]} {told[2]}".removeprefix("None ")
        else:
            self.text = self.text or record.getMessage().partition("\n")[0][:200]
        return False


class SpanExporter(OTLPSpanExporter):
    """Says when spans can't be sent."""

    def __init__(self) -> None:
        super().__init__()
        self._reason = _Reason(OTLPSpanExporter.__module__)
        self._trouble = _trouble("spans", self._endpoint)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = super().export(spans)
        _settle(self._trouble, self._reason, result is SpanExportResult.SUCCESS)
        return result


class MetricExporter(OTLPMetricExporter):
    """Says when metrics can't be sent."""

    def __init__(self) -> None:
        super().__init__()
        self._reason = _Reason(OTLPMetricExporter.__module__)
        self._trouble = _trouble("metrics", self._endpoint)

    def export(
        self, metrics_data: MetricsData, timeout_millis: float | None = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        result = super().export(metrics_data, timeout_millis, **kwargs)
        _settle(self._trouble, self._reason, result is MetricExportResult.SUCCESS)
        return result


def _trouble(what: str, endpoint: str) -> Trouble:
    parts = urlsplit(endpoint)
    where = f"{parts.scheme}://{parts.hostname}:{parts.port}" if parts.port else f"{parts.scheme}://{parts.hostname}"
    return Trouble(log, _TEXT % (what, where), f"{what} are sent again", every_seconds=300)


def _settle(trouble: Trouble, reason: _Reason, sent: bool) -> None:
    if sent:
        trouble.over()
    else:
        if not trouble.lasting:
            reason.first = reason.text  # one line: that a try ran out of time, or was refused, is the same trouble
        trouble.note(reason.first)
