"""The one place that says who a request is from."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol

from tidegate_common.auth.credentials import Credential, Kind, credential
from tidegate_common.auth.failures import Failures
from tidegate_common.auth.jwks import Jwks
from tidegate_common.auth.keys_file import KeysFile
from tidegate_common.auth.limits import Rate, RateLimit
from tidegate_common.auth.origins import Origins
from tidegate_common.auth.settings import AuthSettings
from tidegate_common.auth.tokens import Tokens
from tidegate_common.contract.principal import OPEN, Grants, Principal
from tidegate_common.errors import AUTHENTICATION, Forbidden, InvalidCredentials, Unauthenticated, Unavailable

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
        """Raises UnusableKey, UnusableKeys: see ``AuthSettings.auth_faults``."""
        self._settings = settings
        self._tickets = tickets
        self._revocations = revocations
        self.tokens = Tokens(settings, settings.signing_keys())
        self.jwks = Jwks(settings.auth_jwks_url, self.tokens.use) if settings.auth_jwks_url else None
        self.tokens.on_unknown_key = self.jwks.want if self.jwks else None
        self._keys_file = KeysFile(settings.api_keys_file) if settings.api_keys_file else None
        self.keys = self._keys_file.keys if self._keys_file else None
        self._anonymous = Principal(
            "anonymous", subscribe=Grants.of(settings.auth_anonymous, "TIDEGATE_AUTH_ANONYMOUS")
        )
        # Everybody's origins are for whoever brings a token by itself, never for a cookie (Fetch, 3.2.5). So is `null`:
        # any page can make a sandboxed frame, which says that it is of that origin.
        self._own_site = Origins(origin for origin in settings.cors_origins if origin not in ("*", "null"))
        self.failures = RateLimit("auth_failures", Rate.of(settings.limit_auth_failures))
        self._failed = Failures(self.failures)
        self._tasks: list[asyncio.Task[None]] = []
        self.results = dict.fromkeys(("ok", *AUTHENTICATION), 0)
        """Requests, by what came of them."""

    @property
    def asks(self) -> bool:
        """Whether everyone is asked who they are."""
        return self._settings.asks

    async def start(self) -> None:
        """Begins to follow the JWKS and the file of API keys, if they are set. Neither holds a process up for long."""
        if self.jwks is not None:
            await self.jwks.start()
            self._tasks.append(asyncio.create_task(self.jwks.run()))
        if self._keys_file is not None:
            self._tasks.append(asyncio.create_task(self._keys_file.run()))

    async def aclose(self) -> None:
        """Ends that."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.jwks is not None:
            await self.jwks.aclose()

    async def check_ready(self) -> None:
        """Raises Unavailable if there is no key yet that tokens could be checked with."""
        if self.jwks is not None and not self.jwks.had_one and not self.tokens.keyed:
            raise Unavailable("the JWKS was not fetched yet: no token can be checked")

    async def principal(self, headers: Headers, address: str, ticket: str | None = None) -> Principal:
        """Who a request is from, by its `headers` (names in lower case) and its parameter `ticket`.

        Raises InvalidCredentials, Unauthenticated, Limited (failures of this address), Forbidden (a cookie that another
        site's page sends along).
        """
        if not self._settings.asks:
            return OPEN
        try:
            found = await self._read(credential(headers, ticket, self._settings.auth_cookie), headers)
            if self._revocations is not None:
                self._revocations.check(found)
        except (Unauthenticated, InvalidCredentials) as error:
            reason = error.reason if isinstance(error, Unauthenticated) else "malformed"
            self.results[reason] += 1
            self._failed.note(reason, address)
            raise
        self.results["ok"] += 1
        return found

    def _still_signed(self, principal: Principal) -> Principal:
        """Whoever has a ticket, unless the key is gone that its token was signed with: that would be refused, too."""
        if self.tokens.withdrawn(principal):
            if self.tokens.on_unknown_key is not None:
                self.tokens.on_unknown_key()
            raise Unauthenticated("kid")
        return principal

    async def _read(self, found: Credential, headers: Headers) -> Principal:
        match found.kind:
            case Kind.TOKEN:
                return self.tokens.principal(found.text)
            case Kind.KEY if self.keys is not None:
                return self.keys.principal(found.text)
            case Kind.TICKET if self._tickets is not None:
                return self._still_signed(await self._tickets.principal(found.text))
            case Kind.COOKIE:
                if not self._own_site.own(headers):
                    raise Forbidden("origin", "a cookie counts for pages of this site or one in TIDEGATE_CORS_ORIGINS")
                return self.tokens.principal(found.text)
            case Kind.NONE if self._settings.auth_anonymous:
                return self._anonymous
            case Kind.NONE:
                raise Unauthenticated("missing")
        raise Unauthenticated("unknown")
