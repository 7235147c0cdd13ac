"""Who the clients of a run say that they are, where services ask for it: short tokens of two secrets, and tickets."""

from __future__ import annotations

import random
from typing import Any

from tests.stress.listener import Listening
from tests.support.identity import bearer, token

SECRETS = ("the old secret of the stress program", "the new secret of the stress program")
"""Either is good: one is taking the other's place."""


SHIPPED_SECONDS = (8.0, 16.0)
"""For those that Tidegate ships: they stop if they are refused twice, and this process may be busy for seconds."""

LONG_SECONDS = (60.0, 90.0)
"""At the start and at the end, when all clients have to be there at one moment."""

ENV = {
    "TIDEGATE_AUTH": "token",
    "TIDEGATE_AUTH_SECRET": ",".join(SECRETS),
    "TIDEGATE_AUTH_LEEWAY_SECONDS": "0",
}


def short(clients: int) -> tuple[float, float]:
    """How long a token is good, between so many seconds, among so many clients. All together have one machine, and a
    token that ends before its client is answered is asked for again and again.
    """
    times = 1 + clients // 500
    return 1.0 * times, 3.0 * times


def client_token(name: str, listening: Listening, seconds: tuple[float, float]) -> str:
    """A token that lets client `name` hear what it listens to, and nothing else."""
    return token(
        listening.user_id,
        seconds=random.uniform(*seconds),
        secret=random.choice(SECRETS),
        client=name,
        subscribe=_grants(listening),
    )


def signed(name: str, listening: Listening) -> dict[str, Any]:
    """What `client_token` is made of, for a client that makes its tokens in another process."""
    told = {"client": name, "subscribe": _grants(listening)}
    claims = {"sub": listening.user_id, "aud": "tidegate", "tidegate": told}
    return {"secrets": SECRETS, "claims": claims, "seconds": SHIPPED_SECONDS}


def _grants(listening: Listening) -> list[str]:
    return ["broadcast", *(f"topic:{topic}" for topic in listening.topics)]


def service_headers() -> dict[str, str]:
    """Of whoever publishes, asks and counts; good for the whole run."""
    admin = ["presence", "kick", "revoke", "metrics"]
    everywhere = ["client:*", "user:*", "topic:>", "broadcast"]
    return bearer(token("load", secret=SECRETS[0], seconds=36_000, publish=everywhere, admin=admin))
