"""What publisher-api reads from its environment."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from tidegate_common.runtime.environment import AtLeastOne, CommonSettings, Port


class PublisherSettings(CommonSettings, frozen=True, kw_only=True):
    """publisher-api's settings."""

    port: Port = 8001
    cors_origins: tuple[str, ...] = ("http://127.0.0.1:8000", "http://localhost:8000")
    """The console's own origins, if a gateway serves it on this machine."""
    max_body_bytes: AtLeastOne = 1 << 20
    max_batch_bytes: AtLeastOne = 8 << 20
    max_batch_lines: AtLeastOne = 10_000
    max_event_ttl_seconds: AtLeastOne = 86_400
    max_topics: AtLeastOne = 100
    """Of one stream that a ticket is asked for."""
    events_restored: Annotated[str, Meta(max_length=100)] = ""
    """Another text than before says that a copy of NATS's store was put back: what was stored after it is gone."""
