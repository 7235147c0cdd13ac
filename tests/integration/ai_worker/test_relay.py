import asyncio
import json
from pathlib import Path

import pytest
from opentelemetry.context import Context

from ai_worker.handlers.handler import Work
from ai_worker.pieces import Reasoning, Text
from ai_worker.relay import Relay
from tests.integration.ai_worker.support import Desk, desk
from tests.support.waiting import until
from tidegate_common.bus.history import History
from tidegate_common.contract.jobs import Usage
from tidegate_common.errors import BrokerUnavailable

PIECES: list[Text | Reasoning] = [Reasoning("r1"), Reasoning("r2"), *(Text(letter) for letter in "abcdef")]


def relay(asking: Desk, window: float, attempt: int = 1, patience: float = 5) -> Relay:
    return Relay(asking.publisher, Work("j1", attempt, Context()), "client.ann", window=window, patience=patience)


async def send(asking: Desk, window: float, attempt: int = 1) -> None:
    writing = relay(asking, window, attempt)
    for piece in PIECES:
        await writing.put(piece)
    await writing.done("stop", Usage(1, 2))


async def test_without_a_window_each_piece_is_an_event_of_its_own(tmp_path: Path) -> None:
    async with desk(tmp_path) as (_, asking):
        await send(asking, 0)
        await asking.end("j1")
        contents = [event.data["content"] for event in asking.of("j1")]
        assert contents == [piece.content for piece in PIECES] + [""]
        assert [event.data["index"] for event in asking.of("j1")] == list(range(len(PIECES) + 1))


async def test_with_a_window_pieces_of_one_type_go_together_and_none_is_lost(tmp_path: Path) -> None:
    async with desk(tmp_path) as (_, asking):
        await send(asking, 0.05)
        await asking.end("j1")
        events = asking.of("j1")
        assert len(events) < len(PIECES)
        assert "".join(event.data["content"] for event in events) == "r1r2abcdef"
        assert {event.type for event in events if "r" in event.data["content"]} == {"ai_reasoning"}
        assert [event.data["index"] for event in events] == list(range(len(events)))


async def test_the_first_piece_leaves_at_once_and_the_next_ones_wait_for_the_window(tmp_path: Path) -> None:
    async with desk(tmp_path) as (_, asking):
        writing = relay(asking, 60)
        await writing.put(Text("a"))
        await until(lambda: asking.text("j1") == "a", "the first piece")
        await writing.put(Text("b"))
        await History(asking.bus).position()
        assert asking.text("j1") == "a"
        await writing.drop()


async def test_an_event_that_is_sent_again_is_stored_once(tmp_path: Path) -> None:
    async with desk(tmp_path) as (_, asking):
        await send(asking, 0)
        await send(asking, 0)
        await send(asking, 0, attempt=2)
        position = await History(asking.bus).position()
        stored = [event async for event in History(asking.bus).after("client.ann", 0, position.last)]
        assert len(stored) == 2 * (len(PIECES) + 1), "once for each attempt"
        assert json.loads(stored[-1].payload)["usage"] == {"prompt_tokens": 1, "completion_tokens": 2}


async def test_a_broker_that_stays_away_ends_the_writing(tmp_path: Path) -> None:
    async with desk(tmp_path) as (nats, asking):
        await nats.run.stop()
        await until(lambda: not asking.bus.connected, "the connection is lost")
        writing = relay(asking, 0, patience=0.1)
        await writing.put(Text("a"))
        with pytest.raises(BrokerUnavailable):
            await asyncio.wait_for(writing.done("stop", Usage()), 10)
