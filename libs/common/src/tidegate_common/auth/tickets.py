"""Tickets, for whoever can send no header: the browser's own EventSource. Each opens one stream, again and again.

EventSource repeats its address whenever it comes back, so a ticket is good for more than one request: it has some
seconds to its first use, and from then on it is good for as long as the token that it was asked for with.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import msgspec

from tidegate_common.auth.keyset import VerifyingKey
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.requests.bucket import Bucket
from tidegate_common.bus.streams.leaders import Leaders
from tidegate_common.contract.principal import Principal
from tidegate_common.contract.soundness import read
from tidegate_common.contract.tickets import TicketRecord, digest_of, is_ticket, new_ticket
from tidegate_common.errors import Unauthenticated, Unavailable, Unreadable

FIRST_USE_SECONDS = 30.0

KEPT_SECONDS = 30
"""How long one is kept past its end: whoever comes too late is told so."""

TRIES = 5
"""Of one use: others may use the same ticket in the same moment."""

_RECORD = msgspec.json.Decoder(TicketRecord)


class Tickets:
    """The bucket of tickets, changed by compare-and-set."""

    def __init__(
        self,
        bus: Bus,
        most_seconds: float,
        leaders: Leaders | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`most_seconds`: how long one of a key is good that has no end itself.

        `leaders` waits while the bucket has none: an EventSource that gets 503 does not come back.
        """
        self._leaders = leaders or Leaders(bus)
        self._bus = bus
        self._bucket = Bucket(bus, bus.subjects.tickets_bucket)
        self._most_seconds = most_seconds
        self._clock = clock

    async def issue(
        self,
        principal: Principal,
        *,
        client_id: str = "",
        tails: tuple[str, ...] = (),
        names: tuple[str, ...] = (),
        job_id: str = "",
    ) -> tuple[str, float]:
        """A ticket for one stream, which `principal` has a right to; and when it ends. Raises BrokerUnavailable."""
        now = self._clock()
        record = TicketRecord(
            name=principal.name,
            subject=principal.subject,
            key=principal.key,
            token_id=principal.token_id,
            issued=principal.issued,
            signed_by=public_identity(principal),
            expires=principal.expires or now + self._most_seconds,
            limits=principal.limits,
            client_id=client_id,
            tails=tails,
            names=names,
            job_id=job_id,
            first_use_by=now + FIRST_USE_SECONDS,
        )
        ticket = new_ticket()
        await self._leaders.outlast(self._bucket.stream, lambda: self._put(digest_of(ticket), record, 0))
        return ticket, record.expires

    async def principal(self, text: str) -> Principal:
        """Who comes with the ticket `text`. That is no use of it yet. Raises Unauthenticated, BrokerUnavailable."""
        if not is_ticket(text):
            raise Unauthenticated("unknown")
        digest = digest_of(text)
        record, _ = await self._leaders.outlast(self._bucket.stream, lambda: self._get(digest), repeatable=True)
        return record.principal(digest)

    async def use(self, digest: str) -> int:
        """Notes one more use; gives its revision: the use with the highest one is the ticket's only one.

        Raises Unauthenticated, Unavailable.
        """
        # One that was stored and not confirmed may be noted once more: that is the last one then.
        return await self._leaders.outlast(self._bucket.stream, lambda: self._use(digest), repeatable=True)

    async def _use(self, digest: str) -> int:
        for _ in range(TRIES):
            record, revision = await self._get(digest)
            used = await self._put(digest, msgspec.structs.replace(record, first_use_by=0.0), revision)
            if used:
                return used
        raise Unavailable("others use the same ticket just now")

    async def revision(self, digest: str) -> int:
        """Of its last use; 0 if it is not kept any more. Raises BrokerUnavailable."""
        entry = await self._bucket.get(digest)
        return entry.revision if entry is not None else 0

    async def _get(self, digest: str) -> tuple[TicketRecord, int]:
        entry = await self._bucket.get(digest)
        if entry is None or entry.value is None:
            raise Unauthenticated("unknown")
        try:
            record = read(_RECORD, entry.value, lambda found: "" if found.name else "name")
        except Unreadable as error:
            self._bus.foreign.note("ticket", digest, str(error))
            raise Unauthenticated("unknown") from None
        if self._clock() >= record.end():
            raise Unauthenticated("expired", detail="the ticket has expired")
        return record, entry.revision

    async def _put(self, digest: str, record: TicketRecord, revision: int) -> int:
        kept = max(1, math.ceil(record.end() - self._clock())) + KEPT_SECONDS
        return await self._bucket.put(digest, msgspec.json.encode(record), revision, kept)


def public_identity(principal: Principal) -> tuple[str, str] | None:
    """What its token's public key is known by. A secret's thumbprint is not kept: somebody could guess with it."""
    key = principal.signed_by
    return key.identity if isinstance(key, VerifyingKey) and key.public else None
