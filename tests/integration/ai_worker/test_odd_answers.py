"""Whatever a model writes is an answer: nothing of it can break the relay, or make a worker ask, and pay, again."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway import frame
from gateway.openai.api_errors import ApiError
from gateway.openai.translator import ChunkHead, ChunkTranslator, completion
from tests.integration.ai_worker.endpoint import Endpoint, chunk, endpoint
from tests.integration.ai_worker.handlers import ODD_ENDS
from tests.integration.ai_worker.support import FAST, Desk, desk, worker
from tests.support.waiting import until
from tidegate_common.bus.jobs.events import read_answer
from tidegate_common.contract.answers import Answer

END = chunk({}, "stop")
SMILE = "\U0001f600"


@asynccontextmanager
async def scripted(data: Path, **env: str) -> AsyncIterator[tuple[Endpoint, Desk]]:
    """A worker whose endpoint answers with its `script`."""
    async with endpoint() as server, desk(data) as (nats, asking):
        settings = {**FAST, "TIDEGATE_AI_BACKEND": "openai", "OPENAI_BASE_URL": server.url, "TIDEGATE_AI_RETRIES": "0"}
        async with worker(nats, {**settings, **env}):
            yield server, asking


async def answered(asking: Desk, server: Endpoint, job_id: str, script: list[bytes], **params: Any) -> Answer:
    """The answer to a job whose endpoint writes `script`. It is asked once."""
    server.script = script
    asked = len(server.asked)
    await asking.ask(job_id, "scripted", **params)
    await asking.end(job_id)
    await asking.queue_empty()
    state = await asking.states.get(job_id)
    assert (len(server.asked), state.attempt) == (asked + 1, 1), "the endpoint is asked, and paid, once"
    events = [event for event in asking.of(job_id) if "index" in event.data]
    assert [event.data["index"] for event in events] == list(range(len(events)))
    return await read_answer(asking.history, job_id, state.tail, state.start, state.end)


@pytest.mark.parametrize("window", ["0", "10"])
@pytest.mark.parametrize("kind", ["content", "reasoning_content"])
async def test_half_a_character_is_joined_with_its_other_half_or_replaced(
    tmp_path: Path, kind: str, window: str
) -> None:
    """A model's piece ended within a character, as a lone surrogate. Its event could not be written, so the job was
    left to another worker: the endpoint was asked, and paid, four times."""
    async with scripted(tmp_path, TIDEGATE_AI_COALESCE_MS=window) as (server, asking):
        pieces = {
            "split": (["a \ud83d", "\ude00 b"], f"a {SMILE} b"),
            "alone": (["hi \ud83d"], "hi \ufffd"),
            "first": (["\ude00 b"], "\ufffd b"),
            "wrong": (["a\ud83d", "b", "\ude00"], "a\ufffdb\ufffd"),
            "twice": (["\ud83d", "\ud83d", "\ude00"], f"\ufffd{SMILE}"),
            "inside": (["a\ud83db\ude00\ud83d\ude00"], f"a\ufffdb\ufffd{SMILE}"),
        }
        for name, (parts, text) in pieces.items():
            found = await answered(asking, server, name, [*(chunk({kind: part}) for part in parts), END])
            (candidate,) = found.candidates
            shown = candidate.content if kind == "content" else candidate.reasoning
            assert (name, shown, found.finish_reason) == (name, text, "stop")


async def test_a_piece_that_no_event_can_hold_is_split_between_characters(tmp_path: Path) -> None:
    """One delta of a megabyte and a half lost the whole answer as too large, though its text goes into many events."""
    async with scripted(tmp_path) as (server, asking):
        text = "".join(f"{number} \u00e9{SMILE}\n" for number in range(110_000))
        found = await answered(asking, server, "j1", [chunk({"content": "a"}), chunk({"content": text}), END])
        assert found.candidates[0].content == f"a{text}"
        assert max(len(json.dumps(event.data, ensure_ascii=False).encode()) for event in asking.of("j1")) < 64_000


async def test_an_event_is_no_longer_line_for_what_the_gateway_escapes(tmp_path: Path) -> None:
    """The gateway writes U+0085 and the like as six bytes each: an event of 58,000 was a line of 174,000."""
    async with scripted(tmp_path) as (server, asking):
        text = "\x85\u2028\u2029" * 8_000
        found = await answered(asking, server, "j1", [chunk({"content": "a"}), chunk({"content": text}), END])
        assert found.candidates[0].content == f"a{text}"
        written = [json.dumps(event.data, ensure_ascii=False).encode() for event in asking.of("j1")]
        assert max(len(frame.event(None, b"ai_response", each)) for each in written) < 64_000


@pytest.mark.parametrize("continue_by", ["assistant", "none"])
async def test_a_worker_that_dies_within_a_split_piece_is_gone_on_from_by_index(
    tmp_path: Path, continue_by: str
) -> None:
    """What is stored of the piece is an answer's beginning like any other: the next worker goes on after it, at the
    next index, or declares it void."""
    async with endpoint() as server, desk(tmp_path) as (nats, asking):
        env = {**FAST, "TIDEGATE_AI_BACKEND": "openai", "OPENAI_BASE_URL": server.url, "TIDEGATE_AI_ACK_SECONDS": "1"}
        env |= {"TIDEGATE_AI_CONTINUE": continue_by}
        text = "".join(f"{number} {SMILE}\n" for number in range(600_000))
        server.script = [chunk({"content": text}), END]
        async with worker(nats, env) as (dying, _):
            await asking.ask("j1", "scripted")
            await until(lambda: len(asking.of("j1")) > 2, "the first parts are stored", 30)
            dying.process.kill()
            await dying.process.wait()
            await asking.bus.round_trip()
        shown, pieces = asking.text("j1"), len(asking.of("j1"))
        assert text.startswith(shown)
        assert len(shown) < len(text), "it died in the middle"
        async with worker(nats, env):
            await asking.end("j1", 60)
        going_on = continue_by != "none"
        later = asking.of("j1")[pieces:]
        assert [event.type for event in later].count("ai_restart") == (not going_on)
        expected = f"{shown}Good day" if going_on else text
        assert asking.text("j1") == expected
        indexes = [event.data["index"] for event in later if "index" in event.data]
        start = pieces if going_on else 0
        assert indexes == list(range(start, start + len(indexes)))
        state = await asking.states.get("j1")
        found = await read_answer(asking.history, "j1", state.tail, state.start, state.end)
        assert (found.whole, found.candidates[0].content) == (True, expected)


TEXTS = st.one_of(
    st.sampled_from(
        ["", "a", "\ud83d", "\ude00", "\ud83d\ude00", "\x00\x1b\r\n\u2028", "\udc00x\udbff", "\x01" * 20_000]
    ),
    st.text(st.characters(exclude_categories=()), max_size=8),
)
ODD = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.sampled_from([2**63, -1, "7", "1e9", 2**4000]), st.floats(), TEXTS
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)


def mostly(usual: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """`usual`, and one time in five what nobody expects there."""
    return st.integers(0, 4).flatmap(lambda chosen: usual if chosen else ODD)


PARTS = st.lists(st.fixed_dictionaries({"type": mostly(st.just("text")), "text": mostly(TEXTS)}), max_size=3)
DELTAS = st.fixed_dictionaries(
    {"content": mostly(TEXTS)},
    optional={"reasoning": mostly(TEXTS), "reasoning_content": mostly(TEXTS), "tool_calls": ODD, "role": ODD},
) | st.fixed_dictionaries({"content": PARTS})
CHOICES = st.fixed_dictionaries(
    {"index": mostly(st.integers(-1, 2)), "delta": mostly(DELTAS)}, optional={"finish_reason": mostly(st.just("stop"))}
)
COUNTS = mostly(st.integers(0, 9))
USAGES = st.fixed_dictionaries({"prompt_tokens": COUNTS}, optional={"completion_tokens": COUNTS})
CHUNKS = st.fixed_dictionaries(
    {"choices": mostly(st.lists(mostly(CHOICES), max_size=3))},
    optional={
        "usage": mostly(USAGES),
        "model": mostly(TEXTS),
        "timings": ODD,
        "error": st.sampled_from([None, 0, "no"]),
    },
)
RAW = st.sampled_from(
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"5",
        b"NaN",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"choices":[{"delta":{"content":"\xff"}}]}',
    ]
)
WRITTEN = CHUNKS.map(lambda value: json.dumps(value).encode())
SCRIPTS = st.lists(st.one_of(WRITTEN, WRITTEN, WRITTEN, WRITTEN, RAW, st.just(END)), max_size=6)


async def test_no_answer_breaks_the_relay_whatever_it_holds(tmp_path: Path) -> None:
    """Each thing that an endpoint may put where a text or a number is expected ended a job in its own way, some of
    them after four attempts. Here each job ends once, after one, with events that all who read them can read."""
    async with scripted(tmp_path) as (server, asking):
        loop, numbers = asyncio.get_running_loop(), itertools.count()

        def run(script: list[bytes], candidates: int) -> None:
            working: Coroutine[Any, Any, None] = check(script, candidates)
            asyncio.run_coroutine_threadsafe(working, loop).result(30)

        async def check(script: list[bytes], candidates: int) -> None:
            job_id = f"g{next(numbers)}"
            found = await answered(asking, server, job_id, script, n=candidates)
            assert found.whole
            assert found.done
            json.dumps(found.usage.total_tokens if found.usage else 0)
            head = ChunkHead(job_id, 1, "m")
            chunks = ChunkTranslator(head, candidates, include_usage=True)
            with contextlib.suppress(ApiError):
                for event in asking.of(job_id):
                    chunks.take(event.type, json.dumps(event.data).encode())
            with contextlib.suppress(ApiError):
                completion(head, found)

        checked = given(SCRIPTS, st.integers(1, 2))(run)
        quick = settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        await asyncio.to_thread(quick(checked))


async def test_an_answer_that_can_not_be_read_is_not_asked_for_again(tmp_path: Path) -> None:
    """It was taken, and is paid: what can't be read now would be no better the next time."""
    async with scripted(tmp_path, TIDEGATE_AI_RETRIES="4") as (server, asking):
        for number, data in enumerate([b"{", b"[" * 100_000]):
            found = await answered(asking, server, f"j{number}", [data])
            assert found.error is not None
            assert found.error.code == "backend_error"


