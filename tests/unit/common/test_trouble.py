"""One line for each thing that an operator has to know."""

import asyncio
import logging

import pytest

from tests.support.waiting import until
from tidegate_common.telemetry.logging import RepeatFilter
from tidegate_common.telemetry.trouble import Trouble

log = logging.getLogger("tidegate_common.test")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_trouble_is_said_when_it_begins_and_when_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clock = Clock()
    trouble = Trouble(log, "no jobs are taken", "jobs are taken again", clock=clock)
    trouble.over()
    for _ in range(150):
        trouble.note("NATS is away")
        clock.now += 0.2
    assert caplog.messages == ["no jobs are taken: NATS is away"]
    trouble.over()
    trouble.over()
    assert caplog.messages[1:] == ["jobs are taken again, after 30 s, 150 times"]
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    trouble.note("NATS is away")
    assert len(caplog.messages) == 3


def test_what_lasts_is_said_again_each_minute_and_a_new_reason_at_once(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    trouble = Trouble(log, "it fails", "it works", clock=clock)
    for second in range(130):
        trouble.note("one" if second % 2 else "other")
        clock.now += 1
    assert caplog.messages == [
        "it fails: other",
        "it fails: one",
        "it fails: one (59 more times within 60 s)",
        "it fails: one (59 more times within 60 s)",
    ]


def test_reasons_without_end_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    trouble = Trouble(log, "it fails", "it works", clock=Clock())
    for number in range(1000):
        trouble.note(number)
    assert len(caplog.messages) == 8


def test_fields_tell_a_case_and_make_no_reason_new(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    trouble = Trouble(log, "a record is not ours", clock=clock)
    for number in range(3):
        trouble.note(fields={"found": f"r{number}"})
        clock.now += 30
    assert caplog.messages == ["a record is not ours", "a record is not ours (1 more time within 60 s)"]
    assert [vars(record)["found"] for record in caplog.records] == ["r0", "r2"]


async def test_single_events_that_come_close_upon_each_other_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    """The rest of them is said though no further one comes."""
    trouble = Trouble(log, "a client was too slow", every_seconds=0.2)
    for _ in range(5):
        trouble.note()
    assert caplog.messages == ["a client was too slow"]
    await until(lambda: len(caplog.messages) == 2, "the others are said")
    assert caplog.messages[1].startswith("a client was too slow (4 more times within ")
    await asyncio.sleep(0.3)
    trouble.note()
    assert caplog.messages[2:] == ["a client was too slow"]


def test_what_libraries_repeat_is_said_once_and_counted() -> None:
    clock = Clock()
    repeats = RepeatFilter(clock)

    def said(name: str, text: str) -> str | None:
        record = logging.LogRecord(name, logging.WARNING, __file__, 1, text, (), None)
        return record.getMessage() if repeats.filter(record) else None

    assert [said("uvicorn.error", "Invalid HTTP request received.") for _ in range(5)] == [
        "Invalid HTTP request received.",
        *[None] * 4,
    ]
    assert said("uvicorn.error", "another") == "another"
    clock.now += 61
    assert said("uvicorn.error", "Invalid HTTP request received.") == (
        "Invalid HTTP request received. (4 more times within 61 s)"
    )
    for _ in range(3):
        assert said("gateway.app", "ours") == "ours"
        assert said("somebody.handlers", "theirs") == "theirs"
