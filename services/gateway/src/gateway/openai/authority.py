"""Answers end with the right to them: at the end of their caller's token, or when that is taken back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.openai.api_errors import INVALID, ApiError
from tidegate_common.auth.revocations import Revocations
from tidegate_common.contract.principal import Principal
from tidegate_common.errors import AUTHENTICATION


class Authority:
    """Watches over the callers of all completions that run here."""

    def __init__(self, revocations: Revocations) -> None:
        self._revocations = revocations
        self._running: dict[asyncio.Future[ApiError], Principal] = {}
        revocations.on_change.append(lambda _: self._look())

    @contextmanager
    def over(self, principal: Principal) -> Iterator[asyncio.Future[ApiError]]:
        """A future that is done, with what the caller is told, once `principal` is good no more."""
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


def _set(lost: asyncio.Future[ApiError], reason: str) -> None:
    if not lost.done():
        code = "token_expired" if reason == "expired" else reason
        text = f"The answer ends here: {AUTHENTICATION[reason]}."
        challenge = f'Bearer realm="tidegate", error="invalid_token", error_description="{reason}"'
        lost.set_result(ApiError(401, text, INVALID, code=code, headers={"WWW-Authenticate": challenge}))
