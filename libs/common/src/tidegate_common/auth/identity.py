"""All that one process needs to know who asks, and what runs beside it: made once by each service's own wiring."""

from __future__ import annotations

import asyncio
import time

from tidegate_common.auth.audit_log import AuditLog
from tidegate_common.auth.authenticator import Authenticator
from tidegate_common.auth.client_id_key import ClientIdKey
from tidegate_common.auth.client_ids import ClientIds
from tidegate_common.auth.principal_limits import PrincipalLimits
from tidegate_common.auth.revocations import Revocations
from tidegate_common.auth.settings import AuthSettings
from tidegate_common.auth.tickets import Tickets
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.streams.leaders import Leaders
from tidegate_common.contract.principal import Principal
from tidegate_common.errors import Unauthenticated
from tidegate_common.telemetry import names
from tidegate_common.telemetry.providers import Telemetry


class Identity:
    """The parts of identity, wired. `start` and `aclose` go with the process."""

    def __init__(
        self,
        settings: AuthSettings,
        bus: Bus,
        signals: Telemetry,
        *,
        makes_key: bool | None = None,
        leaders: Leaders | None = None,
    ) -> None:
        """`makes_key`: whether the process makes the secret of clients' ids, or waits for it. None: it needs none."""
        self._settings = settings
        self._bus = bus
        self.audit_log = AuditLog(signals.service, on=settings.asks and settings.audit_log == "on")
        # Twice, since a token's `iat` may be ahead by as much as its end is put off.
        longest = settings.auth_max_token_seconds + 2 * settings.auth_leeway_seconds
        self.revocations = Revocations(bus, longest, keeps=bool(makes_key))
        self.tickets = Tickets(bus, settings.auth_max_token_seconds, leaders)
        self.authenticator = Authenticator(settings, tickets=self.tickets, revocations=self.revocations)
        self.limits = PrincipalLimits(settings, self.authenticator.failures)
        self.client_ids = ClientIds()
        self._client_id_key = ClientIdKey(bus, self.client_ids, makes=bool(makes_key))
        self._needs_key = settings.asks and makes_key is not None
        self._tasks: list[asyncio.Task[None]] = []
        self._observe(signals)

    async def start(self) -> None:
        """Reads what must be known before the first request. Raises ConfigError, BrokerUnavailable."""
        if self._needs_key:
            await self._client_id_key.start()
        if self._settings.asks:
            await self.revocations.start()
            await self.authenticator.start()
            self._tasks.append(asyncio.create_task(self.revocations.run()))

    async def look_again(self) -> None:
        """A stream was made anew: it may be one of those that the parts read, or have to put something back into."""
        if self._tasks:  # else all is read at the start, which is still to come
            await self.revocations.look_again()
            if self._needs_key:
                await self._client_id_key.look_again()

    async def aclose(self) -> None:
        """Ends what runs beside."""
        self.audit_log.aclose()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client_id_key.aclose()
        await self.authenticator.aclose()

    def check(self, principal: Principal) -> None:
        """Whether what was a good token or key some time ago still is. Raises Unauthenticated."""
        if principal.expires and time.time() >= principal.expires:
            raise Unauthenticated("expired")
        if self.authenticator.tokens.withdrawn(principal):
            raise Unauthenticated("kid")
        self.revocations.check(principal)
        keys = self.authenticator.keys
        if principal.key and (keys is None or principal not in keys.of(principal.key)):
            raise Unauthenticated(
                "revoked", detail="the key was taken back, or has other rights now", who=principal.name
            )

    def _observe(self, signals: Telemetry) -> None:
        """The metrics of identity."""
        tokens, jwks = self.authenticator.tokens, self.authenticator.jwks
        signals.observe(
            "counter", names.METRIC_AUTH, self._results, "{request}", "Requests, by what came of asking", "result"
        )
        signals.observe(
            "counter", names.METRIC_AUTH_CACHE_HITS, lambda: tokens.hits, "{token}", "Tokens that were known already"
        )
        if jwks is not None:
            signals.observe("gauge", names.METRIC_JWKS_AGE, lambda: jwks.age, "s", "Age of the last good JWKS")
        limits = self.limits
        signals.observe(
            "counter", names.METRIC_LIMITED, limits.refused, "{request}", "Refused by a limit", label="limit"
        )

    def _results(self) -> dict[str, int]:
        """Requests by what came of asking who they are from. One that lacks a right is among the good ones, too."""
        return {**self.authenticator.results, "forbidden": self.audit_log.forbidden}
