"""Tickets: what the bucket `TG_TICKETS` keeps of each, under its SHA-256. The ticket itself is kept nowhere."""

from __future__ import annotations

import hashlib
import re
import secrets

import msgspec

from tidegate_common.contract.principal import Grants, Principal, Ticket

_START = "tgt_"
"""For whoever looks for secrets in texts (`telemetry/masking.py`)."""
_TICKET = re.compile(_START + r"[A-Za-z0-9_-]{43}")


def new_ticket() -> str:
    """256 random bits, URL-safe: 43 characters behind their start."""
    return _START + secrets.token_urlsafe(32)


def is_ticket(text: str) -> bool:
    return _TICKET.fullmatch(text) is not None


def digest_of(ticket: str) -> str:
    """The bucket's key. A hash without salt will do: nobody guesses so many random bits."""
    return hashlib.sha256(ticket.encode()).hexdigest()


class TicketRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whom a ticket is bound to, and to what. Times are Unix seconds; see Principal and Ticket for the rest."""

    name: str
    subject: str = ""
    key: str = ""
    token_id: str = ""
    issued: float = 0.0
    signed_by: tuple[str, str] | None = None
    """The public key that the token was checked with, by name and thumbprint; None if it was none."""
    expires: float
    limits: dict[str, str] = {}
    client_id: str = ""
    tails: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    job_id: str = ""
    first_use_by: float = 0.0
    """0: it was used. So a record gets no longer: it can be used though the bucket is full."""

    def end(self) -> float:
        """From then on nobody can come with it."""
        return min(self.first_use_by or self.expires, self.expires)

    def principal(self, digest: str) -> Principal:
        """Who comes with it: whoever it was made for, with the rights that they had then to what they asked for."""
        return Principal(
            self.name,
            subject=self.subject,
            key=self.key,
            subscribe=Grants(self.tails),
            limits=self.limits,
            client=self.client_id,
            expires=self.expires,
            issued=self.issued,
            token_id=self.token_id,
            signed_by=self.signed_by,
            ticket=Ticket(digest, self.client_id, self.tails, self.names, self.job_id),
        )
