import asyncio
import base64
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace
from opentelemetry.context import Context

from ai_worker.event_writer import BACKLOG, EventWriter, Pace
from ai_worker.handlers.handler import Work
from ai_worker.job_errors import OutputTooLarge
from ai_worker.lease import Fence, Mine
from ai_worker.pieces import Artifact, CandidateEnd, Piece, Progress, Reasoning, Segment, Text
from tests.integration.ai_worker.support import Desk, desk
from tests.support.processes import paused
from tests.support.waiting import until
from tidegate_common.bus.events.history import History
from tidegate_common.bus.jobs.finish import last_event
from tidegate_common.bus.jobs.records import record_of
from tidegate_common.contract.answers import AnswerBuilder
from tidegate_common.contract.jobs import Job, JobState, JobStatus, Usage
from tidegate_common.errors import BrokerUnavailable, Superseded
from tidegate_common.runtime.tasks import end

PIECES: list[Text | Reasoning] = [Reasoning("r1"), Reasoning("r2"), *(Text(letter) for letter in "abcdef")]


async def always() -> bool:
    return True


async def writer(
    asking: Desk, window: float, attempt: int = 1, patience: float = 5, size: int = 1_000, mine: Mine = always
) -> EventWriter:
    fence = Fence(asking.publisher, asking.history, asking.bus.subjects.fence("j1"), "j1", mine)
    await fence.raise_(attempt)
    work = Work("j1", attempt, Context())
    return EventWriter(asking.publisher, work, "client.ann", fence, Pace(window, size, patience))


async def send(asking: Desk, window: float, attempt: int = 1, pieces: Sequence[Piece] = PIECES) -> None:
    writing = await writer(asking, window, attempt)
    for piece in pieces:
        await writing.put(piece)
    await writing.finish()
    await writing.store(last_event(ended_at(writing.index)))


def ended_at(pieces: int) -> JobState:
    """The record of a job that is done after so many events."""
    asked = Job(job_id="j1", kind="chat", tail="client.ann", params={}, created=1)
    return replace(record_of(asked, "", 1), status=JobStatus.DONE, usage=Usage(1, 2), pieces=pieces)


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
        writing = await writer(asking, 60)
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
        assert len(stored) == 2 * len(PIECES) + 1, "pieces once for each attempt, the last event once for all"
        assert json.loads(stored[len(PIECES)].payload)["usage"] == {"prompt_tokens": 1, "completion_tokens": 2}


async def test_a_broker_that_stays_away_ends_the_writing(tmp_path: Path) -> None:
    async with desk(tmp_path) as (nats, asking):
        writing = await writer(asking, 0, patience=0.1)
        await nats.run.stop()
        await until(lambda: not asking.bus.connected, "the connection is lost")
        await writing.put(Text("a"))
        with pytest.raises(BrokerUnavailable):
            await asyncio.wait_for(writing.finish(), 10)


async def test_enough_text_does_not_wait_for_the_window(tmp_path: Path) -> None:
    async with desk(tmp_path) as (_, asking):
        writing = await writer(asking, 60, size=10)
        await writing.put(Text("a"))
        await until(lambda: asking.text("j1") == "a", "the first piece")
        for _ in range(5):
            await writing.put(Text("bc"))
        await until(lambda: asking.text("j1") == "abcbcbcbcbc", "enough text")
        assert len(asking.of("j1")) == 2
        await writing.drop()


async def test_a_handler_that_is_faster_than_the_stream_waits(tmp_path: Path) -> None:
    async with desk(tmp_path) as (nats, asking):
        writing = await writer(asking, 60, size=1_000_000)
        async with paused(nats.run):
            pieces = asyncio.create_task(put_for_ever(writing))
            await until(lambda: writing.taken >= BACKLOG, "the backlog is full")
            taken = writing.taken
            for _ in range(100):
                await asyncio.sleep(0)  # turns of the loop, in which the handler would go on
            assert writing.taken == taken <= 2 * BACKLOG
            await end([pieces])
            await writing.drop()


async def put_for_ever(writing: EventWriter) -> None:
    while True:
        await writing.put(Text("a"))


async def test_text_of_several_candidates_goes_together_for_each_and_keeps_its_order(tmp_path: Path) -> None:
    async with desk(tmp_path) as (_, asking):
        first: list[Piece] = [Text("a", number % 2) for number in range(20)]
        await send(asking, 0.05, pieces=[*first, CandidateEnd("stop", 1), Text("b"), CandidateEnd("length", 0)])
        await asking.end("j1")
        found = AnswerBuilder()
        for event in asking.of("j1"):
            found.take(event.type, json.dumps(event.data).encode())
        assert [(each.content, each.finish_reason) for each in found.answer().candidates] == [
            ("a" * 10 + "b", "length"),
            ("a" * 10, "stop"),
        ]
        assert len(asking.of("j1")) < 10


async def test_what_is_no_text_is_an_event_of_its_own_type(tmp_path: Path) -> None:
    async with desk(tmp_path) as (_, asking):
        segment = Segment(number=0, text="hi", start=0.5, end=1.5, confidence=0.9, final=True)
        picture = Artifact(name="p", media_type="image/png", content=b"\x89PNG", final=True)
        await send(asking, 0.05, pieces=[Progress(0.1), Progress(0.5, "half"), picture, segment])
        await asking.end("j1")
        progress, artifact, transcript, _ = asking.of("j1")
        assert (progress.type, progress.data["fraction"], progress.data["note"]) == ("ai_progress", 0.5, "half")
        assert (artifact.type, base64.b64decode(artifact.data["content"])) == ("ai_artifact", b"\x89PNG")
        assert (transcript.type, transcript.data["segment"], transcript.data["text"]) == ("ai_transcript", 0, "hi")


async def test_a_piece_that_no_event_can_hold_is_an_error_that_says_so(tmp_path: Path) -> None:
    async with desk(tmp_path) as (_, asking):
        with pytest.raises(OutputTooLarge, match=r"over the 104\d{4} bytes"):
            await send(asking, 0, pieces=[Artifact(name="p", media_type="image/png", content=bytes(1_000_000))])


async def test_an_attempt_that_was_overtaken_can_not_write_any_more(tmp_path: Path) -> None:
    async with desk(tmp_path) as (_, asking):

        async def overtaken() -> bool:
            return False

        old = await writer(asking, 0, mine=overtaken)
        await old.put(Text("old"))
        await until(lambda: asking.text("j1") == "old", "the old one writes")
        new = await writer(asking, 0, attempt=2)
        await old.put(Text("ghost"))
        with pytest.raises(Superseded):
            await old.finish()
        await new.put(Text("new"))
        await new.finish()
        assert asking.text("j1") == "oldnew"


async def test_a_fence_that_the_streams_limits_dropped_is_raised_again(tmp_path: Path) -> None:
    async with desk(tmp_path) as (_, asking):
        writing = await writer(asking, 0)
        await asking.bus.jetstream.purge_stream("TG_EVENTS", subject=asking.bus.subjects.fence("j1"))
        await writing.put(Text("a"))
        await writing.finish()
        assert asking.text("j1") == "a"
