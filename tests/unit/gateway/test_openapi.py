"""The gateway's description of itself."""

from typing import Any

import msgspec
from openapi_spec_validator import validate

from gateway.openai.request import read
from gateway.openapi import document
from gateway.sse.request import JOB_PARAMETERS, PARAMETERS, StreamBody
from tidegate_common.runtime import problems, refusals

METHODS = {"get", "post", "delete"}


def test_it_is_valid_openapi() -> None:
    for asks in (True, False):
        validate(document(asks))


def test_its_examples_are_accepted_by_the_types_that_check_requests() -> None:
    paths: dict[str, Any] = document()["paths"]

    def example(path: str) -> bytes:
        return msgspec.json.encode(paths[path]["post"]["requestBody"]["content"]["application/json"]["example"])

    msgspec.json.decode(example("/api/sse"), type=StreamBody)
    read(example("/v1/chat/completions"))


def test_every_parameter_that_is_read_is_described() -> None:
    paths: dict[str, Any] = document()["paths"]
    for path, read_there in (("/api/sse", PARAMETERS), ("/api/sse/jobs/{job_id}", JOB_PARAMETERS)):
        told = {each["name"] for each in paths[path]["get"]["parameters"] if each["in"] == "query"}
        assert told == set(read_there)


def test_every_call_names_the_problems_that_it_may_answer() -> None:
    before = [refusals.INVALID, refusals.VERSION, refusals.PIPELINED, refusals.head_large(1), refusals.head_late(1)]
    raised = {status for _, status, _, _ in problems.TABLE} | {refusal.status for refusal in before}
    told: set[int] = set()
    for path, item in document()["paths"].items():
        for method in METHODS & set(item):
            statuses = set(map(int, item[method]["responses"]))
            told |= statuses
            if path.startswith(("/api", "/v1")):
                assert {401, 403, 408, 421, 429, 503} <= statuses, (method, path)
    assert raised <= told


def test_every_call_says_who_may_make_it() -> None:
    whole: dict[str, Any] = document()
    assert set(whole["components"]["securitySchemes"]) == {"token", "key", "cookie", "ticket"}
    assert {"ticket": []} in whole["paths"]["/api/sse"]["get"]["security"]
    assert {"ticket": []} not in whole["security"]
    assert document(asks=False)["security"] == []
    for path, item in whole["paths"].items():
        for method in METHODS & set(item):
            assert ("mode `token`" in item[method].get("description", "")) == (path not in ("/healthz", "/readyz"))
