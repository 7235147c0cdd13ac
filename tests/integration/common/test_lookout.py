"""Looking for what was not heard goes on, whatever a look does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.bus import SUBJECTS
from tests.support.nats import nats_server
from tests.support.waiting import until
from tidegate_common.bus.connection import connect
from tidegate_common.bus.requests import lookout
from tidegate_common.bus.requests.lookout import Lookout
from tidegate_common.errors import BrokerUnavailable
from tidegate_common.runtime.tasks import end, spawn


@pytest.mark.parametrize("error", [BrokerUnavailable("no answer"), ValueError("a fault of ours")])
async def test_a_look_that_fails_is_tried_again_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    monkeypatch.setattr(lookout, "BROKEN_SECONDS", 0.01)
    looks: list[bool] = []

    async def look(behind: bool) -> None:
        looks.append(behind)
        if len(looks) == 1:
            raise error

    async with nats_server(tmp_path) as server, connect(server.url, SUBJECTS, "test") as bus:
        looking = Lookout(bus, "the bucket", look)
        running = spawn(looking.run(), "looking")
        looking.lacks()
        await until(lambda: looks == [True, True], "it has looked again")
        assert not looking.behind
        await looking.reconnected()
        await until(lambda: looks == [True, True, True], "it looks when told to")
        await end([running])
    said = [record.getMessage() for record in caplog.records if record.name == lookout.log.name]
    assert said[0].startswith(("the bucket can't be read: ", "reading the bucket fails by a fault of ours: "))
