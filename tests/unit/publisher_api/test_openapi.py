import re
from typing import Any

import msgspec
from openapi_spec_validator import validate

from publisher_api.http.docs import PAGE, START
from publisher_api.http.openapi import document
from publisher_api.requests import CHAT, LINE, SEND


def test_the_description_is_valid_openapi() -> None:
    validate(document())


def test_its_examples_are_accepted_by_the_types_that_check_requests() -> None:
    paths: dict[str, Any] = document()["paths"]

    def example(path: str) -> Any:
        ((_, media),) = paths[path]["post"]["requestBody"]["content"].items()
        return media["example"]

    SEND.decode(msgspec.json.encode(example("/api/sse/send")))
    CHAT.decode(msgspec.json.encode(example("/api/ai/chat")))
    LINE.decode(example("/api/sse/batch"))


def test_a_records_description_has_no_field_that_is_not_shown() -> None:
    schemas: dict[str, Any] = document()["components"]["schemas"]
    for name in ("JobState", "JobAnswer"):
        assert "attempt" in schemas[name]["properties"]
        assert not {"owner", "holder"} & set(schemas[name]["properties"])


def test_the_page_loads_nothing_from_elsewhere() -> None:
    assert not re.search(r"(https?:)?//", PAGE + START)
