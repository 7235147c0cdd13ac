"""A job's events under their fence, on a stream of three copies whose leader is killed."""

import signal
from pathlib import Path

import pytest
from opentelemetry.context import Context

from ai_worker.event_writer import EventWriter, Pace
from ai_worker.handlers.handler import Work
from ai_worker.lease import Fence
from ai_worker.pieces import Text
from tests.support.bus import SUBJECTS
from tests.support.cluster import leader, made, nats_cluster
from tests.support.waiting import until
from tidegate_common.bus.connection import connect
from tidegate_common.bus.events.history import History
from tidegate_common.bus.events.publisher import EventPublisher
from tidegate_common.errors import Superseded


@pytest.mark.timeout(120)
async def test_an_answer_survives_the_streams_leader_and_an_old_attempt_stays_out(tmp_path: Path) -> None:
    async with nats_cluster(tmp_path) as cluster, connect(cluster.url, SUBJECTS, "test") as bus:
        await made(bus)
        history = History(bus)
        publisher = EventPublisher(bus, history)
        overtaken = False

        async def mine() -> bool:
            return not overtaken

        def writer(attempt: int, fence: Fence) -> EventWriter:
            return EventWriter(publisher, Work("j1", attempt, Context()), "client.ann", fence, Pace(0, 1_000, 30))

        fence = Fence(publisher, history, bus.subjects.fence("j1"), "j1", mine)
        await fence.raise_(1)
        old = writer(1, fence)
        for number in range(100):
            await old.put(Text(f"{number} "))
        cluster.servers[await leader(bus)].run.process.send_signal(signal.SIGKILL)
        for number in range(100, 200):
            await old.put(Text(f"{number} "))
        await until(lambda: old.index == 200, "all pieces are stored", 60)

        newer = Fence(publisher, history, bus.subjects.fence("j1"), "j1", mine)
        await newer.raise_(2)
        overtaken = True
        await old.put(Text("ghost"))
        with pytest.raises(Superseded):
            await old.finish()
        position = await history.position()
        stored = [event.payload async for event in history.after("client.ann", 0, position.last)]
        texts = [payload.split(b'"content":"')[1].split(b'"')[0].decode() for payload in stored]
        assert "".join(texts) == "".join(f"{number} " for number in range(200))
