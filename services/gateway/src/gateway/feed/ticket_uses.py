"""A ticket opens one stream at a time, on whichever gateway: its last use ends the one before it.

Each use is a write of the ticket's record, by compare-and-set, so that uses have an order: their revisions. The
bucket's stream tells each write to all gateways. Its messages have no holes in their sequence; if a gateway finds one,
or was cut off, it asks for the tickets that it holds.
"""

from __future__ import annotations

import asyncio

from gateway.hub.endings import Ending
from gateway.hub.hub import Hub
from gateway.hub.session import Session
from tidegate_common.auth.tickets import Tickets
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.origin import Origin
from tidegate_common.bus.requests.lookout import Lookout
from tidegate_common.runtime.tasks import end, spawn

AT_ONCE = 64
"""Tickets that are asked for at once."""


class Use:
    """Of one ticket, as this gateway knows of it."""

    __slots__ = ("claims", "revision", "session")

    def __init__(self) -> None:
        self.revision = 0
        """Of the last use that is known, of this gateway or another."""
        self.session: Session | None = None
        """Whose use that is, if it is of this gateway."""
        self.claims = 0
        """Uses that are being written."""


class TicketUses:
    """The tickets of the streams of this gateway. `start` and `aclose` go with the process, if it asks for any."""

    def __init__(self, bus: Bus, tickets: Tickets, hub: Hub) -> None:
        self._bus = bus
        self._tickets = tickets
        self._hub = hub
        self._uses: dict[str, Use] = {}
        """By the ticket's digest."""
        bucket = bus.subjects.tickets_bucket
        outbound = bus.subjects.ticket_uses("")
        self._stream = f"KV_{bucket}"
        self._origin = Origin(self._stream, f"$KV.{bucket}.", outbound)
        self._skip = len(outbound)
        self._upto = 0
        """Up to this place of the stream all was heard, or the tickets were asked for."""
        self._lookout = Lookout(bus, "the bucket of tickets", self._look)
        self._looking: asyncio.Task[None] | None = None
        self.subscription = 0

    async def claim(self, session: Session) -> None:
        """`session` is opened with its ticket: whoever else holds one with that ticket is ended.

        Raises Unauthenticated, BrokerUnavailable.
        """
        ticket = session.principal.ticket
        if ticket is None:
            return
        use = self._uses.setdefault(ticket.digest, Use())
        use.claims += 1
        try:
            revision = await self._tickets.use(ticket.digest)
        except BaseException:
            use.claims -= 1
            self._drop(ticket.digest)
            raise
        use.claims -= 1
        if revision < use.revision:  # somebody else has come meanwhile, and was heard of first
            self._hub.end(session, Ending.REPLACED)
        else:
            self._move(use, revision, session)

    def forget(self, session: Session) -> None:
        """The connection of a `session` that has claimed its ticket is gone."""
        ticket = session.principal.ticket
        use = self._uses.get(ticket.digest) if ticket is not None else None
        if ticket is not None and use is not None:
            if use.session is session:
                use.session = None
            self._drop(ticket.digest)

    def start(self) -> None:
        """Uses are heard of from now on, and what was not heard is found."""
        self.subscription = self._bus.client.subscribe_direct(self._bus.subjects.ticket_uses("*"), self._hear)
        self._bus.on_reconnect.append(self._lookout.reconnected)
        self._looking = spawn(self._lookout.run(), "looking for the uses of tickets")

    async def aclose(self) -> None:
        if self._looking is not None:
            await end([self._looking])

    def _hear(self, subject: bytes, block: bytes, payload: bytes) -> None:
        place = self._origin.republished(block, subject)
        if place is None:
            return
        sequence, _ = place
        if sequence != self._upto + 1:
            self._lookout.lacks()
        self._upto = sequence  # lower than before, if the stream was made anew: what comes next follows on it
        use = self._uses.get(subject[self._skip :].decode("ascii", "replace"))
        if use is not None:
            self._move(use, sequence, None)

    def _move(self, use: Use, revision: int, session: Session | None) -> None:
        """The last use is that of `revision`: `session`'s, or not known to be of this gateway (yet)."""
        if revision > use.revision:
            former, use.session, use.revision = use.session, None, revision
            if former is not None:
                self._hub.end(former, Ending.REPLACED)
        if revision == use.revision and session is not None:
            use.session = session

    def _drop(self, digest: str) -> None:
        """Nothing is kept of a ticket that nobody holds here."""
        use = self._uses.get(digest)
        if use is not None and use.session is None and not use.claims:
            del self._uses[digest]

    async def _look(self, behind: bool) -> None:
        """Asks for the tickets that are held, if there may be uses that were not heard of."""
        if not behind:
            info = await self._bus.api.call(f"STREAM.INFO.{self._stream}")
            if info["state"]["last_seq"] == self._upto:
                return
            self._upto = info["state"]["last_seq"]
        held = [(digest, use) for digest, use in self._uses.items() if use.session is not None]
        for first in range(0, len(held), AT_ONCE):
            await asyncio.gather(*(self._ask(digest, use) for digest, use in held[first : first + AT_ONCE]))

    async def _ask(self, digest: str, use: Use) -> None:
        self._move(use, await self._tickets.revision(digest), None)
