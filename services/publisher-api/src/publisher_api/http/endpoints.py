"""The API's endpoints: from a request to a use case and back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from publisher_api.bodies import BROADCAST_BODY, EVERYBODY, SEND_BODY, Published, Target, target_of
from publisher_api.events.batch import BatchSender, LineOutcome
from publisher_api.events.sender import EventSender, Sent
from publisher_api.http.slow_bodies import BodyReader
from publisher_api.settings import PublisherSettings
from tidegate_common.auth.identity import Identity
from tidegate_common.bus.requests.gateways import ASK_SECONDS, AllGateways
from tidegate_common.contract.subjects import client_tail, topic_tail, user_tail
from tidegate_common.errors import InvalidField
from tidegate_common.runtime.authentication import address_of, principal_of
from tidegate_common.runtime.body import decode
from tidegate_common.runtime.problems import REFUSALS, problem_of
from tidegate_common.runtime.query import idempotency_key
from tidegate_common.telemetry.propagation import trace_id

BATCH = "/api/sse/batch"
PUBLISH = "publish"
"""What a send is called in the audit log."""

_ENCODER = msgspec.json.Encoder()


def answer(content: Any, status: int, headers: Mapping[str, str] | None = None) -> Response:
    return Response(_ENCODER.encode(content), status, headers, media_type="application/json")


class Endpoints:
    """All of them; each raises TidegateErrors, which become problem details."""

    def __init__(
        self,
        settings: PublisherSettings,
        sender: EventSender,
        batches: BatchSender,
        gateways: AllGateways,
        identity: Identity,
    ) -> None:
        self._settings = settings
        self._sender = sender
        self._batches = batches
        self._gateways = gateways
        self._limits = identity.limits
        self._audit = identity.audit_log
        self._bodies = BodyReader(identity)

    def routes(self) -> list[Route]:
        return [
            Route("/api/sse/send", self.send, methods=["POST"]),
            Route("/api/sse/broadcast", self.broadcast, methods=["POST"]),
            Route(BATCH, self.batch, methods=["POST"]),
            # `:path`, since a user id may hold a slash.
            Route("/api/presence/clients/{name:path}", self.client_presence, methods=["GET", "DELETE"]),
            Route("/api/presence/users/{name:path}", self.user_presence, methods=["GET", "DELETE"]),
            Route("/api/presence/topics/{name:path}", self.topic_presence, methods=["GET"]),
        ]

    async def send(self, request: Request) -> Response:
        self._limits.publish(principal_of(request), address_of(request))
        key = idempotency_key(request)
        body = decode(SEND_BODY, await self._bodies.read(request, self._settings.max_body_bytes))
        return await self._send(request, target_of(body), body, key)

    async def broadcast(self, request: Request) -> Response:
        self._limits.publish(principal_of(request), address_of(request))
        key = idempotency_key(request)
        body = decode(BROADCAST_BODY, await self._bodies.read(request, self._settings.max_body_bytes))
        return await self._send(request, EVERYBODY, body, key)

    async def _send(self, request: Request, target: Target, body: Published, key: str | None) -> Response:
        principal = principal_of(request)
        sent = await self._sender.send(self._sender.outgoing(principal, target, body, key))
        trace = trace_id()
        if principal.key:
            self._audit.note(principal, PUBLISH, target.grant, address_of(request), trace, soon=True)
        return answer({**_facts(sent), "trace_id": trace}, 202)

    async def batch(self, request: Request) -> Response:
        key = idempotency_key(request)
        body = await self._bodies.read(request, self._settings.max_batch_bytes, "application/x-ndjson")
        lines = body.split(b"\n")
        if sum(1 for line in lines if line.strip()) > self._settings.max_batch_lines:
            raise InvalidField("body", f"at most {self._settings.max_batch_lines} lines")
        principal = principal_of(request)
        results = await self._batches.send(
            principal, lines, key, partial(self._limits.publish, principal, address_of(request))
        )
        self._note(request, results)
        refused = sum(result.error is not None for result in results)
        content = {
            "accepted": len(results) - refused,
            "refused": refused,
            "results": [_line(result) for result in results],
            "trace_id": trace_id(),
        }
        return answer(content, 200)

    def _note(self, request: Request, results: Sequence[LineOutcome]) -> None:
        """What a service's key has sent in a batch, by target; and of the lines that nobody may send, why."""
        principal, address, trace = principal_of(request), address_of(request), trace_id()
        for result in results:
            if isinstance(result.error, REFUSALS):
                self._audit.refused(principal, f"POST {BATCH}", address, trace, result.error)
        if principal.key:
            for target, times in Counter(result.target for result in results if result.sent is not None).items():
                self._audit.note(principal, PUBLISH, target, address, trace, times=times, soon=True)

    async def client_presence(self, request: Request) -> Response:
        name = request.path_params["name"]
        return await self._presence(request, Target(client_tail(name, "name"), f"client:{name}"))

    async def user_presence(self, request: Request) -> Response:
        name = request.path_params["name"]
        return await self._presence(request, Target(user_tail(name, "name"), f"user:{name}"))

    async def topic_presence(self, request: Request) -> Response:
        name = request.path_params["name"]
        return await self._presence(request, Target(topic_tail(name, "name"), f"topic:{name}"))

    async def _presence(self, request: Request, target: Target) -> Response:
        principal, (tail, grant) = principal_of(request), target
        if request.method == "DELETE":
            principal.check_admin("kick")
            with self._audit.act(principal, "kick", grant, address_of(request), trace_id()):
                ended = await self._gateways.kick(tail, ASK_SECONDS)
            return answer({"ended": ended.total, **_marked(ended.complete)}, 200)
        principal.check_admin("presence")
        present = await self._gateways.presence(tail, ASK_SECONDS)
        return answer({"connections": present.total, **_marked(present.complete)}, 200)


def _line(result: LineOutcome) -> dict[str, Any]:
    if result.sent is None:
        assert result.error is not None
        return {"line": result.line, **problem_of(result.error).marshal()}
    return {"line": result.line, "status": 202, **_facts(result.sent)}


def _facts(sent: Sent) -> dict[str, Any]:
    """`id`, null for a volatile event; `duplicate` if it is one; `delivered` if it was asked for."""
    found: dict[str, Any] = {"id": sent.stored.id if sent.stored else None}
    if sent.stored is not None and sent.stored.duplicate:
        found["duplicate"] = True
    if sent.counted:
        found |= {"delivered": sent.delivered, **_marked(sent.complete)}
    return found


def _marked(complete: bool) -> dict[str, bool]:
    """A sum that lacks a gateway says so."""
    return {} if complete else {"incomplete": True}
