"""What is in the queue and among the records and is not ours: it is discarded or told, and nothing waits for it."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from pathlib import Path
from typing import Any

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.ai_worker.support import FAST, SLOW, Desk, desk, worker
from tests.support.waiting import until
from tidegate_common.bus.jobs.enqueue import notify
from tidegate_common.contract.jobs import JobStatus

SUBJECT = "tg.jobs.chat.0.client.ann"
GOOD = {
    "job_id": "bad1",
    "kind": "chat",
    "tail": "client.ann",
    "params": {"messages": [{"role": "user", "content": "hello"}]},
    "created": 1.0,
}


async def store(asking: Desk, payload: bytes, subject: str = SUBJECT, block: bytes = b"NATS/1.0\r\n\r\n") -> None:
    """Puts a message into the queue as somebody else may; it is there when this returns."""
    answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    inbox = asking.bus.client.new_inbox()

    def hear(_: bytes, __: bytes, answered: bytes) -> None:
        if not answer.done():
            answer.set_result(answered)

    sid = asking.bus.client.subscribe_direct(inbox, hear)
    asking.bus.client.request_direct(subject, inbox.encode(), block, payload)
    async with asyncio.timeout(5):
        assert "error" not in json.loads(await answer)
    asking.bus.client.unsubscribe_direct(sid)
    notify(asking.bus)


def message(**fields: Any) -> bytes:
    return json.dumps({**GOOD, **fields}).encode()


MESSAGES = {
    "nothing": b"",
    "no JSON": b"{",
    "no UTF-8": b'{"job_id":"\xff"}',
    "too deep": b"[" * 100_000,
    "another shape": b'["job"]',
    "no kind": b'{"job_id":"bad1","tail":"client.ann"}',
    "no id": message(job_id=""),
    "a wildcard as its id": message(job_id="*"),
    "an id of two tokens": message(job_id="a.b"),
    "an id with a line end": message(job_id="a\r\nPUB x 0"),
    "a long id": message(job_id="a" * 10_000),
    "half a character as its id": message(job_id="\ud83d"),
    "no tail": message(tail=""),
    "a wildcard as its tail": message(tail="client.>"),
    "a tail that is no one's": message(tail="fence.bad1"),
    "a tail with a line end": message(tail="client.ann\r\nPUB x 0"),
    "an owner with a space": message(owner="a b"),
    "no kind's name": message(kind=""),
    "a kind with a space": message(kind="a b"),
    "a long kind": message(kind="k" * 1_000),
    "made after the end of time": message(created=1e300),
    "made when no trace has a time any more": message(created=9.3e9),
    "made before all time": message(created=-1e300),
    "a deadline past all time": message(deadline=1e300),
    "an endless grace": message(on_disconnect="cancel", grace_seconds=1e300),
    "half a character in its prompt": message(params={"messages": [{"role": "user", "content": "\ud83d"}]}),
    "params of another kind": message(params={"messages": 5}),
    "a kind that nobody has": message(kind="nobodys"),
    "a start that is none": message(start="x-99999999999999999999"),
    "a new field": message(news="yes"),
}


async def test_a_message_that_is_no_job_leaves_the_queue(tmp_path: Path) -> None:
    """A job with an impossible id was given out again every ten seconds for ever. One with a time past all time took a
    slot of the worker's with it: after four of those it took no jobs any more."""
    async with desk(tmp_path) as (nats, asking), worker(nats, FAST) as (run, url):
        for name, payload in MESSAGES.items():
            await store(asking, payload)
            await until(lambda: empty(asking), f"{name} leaves the queue", 8)
        await asking.ask("good1")
        assert (await asking.end("good1")).data["finish_reason"] == "stop"
        assert not run.said("Traceback"), "\n".join(run.output)
        counted = await metric(url, 'tidegate_foreign_total{otel_scope_name="tidegate"')
        assert counted > 10
        assert 1 <= run.count("is not ours") < 5, "said once in a while, and counted"


BLOCKS = {
    "a status": b"NATS/1.0 404 No Messages\r\n\r\n",
    "a status that is none": b"NATS/1.0 x\r\n\r\n",
    "a field named Status": b"NATS/1.0\r\nStatus: 404\r\n\r\n",
    "bytes that are no UTF-8": b"NATS/1.0\r\nX: \xff\xfe\r\n\r\n",
    "a name that is no UTF-8": b"NATS/1.0\r\n\xff: a\r\n\r\n",
    "no colon": b"NATS/1.0\r\nnothing\r\n\r\n",
    "no end": b"NATS/1.0\r\nX: a",
    "nothing": b"NATS/1.0\r\n\r\n",
    "a trace that is none": b"NATS/1.0\r\ntraceparent: 00-zz\r\ntracestate: =,=\r\n\r\n",
}


