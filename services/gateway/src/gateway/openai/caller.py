"""The caller of a completion, as its headers tell."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from starlette.requests import Request

from tidegate_common.contract.jobs import OnDisconnect
from tidegate_common.contract.principal import Principal
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
    """`name` is a tail's tokens, made of the API key or else of the address. `key` is the idempotency key."""

    principal: Principal
    name: str
    key: str | None = None
    cancel: bool = True
    """Whether the job is cancelled when the caller goes away."""


def caller_of(request: Request) -> Caller:
    """Raises InvalidField."""
    principal = principal_of(request)
    secret = request.headers.get("authorization")
    name = f"key.{hashlib.sha256(secret.encode()).hexdigest()[:32]}" if secret else address_owner(request)
    key = idempotency_key(request)
    # A caller that sends a key means to come back.
    wish = single(request, ON_DISCONNECT) or (OnDisconnect.CANCEL if key is None else OnDisconnect.CONTINUE)
    if wish not in tuple(OnDisconnect):
        raise InvalidField(ON_DISCONNECT, "cancel or continue")
    return Caller(principal, name, key, wish == OnDisconnect.CANCEL)
