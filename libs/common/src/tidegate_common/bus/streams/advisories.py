"""What JetStream says of its own accord about the event stream."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable

from tidegate_common.bus.connection import Bus
from tidegate_common.errors import SubscriptionRefused

log = logging.getLogger(__name__)


def on_deletion(bus: Bus, called: Callable[[], None]) -> None:
    """Calls `called` each time the event stream is deleted, before another can be in its place.

    From inside the read of the connection. If NATS does not let this process hear it, nothing is called.
    """
    _listen(bus, "DELETED", called)


def on_update(bus: Bus, called: Callable[[], None]) -> None:
    """As `on_deletion`, each time its configuration changes: the epoch may, which stands there."""
    _listen(bus, "UPDATED", called)


def _listen(bus: Bus, what: str, called: Callable[[], None]) -> None:
    subject = f"$JS.EVENT.ADVISORY.STREAM.{what}.{bus.subjects.events_stream}"
    with contextlib.suppress(SubscriptionRefused):
        bus.client.subscribe_direct(subject, lambda *_: called(), refused=_say)


def _say(subject: str, reason: str) -> None:
    log.info("changes of the event stream will not be heard of", extra={"subject": subject, "reason": reason})
