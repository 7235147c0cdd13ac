"""A collector: takes spans over real OTLP/HTTP and keeps them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import uvicorn
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.support.ports import free_port
from tests.support.waiting import until


class Span(NamedTuple):
    """What the tests ask of a span."""

    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, object]


def traced(endpoint: str) -> dict[str, str]:
    """Settings of services whose spans come to `endpoint` soon, and of a scripted model that takes no time."""
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "TIDEGATE_SCRIPTED_THINK_SECONDS": "0",
        "TIDEGATE_SCRIPTED_TOKEN_SECONDS": "0",
    }


class Collector:
    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.spans: list[Span] = []
        self.bodies: list[bytes] = []
        """All that was sent here: what spans hold beside what the tests ask of them, too."""

    def of(self, trace_id: str) -> list[Span]:
        """All spans of one trace, so far."""
        return [span for span in self.spans if span.trace_id == trace_id]

    def take(self, body: bytes) -> None:
        self.bodies.append(body)
        request = ExportTraceServiceRequest.FromString(body)
        for resource_spans in request.resource_spans:
            resource = {pair.key: pair.value.string_value for pair in resource_spans.resource.attributes}
            for scope_spans in resource_spans.scope_spans:
                self.spans += [self._span(resource["service.name"], span) for span in scope_spans.spans]

    @staticmethod
    def _span(service: str, span: ProtoSpan) -> Span:
        attributes: dict[str, object] = {}
        for pair in span.attributes:
            kind = pair.value.WhichOneof("value")
            attributes[pair.key] = getattr(pair.value, kind) if kind else None
        return Span(
            service,
            span.name,
            ProtoSpan.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
            span.trace_id.hex(),
            span.span_id.hex(),
            span.parent_span_id.hex(),
            attributes,
        )


@asynccontextmanager
async def collector() -> AsyncIterator[Collector]:
    """A collector listening on a free port."""
    port = free_port()
    found = Collector(f"http://127.0.0.1:{port}")

    async def traces(request: Request) -> Response:
        found.take(await request.body())
        return Response(ExportTraceServiceResponse().SerializeToString(), media_type="application/x-protobuf")

    app = Starlette(routes=[Route("/v1/traces", traces, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None, lifespan="off"))
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started, "the collector listens")
    try:
        yield found
    finally:
        server.should_exit = True
        await serving
