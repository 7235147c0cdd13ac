"""The one retry."""

from __future__ import annotations

import pytest

from tidegate_common.bus.requests.retry import insist
from tidegate_common.errors import BrokerUnavailable, NotFound


class Fickle:
    """Fails so often with `error`, then gives 5."""

    def __init__(self, failures: int, error: Exception) -> None:
        self.calls = 0
        self._failures = failures
        self._error = error

    async def __call__(self) -> int:
        self.calls += 1
        if self.calls <= self._failures:
            raise self._error
        return 5


async def test_what_nats_did_not_take_is_tried_again() -> None:
    action = Fickle(3, BrokerUnavailable("away"))
    assert await insist(action, 60, pause=0) == 5
    assert action.calls == 4


async def test_patience_ends_and_one_try_is_made_in_any_case() -> None:
    action = Fickle(3, BrokerUnavailable("away"))
    with pytest.raises(BrokerUnavailable):
        await insist(action, 0, pause=0)
    assert action.calls == 1


async def test_what_would_fail_again_is_not_tried_again() -> None:
    action = Fickle(3, NotFound("gone"))
    with pytest.raises(NotFound):
        await insist(action, 60, pause=0)
    assert action.calls == 1
