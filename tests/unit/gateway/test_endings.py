"""What a client is told when the gateway ends its stream."""

import json

import pytest

from gateway import frame
from gateway.hub.endings import Ending
from tests.support.eventstream import EventStreamParser

HOUR = 3_600_000

FOR_HOURS = (Ending.KICKED, Ending.REPLACED, Ending.REVOKED)


@pytest.mark.parametrize("ending", Ending)
def test_who_is_to_stay_away_is_held_off_where_no_answer_would_do_it(ending: Ending) -> None:
    """EventSource knows no `"reconnect": false`: who was kicked once came back within three seconds, for ever.

    A job's own stream answers 204 to who comes back, which ends an EventSource, and the sooner the better.
    """
    for _ in range(50):
        waiting, closing = EventStreamParser().feed(frame.unchunk(ending.farewell()))
        told = json.loads(closing.data)
        assert told["reason"] == ending.reason
        assert told["retry"] == waiting.retry
        assert told["reconnect"] is (ending not in (*FOR_HOURS, Ending.DONE))
        assert waiting.retry is not None
        if ending in FOR_HOURS:
            assert 6 * HOUR <= waiting.retry <= 12 * HOUR
        else:
            assert 1000 <= waiting.retry <= 3000
