"""The caller of a completion, as its headers tell."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from starlette.requests import Request

from tidegate_common.contract.jobs import OnDisconnect
from tidegate_common.contract.principal import Principal
from tidegate_common.contract.subjects import user_tail
from tidegate_common.errors import InvalidField
from tidegate_common.runtime.authentication import principal_of
from tidegate_common.runtime.query import address_owner, idempotency_key, single

ON_DISCONNECT = "Tidegate-On-Disconnect"
REQUEST_HEADERS = [
    "authorization",
    "idempotency-key",
    "openai-organization",
    "openai-project",
    ON_DISCONNECT.lower(),
    *(
        f"x-stainless-{name}"
        for name in (
            "arch",
            "helper-method",
            "lang",
            "os",
            "package-version",
            "retry-count",
            "runtime",
            "runtime-version",
            "timeout",
        )
    ),
]
"""OpenAI's clients send these, from pages of other origins too."""


class Caller(NamedTuple):
    """Who asks for a completion, and what becomes of the job when they go away."""

    principal: Principal
    address: str
    name: str
    """The owner of its jobs, but for `user`: a tail's tokens."""
    key: str | None = None
    """The idempotency key: of the same name, it is the same job."""
    cancel: bool = True
    """Whether the job is cancelled when the caller goes away."""

    def owner(self, user: str) -> str:
        """Whose job it is that `user` is named in. It divides what a service has, and makes nobody another."""
        if self.principal.is_open:
            return user_tail(user) if user else self.name
        return self.principal.owner(user)


def caller_of(request: Request) -> Caller:
    """Raises InvalidField."""
    principal = principal_of(request)
    key = idempotency_key(request)
    # A caller that sends a key means to come back.
    wish = single(request, ON_DISCONNECT) or (OnDisconnect.CANCEL if key is None else OnDisconnect.CONTINUE)
    if wish not in tuple(OnDisconnect):
        raise InvalidField(ON_DISCONNECT, "cancel or continue")
    name = _name(request) if principal.is_open else principal.owner()
    return Caller(principal, request.client.host if request.client else "", name, key, wish == OnDisconnect.CANCEL)


def _name(request: Request) -> str:
    """Where nobody is asked who they are, official clients send some key all the same."""
    secret = request.headers.get("authorization")
    return f"key.{hashlib.sha256(secret.encode()).hexdigest()[:32]}" if secret else address_owner(request)
