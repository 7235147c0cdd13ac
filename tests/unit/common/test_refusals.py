import asyncio
import logging

import pytest

from tests.support.waiting import until
from tidegate_common.bus.events import refusals
from tidegate_common.bus.events.refusals import AWAY, Refusals


async def test_a_spell_ends_when_something_was_stored_and_not_when_that_is_said(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where little is published, an absence of 12 s was told as one of 33 s, when the next publish came."""
    caplog.set_level(logging.INFO)
    spells, loop = Refusals(), asyncio.get_running_loop()
    spells.refused("TG_EVENTS", AWAY)
    monkeypatch.setattr(refusals, "QUIET_SECONDS", 1.0)
    spells.stored("TG_EVENTS")
    stored = loop.time()
    await until(lambda: loop.time() > stored + 1.5, "the next publish comes late")
    spells.stored("TG_EVENTS")
    assert caplog.messages[-1] == "publishes are stored again after 0 s, 1 refused meanwhile"