async def test_a_job_with_odd_headers_is_run(tmp_path: Path) -> None:
    """A stored message whose headers look like an answer of the server's was taken for "no jobs": it was given out
    again and again, and the jobs behind it waited. One that the client could not parse was never handed over."""
    async with desk(tmp_path) as (nats, asking), worker(nats, FAST):
        for number, (name, block) in enumerate(BLOCKS.items()):
            job_id = f"h{number}"
            # Its record is made as for any other job; then another message of it, with odd headers, comes first.
            await asking.put(job_id, "chat", GOOD["params"])  # type: ignore[arg-type]
            await asking.end(job_id)
            await store(asking, message(job_id=f"odd{number}", created=time.time()), block=block)
            await until(lambda: empty(asking), f"a job with {name} in its headers leaves the queue", 8)


async def test_messages_on_subjects_of_no_level_are_told(tmp_path: Path) -> None:
    """They fill the queue, and no worker looks there: only whoever put them can know what they are."""
    async with desk(tmp_path) as (nats, asking):
        for subject in ("tg.jobs.chat.7.client.ann", "tg.jobs.chat.x.y.z", "tg.jobs.chat.new.v2"):
            await store(asking, b"{}", subject)
        async with worker(nats, FAST) as (run, url):

            async def told() -> bool:
                return await metric(url, "tidegate_jobs_strays") == 3

            await until(told, "the strays are counted")
            assert run.said("3 messages in the queue are on subjects that no worker takes jobs from")
            await asking.ask("good1")
            await asking.state("good1", JobStatus.DONE)


async def test_a_message_whose_subject_is_no_text_leaves_the_queue(tmp_path: Path) -> None:
    """The client dropped it as it was read, so that the worker took it for an answer that did not come: it waited five
    seconds each time, and was given it again after ten, before all other jobs."""
    async with desk(tmp_path) as (nats, asking), worker(nats, FAST) as (run, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", nats.port)
        writer.write(b'CONNECT {"headers":true,"verbose":false,"pedantic":false}\r\n')
        for subject in (b"tg.jobs.chat.0.client.\xff", b"tg.jobs.\xff.1.client.ann", b"tg.jobs.chat.2.\xc3.\x00"):
            writer.write(b"PUB %b 2\r\n{}\r\n" % subject)
        writer.write(b"PING\r\n")
        await reader.readuntil(b"PONG\r\n")
        writer.close()
        await asking.ask("good1")
        await asking.end("good1", 4)
        await asking.queue_empty()
        assert not run.said("Traceback"), "\n".join(run.output)


async def empty(asking: Desk) -> bool:
    return (await asking.bus.jetstream.stream_info("TG_JOBS")).state.messages == 0


async def metric(url: str, start: str, label: str = "") -> float:
    async with httpx.AsyncClient() as client:
        lines = (await client.get(f"{url}/metrics")).text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(start) and label in line)


RECORDS: dict[str, Any] = {
    "empty": b"",
    "no JSON": b"{",
    "no UTF-8": b'{"job_id":"\xff"}',
    "another shape": b"[1]",
    "another job's": {"job_id": "another"},
    "a wildcard as its tail": {"tail": ">"},
    "a tail with a line end": {"tail": "client.ann\r\nPUB x 0"},
    "a usage that is none": {"usage": {"prompt_tokens": "many"}},
    "a time past all time": {"updated": 1e400},
}


