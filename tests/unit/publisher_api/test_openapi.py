import re
from typing import Any

import msgspec
from openapi_spec_validator import validate

from publisher_api.bodies import CHAT_BODY, LINE, SEND_BODY
from publisher_api.http.docs import PAGE, START
from publisher_api.http.openapi import document
from publisher_api.http.revocation_endpoints import PATH as REVOCATIONS
from publisher_api.http.ticket_endpoints import PATH as TICKETS
from tests.support.calls import OPEN, PUBLISHER
from tidegate_common.runtime import problems, refusals


def test_the_description_is_valid_openapi() -> None:
    for asks in (True, False):
        validate(document(asks))


def test_its_examples_are_accepted_by_the_types_that_check_requests() -> None:
    paths: dict[str, Any] = document()["paths"]

    def example(path: str) -> Any:
        ((_, media),) = paths[path]["post"]["requestBody"]["content"].items()
        return media["example"]

    SEND_BODY.decode(msgspec.json.encode(example("/api/sse/send")))
    CHAT_BODY.decode(msgspec.json.encode(example("/api/ai/chat")))
    LINE.decode(example("/api/sse/batch"))


def test_every_call_names_the_problems_that_it_may_answer() -> None:
    """Only a few statuses were named: whoever made a client from the description met 421, 431 or 500 unprepared."""
    whole: dict[str, Any] = document()
    before = [refusals.INVALID, refusals.VERSION, refusals.PIPELINED, refusals.head_large(1), refusals.head_late(1)]
    raised = {status for _, status, _, _ in problems.TABLE} | {refusal.status for refusal in before}
    told: set[int] = set()
    for path, item in whole["paths"].items():
        for method in {"get", "post", "delete"} & set(item):
            statuses = set(map(int, item[method]["responses"]))
            assert {400, 401, 403, 408, 421, 422, 429, 431, 500, 503, 505} <= statuses, (method, path)
            assert ("requestBody" in item[method]) == ({413, 415} <= statuses), (method, path)
            named = "{job_id}" in path or (method, path) in (("delete", REVOCATIONS), ("post", TICKETS))
            assert named == (404 in statuses), (method, path)
            told |= statuses
    assert raised <= told
    assert "trace_id" in whole["components"]["schemas"]["ProblemDetails"]["required"]
    for response in whole["components"]["responses"].values():
        assert list(response["content"]) == ["application/problem+json"]


def test_every_call_says_who_may_make_it() -> None:
    whole: dict[str, Any] = document()
    assert whole["security"] == [{"token": []}, {"key": []}, {"cookie": []}]
    assert set(whole["components"]["securitySchemes"]) == {"token", "key", "cookie"}
    assert document(asks=False)["security"] == []
    assert {"needed", "reason", "limit"} <= set(whole["components"]["schemas"]["ProblemDetails"]["properties"])
    for path, item in whole["paths"].items():
        for method in {"get", "post", "delete"} & set(item):
            assert "this needs:" in item[method]["description"], (method, path)


def test_it_describes_every_call_and_no_other() -> None:
    """The calls are held against the routing table by tests/integration/common/test_every_route.py."""
    routed = {call.route.replace(":path}", "}") for call in PUBLISHER if call.needs != OPEN} - {"GET /metrics"}
    described = {
        f"{method.upper()} {path}"
        for path, item in document()["paths"].items()
        for method in {"get", "post", "delete"} & set(item)
    }
    assert described == routed


def test_a_records_description_has_no_field_that_is_not_shown() -> None:
    schemas: dict[str, Any] = document()["components"]["schemas"]
    for name in ("JobState", "JobAnswer"):
        assert "attempt" in schemas[name]["properties"]
        assert not {"owner", "holder"} & set(schemas[name]["properties"])


def test_the_page_loads_nothing_from_elsewhere() -> None:
    assert not re.search(r"(https?:)?//", PAGE + START)
