"""The API's endpoints: from a request to a use case and back."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from publisher_api.chats import Chats
from publisher_api.publishing import LineResult, Sending
from publisher_api.requests import BROADCAST_BODY, CHAT, SEND, tail_of
from publisher_api.settings import PublisherSettings
from tidegate_common.contract.events import Receipt
from tidegate_common.contract.subjects import BROADCAST
from tidegate_common.errors import InvalidField
from tidegate_common.runtime.body import decode, read_body
from tidegate_common.runtime.problems import problem_of
from tidegate_common.telemetry.propagation import trace_id

_KEY = re.compile(r"[\x21-\x7e]{1,128}")
_ENCODER = msgspec.json.Encoder()


def answer(content: Any, status: int) -> Response:
    return Response(_ENCODER.encode(content), status, media_type="application/json")


def idempotency_key(request: Request) -> str | None:
    """The caller's `Idempotency-Key`. Raises InvalidField."""
    key = request.headers.get("idempotency-key")
    if key is not None and not _KEY.fullmatch(key):
        raise InvalidField("Idempotency-Key", "1 to 128 visible ASCII characters")
    return key


class Endpoints:
    """All of them; each raises TidegateErrors, which become problem details."""

    def __init__(self, settings: PublisherSettings, sending: Sending, chats: Chats) -> None:
        self._settings = settings
        self._sending = sending
        self._chats = chats

    def routes(self) -> list[Route]:
        return [
            Route("/api/sse/send", self.send, methods=["POST"]),
            Route("/api/sse/broadcast", self.broadcast, methods=["POST"]),
            Route("/api/sse/batch", self.batch, methods=["POST"]),
            Route("/api/ai/chat", self.chat, methods=["POST"]),
            # One route for both: with two, a 405 would name the methods of the first alone.
            Route("/api/ai/chat/{job_id}", self.chat_job, methods=["GET", "DELETE"]),
        ]

    async def send(self, request: Request) -> Response:
        key = idempotency_key(request)
        body = decode(SEND, await read_body(request, self._settings.max_body_bytes))
        return _accepted(await self._sending.send(tail_of(body), body, key))

    async def broadcast(self, request: Request) -> Response:
        key = idempotency_key(request)
        body = decode(BROADCAST_BODY, await read_body(request, self._settings.max_body_bytes))
        return _accepted(await self._sending.send(BROADCAST, body, key))

    async def batch(self, request: Request) -> Response:
        key = idempotency_key(request)
        body = await read_body(request, self._settings.max_batch_bytes, "application/x-ndjson")
        lines = body.split(b"\n")
        if sum(1 for line in lines if line.strip()) > self._settings.max_batch_lines:
            raise InvalidField("body", f"at most {self._settings.max_batch_lines} lines")
        results = await self._sending.batch(lines, key)
        refused = sum(result.error is not None for result in results)
        content = {
            "accepted": len(results) - refused,
            "refused": refused,
            "results": [_line(result) for result in results],
            "trace_id": trace_id(),
        }
        return answer(content, 200)

    async def chat(self, request: Request) -> Response:
        key = idempotency_key(request)
        body = decode(CHAT, await read_body(request, self._settings.max_body_bytes))
        state = await self._chats.start(body, key)
        return answer({"job_id": state.job_id, "trace_id": state.trace_id}, 202)

    async def chat_job(self, request: Request) -> Response:
        return await (self.chat_cancel if request.method == "DELETE" else self.chat_state)(request)

    async def chat_state(self, request: Request) -> Response:
        return answer(await self._chats.state(request.path_params["job_id"]), 200)

    async def chat_cancel(self, request: Request) -> Response:
        state = await self._chats.cancel(request.path_params["job_id"])
        return answer(state, 200 if state.status.final else 202)


def _accepted(receipt: Receipt | None) -> Response:
    content: dict[str, Any] = {"id": receipt.id if receipt else None, "trace_id": trace_id()}
    if receipt is not None and receipt.duplicate:
        content["duplicate"] = True
    return answer(content, 202)


def _line(result: LineResult) -> dict[str, Any]:
    if result.error is not None:
        return {"line": result.line, **problem_of(result.error).marshal()}
    found: dict[str, Any] = {"line": result.line, "status": 202, "id": result.receipt.id if result.receipt else None}
    if result.receipt is not None and result.receipt.duplicate:
        found["duplicate"] = True
    return found
