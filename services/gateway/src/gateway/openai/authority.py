"""Answers end with the right to them: at the end of their caller's token, or when that right is taken away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from gateway.openai.api_errors import INVALID, ApiError
from tidegate_common.auth.identity import Identity
from tidegate_common.contract.principal import Principal
from tidegate_common.errors import AUTHENTICATION, Unauthenticated
from tidegate_common.runtime.problems import challenge

CODES = {"expired": "token_expired", "revoked": "revoked"}


class Authority:
    """Watches over the callers of all completions that run here."""

    def __init__(self, identity: Identity) -> None:
        self._revocations = identity.revocations
        self._tokens = identity.authenticator.tokens
        self._running: dict[asyncio.Future[ApiError], Principal] = {}
        self._revocations.on_change.append(lambda _: self._look())
        self._tokens.on_withdrawn.append(self._expire)
        if identity.authenticator.keys is not None:
            identity.authenticator.keys.on_change.append(self._change)

    @contextmanager
    def over(self, principal: Principal) -> Iterator[asyncio.Future[ApiError]]:
        """A future that is done, with what the caller is told, once `principal` is good no more.

        Entered before anything is waited for: a body may come slowly.
        """
        loop = asyncio.get_running_loop()
        lost: asyncio.Future[ApiError] = loop.create_future()
        timer = loop.call_later(principal.expires - time.time(), _set, lost, "expired") if principal.expires else None
        self._running[lost] = principal
        try:
            yield lost
        finally:
            del self._running[lost]
            if timer is not None:
                timer.cancel()

    def _look(self) -> None:
        for lost, principal in self._running.items():
            if self._revocations.revoked(principal):
                _set(lost, "revoked")

    def _expire(self) -> None:
        """The identity provider has taken a key back."""
        for lost, principal in self._running.items():
            if self._tokens.withdrawn(principal):
                _set(lost, "expired")

    def _change(self, changed: Mapping[Principal, Principal | None]) -> None:
        """Keys have other rights now, or are gone (None). What a job may cost was settled when it began."""
        for lost, principal in self._running.items():
            if principal in changed:
                now = changed[principal]
                if now is None or now.jobs is None:
                    _set(lost, "revoked")
                else:
                    self._running[lost] = now


def _set(lost: asyncio.Future[ApiError], reason: str) -> None:
    if not lost.done():
        text = f"The answer ends here: {AUTHENTICATION[reason]}."
        headers = {"WWW-Authenticate": challenge(Unauthenticated(reason))}
        lost.set_result(ApiError(401, text, INVALID, code=CODES[reason], headers=headers))
