"""The Python client on a job's own stream, with the whole stack behind it."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import httpx

from ai_worker.models.scripted import ANSWERS
from tests.support.stack import stack
from tidegate import Closing, Stopped, connect


async def test_a_watcher_gets_the_whole_answer_and_is_not_sent_back(tmp_path: Path) -> None:
    async with stack(tmp_path, {"TIDEGATE_SCRIPTED_THINK_SECONDS": "0"}) as running, httpx.AsyncClient() as http:
        asked = (await http.post(f"{running.publisher}/api/ai/chat", json={"prompt": "Hello"})).json()
        text, reasons = "", []
        async with connect(running.gateways[0] + asked["stream"]) as watching:
            with contextlib.suppress(Stopped):
                async for event in watching:
                    if event.type == "ai_response":
                        text += json.loads(event.data)["content"]
                    elif isinstance(event, Closing):
                        reasons.append(event.json()["reason"])
        assert (text, reasons) == (ANSWERS["en"], ["done"])
        async with connect(running.gateways[0] + asked["stream"], last_event_id=watching.last_event_id) as again:
            assert [event async for event in again] == [], "204: nothing more is to be had"
