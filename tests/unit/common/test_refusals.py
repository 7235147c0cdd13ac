import logging

import pytest

from tidegate_common.bus.events.refusals import AWAY, Refusals


def test_a_spell_ends_when_something_was_stored_and_not_when_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """Where little is published, an absence of 12 s was told as one of 33 s, when the next publish came."""
    caplog.set_level(logging.INFO)
    now = 0.0
    spells = Refusals(lambda: now)
    spells.refused("TG_EVENTS", AWAY)
    now = 9.0
    spells.refused("TG_EVENTS", AWAY)
    now = 12.0
    spells.stored("TG_EVENTS")
    assert "publishes are stored again" not in caplog.text, "one more may be refused"
    now = 33.0
    spells.stored("TG_EVENTS")
    assert caplog.messages[-1] == "publishes are stored again after 12 s, 2 refused meanwhile"
