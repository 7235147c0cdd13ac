from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.support.audit import Lines
from tests.support.waiting import until
from tidegate_common.auth.audit_log import MOST_WAITING, AuditLog
from tidegate_common.contract.principal import Principal
from tidegate_common.errors import BrokerUnavailable, Forbidden, InvalidField, Limited, NotFound, Unauthenticated

SHOP = Principal("key:shop", key="shop")
TRACE = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def lines() -> Iterator[Lines]:
    with Lines() as found:
        yield found


async def test_a_line_says_who_did_what_to_whom(lines: Lines) -> None:
    log = AuditLog("publisher-api", on=True)
    log.note(SHOP, "kick", "user:ann", "192.0.2.1", TRACE)
    (line,) = lines.all
    timestamp = line.pop("timestamp")
    assert timestamp.endswith("+00:00")
    assert line == {
        "level": "INFO",
        "logger": "tidegate.audit",
        "service": "publisher-api",
        "message": "audit",
        "who": "key:shop",
        "what": "kick",
        "target": "user:ann",
        "result": "ok",
        "address": "192.0.2.1",
        "trace_id": TRACE,
    }


async def test_what_happens_often_is_written_soon_many_at_once(lines: Lines) -> None:
    log = AuditLog("publisher-api", on=True)
    for number in range(3):
        log.note(SHOP, "publish", f"topic:{number}", "", TRACE, soon=True)
    assert lines.all == []
    await until(lambda: len(lines.all) == 3, "they are written")
    assert lines.records == 1
    assert [line["target"] for line in lines.all] == ["topic:0", "topic:1", "topic:2"]
    for _ in range(MOST_WAITING):
        log.note(SHOP, "publish", "topic:a", "", TRACE, soon=True)
    assert len(lines.all) == 3 + MOST_WAITING
    log.note(SHOP, "publish", "topic:last", "", TRACE, soon=True)
    log.aclose()
    assert lines.all[-1]["target"] == "topic:last"


async def test_an_act_is_noted_however_it_ends(lines: Lines) -> None:
    log = AuditLog("publisher-api", on=True)
    for error in (NotFound("x"), BrokerUnavailable("x"), ValueError("x")):
        with pytest.raises(type(error)), log.act(SHOP, "retry dead job", "1", "", TRACE):
            raise error
    with log.act(SHOP, "retry dead job", "1", "", TRACE):
        pass
    assert [line["result"] for line in lines.all] == ["not found", "broker unavailable", "failed", "ok"]


async def test_refusals_have_one_line_for_each_reason_and_second(lines: Lines) -> None:
    log = AuditLog("gateway", on=True)
    for _ in range(1000):
        log.refused(None, "GET /api/sse", "192.0.2.1", TRACE, Unauthenticated("expired"))
        log.refused(SHOP, "POST /api/sse/send", "192.0.2.2", TRACE, Forbidden("publish topic:a"))
        log.refused(SHOP, "POST /api/sse/send", "192.0.2.2", TRACE, Limited("publishes", "x"))
        log.refused(SHOP, "POST /api/sse/send", "192.0.2.2", TRACE, InvalidField("a", "b"))
    assert [(line["who"], line["result"], line.get("target")) for line in lines.all] == [
        ("", "expired", None),
        ("key:shop", "forbidden", "publish topic:a"),
        ("key:shop", "limited: publishes", None),
    ]
    await until(lambda: len(lines.all) == 6, "those that came since are told together")
    assert [line["times"] for line in lines.all[3:]] == [999] * 3
    log.aclose()
    assert len(lines.all) == 6


async def test_after_a_quiet_time_the_first_refusal_is_told_at_once(lines: Lines) -> None:
    log = AuditLog("gateway", on=True)
    log.refused(None, "GET /api/sse", "", TRACE, Unauthenticated("expired"))
    await until(lambda: not log._refused, "the second is over")
    log.refused(None, "GET /api/sse", "", TRACE, Unauthenticated("expired"))
    assert len(lines.all) == 2
    log.refused(None, "GET /api/sse", "", TRACE, Unauthenticated("expired"))
    log.aclose()
    assert len(lines.all) == 3
    await asyncio.sleep(0)


async def test_no_secret_and_no_line_end_of_a_callers_gets_into_it(lines: Lines) -> None:
    log = AuditLog("gateway", on=True)
    secret = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJl"
    log.refused(None, f"GET /api/{secret}\n{{", "", TRACE, Unauthenticated("expired"))
    log.note(SHOP, "publish", f"topic:tgk_shop_{'A' * 43}", "", TRACE)
    log.note(SHOP, "publish", "topic:" + "x" * 10_000, "", TRACE)
    assert len(lines.all) == 3
    assert secret[:20] not in lines.text
    assert "A" * 43 not in lines.text
    assert max(len(line) for line in lines.text.splitlines()) < 1000


async def test_it_is_silent_if_it_is_off(lines: Lines) -> None:
    log = AuditLog("gateway", on=False)
    log.note(SHOP, "kick", "user:ann", "", TRACE)
    log.refused(None, "GET /", "", TRACE, Unauthenticated("missing"))
    log.aclose()
    assert lines.all == []
