"""A gateway's feed and hub over the stream in memory, without sockets."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from gateway.feed.attachment import Attachments
from gateway.feed.audit import Audit
from gateway.feed.holes import HoleDetector
from gateway.feed.life import StreamLife
from gateway.feed.receipts import Receipts
from gateway.feed.recovery import Recovery
from gateway.feed.repair import Repairs
from gateway.feed.replay import Replay
from gateway.feed.stream_ends import StreamEnds
from gateway.feed.subscriptions import Subscriptions
from gateway.hub.heartbeat import Heartbeat
from gateway.hub.hub import Hub
from tests.support.memory_stream import MemoryStream
from tidegate_common.telemetry.providers import Telemetry


class Feed:
    def __init__(self, stream: MemoryStream, signals: Telemetry) -> None:
        loop, anything = asyncio.get_running_loop(), cast(Any, stream)
        self.hub = hub = Hub(loop.call_soon, lambda ending: b"", max_held_bytes=300)
        heartbeat = Heartbeat(hub, b"", loop.time, heartbeat_seconds=15, idle_seconds=0, max_age_seconds=0)
        ends = StreamEnds(hub)
        self.life = life = StreamLife(anything, hub, anything, heartbeat, ends, 1.0)
        replay = Replay(hub, anything, life, ends)
        self.recovery = recovery = Recovery(hub, life, replay, ends, 30.0)
        self.repairs = Repairs(anything, hub, anything, life, recovery)
        holes = HoleDetector(life, self.repairs)
        subscriptions = Subscriptions(anything, hub, life, holes, Receipts(hub), ends, signals)
        self.attachments = Attachments(hub, life, subscriptions, replay, recovery, ends)
        self.audit = Audit(anything, hub, anything, life, self.repairs, 0)

    async def aclose(self) -> None:
        await self.repairs.aclose()
        await self.life.aclose()