def record(job_id: str, value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    now = time.time()
    state = {"job_id": job_id, "kind": "chat", "status": "queued", "created": now, "updated": now, "tail": "client.ann"}
    return json.dumps({**state, **value}).encode()


async def test_a_job_whose_record_can_not_be_read_is_not_run_and_its_asker_is_told(tmp_path: Path) -> None:
    """A worker that met a corrupt record, or one of a newer release, left the job to the next one, and so on for ever;
    where it could not read the record it tried to make it anew, without a pause."""
    async with desk(tmp_path) as (nats, asking), worker(nats, FAST) as (run, _):
        bucket = await asking.bus.jetstream.key_value("TG_JOBS_STATE")
        for number, (name, value) in enumerate(RECORDS.items()):
            job_id = f"r{number}"
            await bucket.put(job_id, record(job_id, value))
            await store(asking, message(job_id=job_id, created=time.time()))
            await until(lambda: empty(asking), f"a job whose record is {name} leaves the queue", 8)
            last = await asking.end(job_id)
            assert (name, last.type, last.data["code"]) == (name, "ai_error", "invalid_params")
        await asking.ask("good1")
        await asking.state("good1", JobStatus.DONE)
        assert not run.said("Traceback"), "\n".join(run.output)


async def test_a_message_that_names_a_running_job_does_not_end_it(tmp_path: Path) -> None:
    """The record of the job that was named was ended as no job, while its worker wrote the answer: that lost its last
    piece and its end."""
    async with desk(tmp_path) as (nats, asking), worker(nats, SLOW):
        await asking.ask("j1")
        await until(lambda: asking.text("j1"), "it runs")
        await store(asking, message(job_id="j1", kind=5))
        last = await asking.end("j1")
        assert (last.type, last.data.get("finish_reason")) == ("ai_response", "stop")
        await asking.queue_empty()
        assert (await asking.states.get("j1")).status is JobStatus.DONE
        await store(asking, message(job_id="j1", kind=5))
        await asking.queue_empty()
        await asking.bus.round_trip()
        assert [event for event in asking.of("j1") if event.data.get("done")] == [last]


async def test_a_job_whose_status_is_of_another_release_is_left_to_a_worker_of_that(tmp_path: Path) -> None:
    """While releases change, workers of both take jobs. The older one ended a job whose record the newer one had given
    a status that it did not know, and told its asker that it was none."""
    async with desk(tmp_path) as (nats, asking), worker(nats, {**FAST, "TIDEGATE_AI_ACK_SECONDS": "1"}) as (_, url):
        bucket = await asking.bus.jetstream.key_value("TG_JOBS_STATE")
        made = time.time()
        await bucket.put("n1", record("n1", {"status": "resting", "created": made, "news": 1}))
        await store(asking, message(job_id="n1", created=made))

        async def left() -> bool:
            return await metric(url, "tidegate_jobs_total", '"left"') > 1

        await until(left, "it is given out again, and left each time", 15)
        assert not asking.of("n1")
        await bucket.put("n1", record("n1", {"created": made}))  # as the other release hands it back
        assert (await asking.end("n1")).data["finish_reason"] == "stop"
        await asking.queue_empty()


async def test_a_job_of_a_release_that_does_not_come_back_is_no_job_after_an_hour(tmp_path: Path) -> None:
    async with desk(tmp_path) as (nats, asking), worker(nats, FAST):
        bucket = await asking.bus.jetstream.key_value("TG_JOBS_STATE")
        made = time.time() - 4_000
        await bucket.put("n1", record("n1", {"status": "resting", "created": made, "updated": made}))
        await store(asking, message(job_id="n1", created=made))
        last = await asking.end("n1")
        assert (last.type, last.data["code"]) == ("ai_error", "invalid_params")
        await asking.queue_empty()


WORDS = ["", "*", ">", "a b", "client.ann", "\r\n", "\ud83d", "done", "x" * 300]
TEXTS = st.one_of(st.sampled_from(WORDS), st.text(max_size=5))
ODD = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(TEXTS, inner, max_size=2)),
    max_leaves=4,
)
FIELDS = ["job_id", "kind", "tail", "params", "created", "owner", "start", "deadline", "on_disconnect", "grace_seconds"]
CHANGES = st.dictionaries(st.sampled_from([*FIELDS, "revision"]), ODD, min_size=1, max_size=2)
HEADERS = st.sampled_from(list(BLOCKS.values())) | st.binary(max_size=20).map(lambda raw: b"NATS/1.0\r\n" + raw)


async def test_no_message_stays_in_the_queue_whatever_it_holds(tmp_path: Path) -> None:
    async with desk(tmp_path) as (nats, asking), worker(nats, FAST) as (run, _):
        loop, numbers = asyncio.get_running_loop(), itertools.count()

        def run_one(change: dict[str, Any], block: bytes) -> None:
            asyncio.run_coroutine_threadsafe(check(change, block), loop).result(30)

        async def check(change: dict[str, Any], block: bytes) -> None:
            fields = {"job_id": f"g{next(numbers)}", "created": time.time(), **change}
            await store(asking, message(**fields), block=block)
            await until(lambda: empty(asking), f"{change!r} leaves the queue", 8)

        quick = settings(max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        await asyncio.to_thread(quick(given(CHANGES, HEADERS)(run_one)))
        await asking.ask("good1")
        await asking.state("good1", JobStatus.DONE)
        assert not run.said("Traceback"), "\n".join(run.output)
