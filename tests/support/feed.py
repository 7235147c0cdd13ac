"""A feed that loses events, as a NATS cluster does whose routes break."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.gateway import RunningGateway
from tidegate_common.bus.events.history import History
from tidegate_common.bus.events.publisher import EventPublisher
from tidegate_common.contract.events import Event


@contextmanager
def deaf(running: RunningGateway, tail: str) -> Iterator[None]:
    """The gateway hears nothing of `tail` and does not know it, as when a route between NATS servers loses messages."""
    audience = running.gateway.hub.audience(tail)
    assert audience is not None
    running.gateway.subscriptions.unsubscribe(audience)
    yield
    running.gateway.subscriptions.subscribe(audience)


def unadvised(running: RunningGateway) -> None:
    """The gateway does not hear from NATS that its stream is deleted, as if NATS did not let it."""
    client = running.bus.client
    deleted = "$JS.EVENT.ADVISORY.STREAM.DELETED"
    for sid in [sid for sid, each in client._subs.items() if getattr(each, "_subject", "").startswith(deleted)]:
        client.unsubscribe_direct(sid)


async def synced(running: RunningGateway) -> None:
    """What the gateway asked of its server so far has been done."""
    await History(running.bus).position()


async def write(publisher: EventPublisher, data: str, tail: str = "client.a") -> str:
    """Stores an event of the type `n`; gives its id."""
    return (await publisher.durable(tail, Event("n", data), headers={})).id
