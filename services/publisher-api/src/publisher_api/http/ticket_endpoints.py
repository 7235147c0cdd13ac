"""`POST /api/auth/tickets`: a ticket for one stream, for pages whose EventSource can send no header."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from publisher_api.bodies import TICKET_BODY, TicketBody
from publisher_api.http.endpoints import answer
from publisher_api.http.slow_bodies import BodyReader
from publisher_api.settings import PublisherSettings
from tidegate_common.auth.identity import Identity
from tidegate_common.auth.job_access import reachable
from tidegate_common.bus.jobs.records import JobRecords
from tidegate_common.contract.principal import Principal
from tidegate_common.contract.wishes import selection
from tidegate_common.errors import InvalidField
from tidegate_common.runtime.authentication import address_of, principal_of
from tidegate_common.runtime.body import decode

PATH = "/api/auth/tickets"


class TicketEndpoints:
    """There in the mode `token` alone. It raises what opening the stream would, which become problem details."""

    def __init__(self, settings: PublisherSettings, identity: Identity, records: JobRecords) -> None:
        self._settings = settings
        self._identity = identity
        self._bodies = BodyReader(identity)
        self._records = records

    def routes(self) -> list[Route]:
        return [Route(PATH, self.make, methods=["POST"])]

    async def make(self, request: Request) -> Response:
        principal = principal_of(request)
        if principal.anonymous:
            raise principal.refuse("a token or a key")
        self._identity.limits.connect(principal, address_of(request))
        body = decode(TICKET_BODY, await self._bodies.read(request, self._settings.max_body_bytes))
        if body.job_id is None:
            ticket, ends = await self._for_stream(principal, body)
        else:
            ticket, ends = await self._for_job(principal, body, body.job_id)
        content = {"ticket": ticket, "expires": int(ends - self._leeway(principal))}
        return answer(content, 201, {"cache-control": "no-store"})

    async def _for_stream(self, principal: Principal, body: TicketBody) -> tuple[str, float]:
        client_id = self._identity.client_ids.chosen(principal, body.client_id)
        heard = selection(body, client_id, principal, self._settings.max_topics)
        return await self._identity.tickets.issue(
            principal, client_id=client_id, tails=tuple(heard.tails), names=heard.names
        )

    async def _for_job(self, principal: Principal, body: TicketBody, job_id: str) -> tuple[str, float]:
        if body.client_id is not None or body.user_id is not None or body.topic:
            raise InvalidField("job_id", "alone: a ticket is for one stream")
        await reachable(self._records, job_id, principal, self._identity.client_ids)
        return await self._identity.tickets.issue(principal, job_id=job_id)

    def _leeway(self, principal: Principal) -> float:
        """Between a token's `exp`, which the caller knows, and the end that it has here."""
        return self._settings.auth_leeway_seconds if principal.expires else 0.0
