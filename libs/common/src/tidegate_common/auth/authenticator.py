"""The one place that says who a request is from."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Protocol

from tidegate_common.auth.credentials import Kind, credential
from tidegate_common.auth.limits import Rate, RateLimit
from tidegate_common.auth.settings import AuthSettings
from tidegate_common.auth.tokens import Tokens
from tidegate_common.contract.principal import OPEN, Grants, Principal
from tidegate_common.errors import AUTHENTICATION, InvalidCredentials, Unauthenticated

Headers = Iterable[tuple[bytes, bytes]]


class Tickets(Protocol):
    """Whoever redeems tickets."""

    async def principal(self, text: str) -> Principal:
        """Raises Unauthenticated (`unknown`, `expired`, `revoked`), Unavailable."""


class Revocations(Protocol):
    """Whoever knows what was taken back."""

    def check(self, principal: Principal) -> None:
        """Raises Unauthenticated (`revoked`)."""


class Authenticator:
    """Makes a principal of each request. In the mode `open` it is always the same, and nothing is read."""

    def __init__(
        self, settings: AuthSettings, *, tickets: Tickets | None = None, revocations: Revocations | None = None
    ) -> None:
        self._settings = settings
        self._tickets = tickets
        self._revocations = revocations
        self._tokens = Tokens(settings)
        self._anonymous = Principal(
            "anonymous", subscribe=Grants.of(settings.auth_anonymous, "TIDEGATE_AUTH_ANONYMOUS")
        )
        self.failures = RateLimit("auth_failures", Rate.of(settings.limit_auth_failures))
        self.results = dict.fromkeys(("ok", *AUTHENTICATION, "forbidden"), 0)
        """Requests, by what came of them."""

    async def principal(self, headers: Headers, address: str, ticket: str | None = None) -> Principal:
        """Who a request is from, by its `headers` (names in lower case) and its parameter `ticket`.

        Raises InvalidCredentials, Unauthenticated, Limited (failures of this address), Forbidden (a cookie that another
        site's page sends along).
        """
        if not self._settings.asks:
            return OPEN
        try:
            found = await self._read(headers, ticket)
            if self._revocations is not None:
                self._revocations.check(found)
        except (Unauthenticated, InvalidCredentials) as error:
            self.results[error.reason if isinstance(error, Unauthenticated) else "malformed"] += 1
            # After the check: others behind the same address may have failed, and a good token gets in all the same.
            self.failures.take(network(address))
            raise
        self.results["ok"] += 1
        return found

    async def _read(self, headers: Headers, ticket: str | None) -> Principal:
        found = credential(headers, ticket, self._settings.auth_cookie)
        if found.kind is Kind.NONE:
            if self._settings.auth_anonymous:
                return self._anonymous
            raise Unauthenticated("missing")
        if found.kind in (Kind.TOKEN, Kind.COOKIE):
            return self._tokens.principal(found.text)
        if found.kind is Kind.TICKET and self._tickets is not None:
            return await self._tickets.principal(found.text)
        raise Unauthenticated("unknown")


def network(address: str) -> str:
    """What failures of `address` are counted under: IPv6 by /64, which one customer has as a whole."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if found.version == 4:
        return address
    return str(found.ipv4_mapped or ipaddress.ip_network((found, 64), strict=False).network_address)
