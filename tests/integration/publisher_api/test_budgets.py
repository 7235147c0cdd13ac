"""Budgets over HTTP, with several publisher-apis at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from tests.support.identity import AUTH, bearer, token
from tests.support.nats import nats_server
from tests.support.publisher import running_publisher
from tidegate_common.bus.requests.bucket import Bucket
from tidegate_common.contract.budget import Budget

CHAT: dict[str, Any] = {"user_id": "ann", "messages": [{"role": "user", "content": "hi"}]}
EACH = len(msgspec.json.encode(CHAT["messages"])) // 4 + 1 + 100


async def test_many_requests_at_once_get_what_there_is(tmp_path: Path) -> None:
    rights = {"max_tokens": 100, "tokens_per_day": EACH * 50 + 1}
    headers = bearer(token("ann", jobs=rights))
    async with (
        nats_server(tmp_path) as nats,
        running_publisher(nats.url, **AUTH) as (one, bus),
        running_publisher(nats.url, **AUTH) as (other, _),
    ):
        asked = [api.post("/api/ai/chat", json=CHAT, headers=headers) for _ in range(150) for api in (one, other)]
        answers = await asyncio.gather(*asked)
        assert Counter(answer.status_code for answer in answers) == {202: 50, 429: 250}
        assert {answer.json()["limit"] for answer in answers if answer.status_code == 429} == {"tokens_per_day"}
        assert (await bus.api.call("STREAM.INFO.TG_JOBS"))["state"]["messages"] == 50
        [key] = (await bus.api.call("STREAM.INFO.KV_TG_BUDGETS", {"subjects_filter": ">"}))["state"]["subjects"]
        entry = await Bucket(bus, "TG_BUDGETS").get(key.removeprefix("$KV.TG_BUDGETS."))
        assert entry is not None
        assert len(msgspec.json.decode(entry.value or b"", type=Budget).open) == 50


async def test_a_refusal_says_what_there_is_and_when_to_come_back(tmp_path: Path) -> None:
    headers = bearer(token("ann", jobs={"max_tokens": 100, "tokens_per_day": EACH - 1}))
    async with nats_server(tmp_path) as nats, running_publisher(nats.url, **AUTH) as (api, bus):
        refused = await api.post("/api/ai/chat", json=CHAT, headers=headers)
        assert (refused.status_code, refused.json()["type"]) == (429, "urn:tidegate:problem:limited")
        assert refused.json()["limit"] == "tokens_per_day"
        assert f"of today's {EACH - 1} there are {EACH - 1} left" in refused.json()["detail"]
        assert 0 <= int(refused.headers["retry-after"]) <= 86_400
        more = await api.post("/api/ai/chat", json={**CHAT, "max_tokens": 101}, headers=headers)
        assert (more.status_code, more.json()["needed"]) == (403, "jobs max_tokens 101")
        assert (await bus.api.call("STREAM.INFO.KV_TG_JOBS_STATE"))["state"]["messages"] == 0