async def test_bytes_that_are_no_utf_8_and_an_end_without_a_reason_are_an_answer_all_the_same(tmp_path: Path) -> None:
    async with scripted(tmp_path) as (server, asking):
        found = await answered(asking, server, "j1", [b'{"choices":[{"index":0,"delta":{"content":"a\xffb"}}]}'])
        assert (found.candidates[0].content, found.finish_reason) == ("a\ufffdb", "stop")


async def test_a_handlers_odd_pieces_and_ends_are_written_or_fail_the_job_once(tmp_path: Path) -> None:
    """A note with half a character, a time that is no number, a candidate with the number of a billion, a bad error:
    what a handler of one's own yields came back with each attempt, or was kept as a record that nobody could read."""
    async with desk(tmp_path) as (nats, asking):
        kinds = {"TIDEGATE_AI_HANDLERS": "odd=tests.integration.ai_worker.handlers:odd"}
        async with worker(nats, {**FAST, **kinds}):
            for number, (name, code) in enumerate(ODD_ENDS.items()):
                job_id = f"j{number}"
                await asking.put(job_id, "odd", {"which": name})
                last = await asking.end(job_id)
                await asking.queue_empty()
                state = await asking.states.get(job_id)
                found = await read_answer(asking.history, job_id, state.tail, state.start, state.end)
                assert (name, last.data.get("code"), state.attempt, found.done) == (name, code, 1, True)
                json.dumps(msgspec.to_builtins([state, found]), allow_nan=False).encode()
