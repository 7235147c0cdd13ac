from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gateway.openai.api_errors import api_error
from gateway.openai.request import Completion, read
from tidegate_common.errors import TidegateError

MESSAGES = [{"role": "user", "content": "hi"}]


def asked(**fields: Any) -> Completion:
    return read(msgspec.json.encode({"model": "m", "messages": MESSAGES, **fields}))


def test_fields_that_ask_for_nothing_are_passed_over() -> None:
    completion = asked(
        store=True,
        metadata={"a": "b"},
        service_tier="auto",
        parallel_tool_calls=True,
        tools=[],
        tool_choice="none",
        logprobs=False,
        top_logprobs=0,
        logit_bias={},
        response_format={"type": "text"},
        modalities=["text"],
        n=None,
        stop=None,
        stream_options=None,
        functions=None,
    )
    assert (completion.params.n, completion.params.stop, completion.stream) == (1, [], False)


def test_an_answer_of_before_may_be_sent_back_as_clients_have_it() -> None:
    earlier: dict[str, object] = {
        "role": "assistant",
        "content": "hello",
        "refusal": None,
        "tool_calls": None,
        "annotations": [],
        "reasoning_content": "Hm.",
    }
    completion = asked(messages=[*MESSAGES, earlier, {"role": "user", "content": "more", "name": "ann"}])
    assert [each.content for each in completion.params.messages] == ["hi", "hello", "more"]


def test_the_newer_name_of_the_limit_counts() -> None:
    assert asked(max_tokens=5, max_completion_tokens=6).params.max_tokens == 6
    assert asked(max_tokens=5).params.max_tokens == 5


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"tools": [{"type": "function"}]}, "tools", "unsupported_parameter"),
        ({"tool_choice": "required"}, "tool_choice", "unsupported_parameter"),
        ({"functions": [{"name": "f"}]}, "functions", "unsupported_parameter"),
        ({"logprobs": True}, "logprobs", "unsupported_parameter"),
        ({"top_logprobs": 2}, "top_logprobs", "unsupported_parameter"),
        ({"logit_bias": {"1": 5}}, "logit_bias", "unsupported_parameter"),
        ({"response_format": {"type": "json_object"}}, "response_format", "unsupported_parameter"),
        ({"modalities": ["text", "audio"]}, "modalities", "unsupported_parameter"),
        ({"audio": {"voice": "x"}}, "audio", "unsupported_parameter"),
        ({"reasoning_effort": "high"}, "reasoning_effort", "unsupported_parameter"),
        ({"top_k": 5}, "top_k", "unknown_parameter"),
        ({"n": 9}, "n", "invalid_value"),
        ({"n": 0}, "n", "invalid_value"),
        ({"temperature": 2.1}, "temperature", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"seed": 1 << 64}, "seed", "invalid_value"),
        ({"stop": ["a"] * 5}, "stop", "invalid_value"),
        ({"stop": ""}, "stop", "invalid_value"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
        ({"model": None}, "model", "invalid_value"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": ["hi"]}, "messages[0]", "invalid_value"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "invalid_value"),
        ({"messages": [{"role": "owl", "content": "hu"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "tool", "content": "1"}]}, "messages[0].role", "unsupported_parameter"),
        (
            {"messages": [*MESSAGES, {"role": "assistant", "content": "", "tool_calls": [{}]}]},
            "messages[1].tool_calls",
            "unsupported_parameter",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content[0].type",
            "unsupported_parameter",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]},
            "messages[0].content[0].text",
            "invalid_value",
        ),
        ({"user": "a" * 201}, "user", "invalid_value"),
    ],
)
def test_what_can_not_be_done_is_refused_by_name(fields: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(TidegateError) as refused:
        asked(**fields)
    told = api_error(refused.value)
    assert (told.status, told.kind, told.param, told.code) == (400, "invalid_request_error", param, code)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"model":',
        b'{"messages":[{"role":"user","content":"hi"}]}',
        b'{"model":"m","messages":[{"role":"user","content":"\\ud800"}]}',
        b"\xff",
        b'{"model":"m","messages":' + b"[" * 100_000,
    ],
)
def test_a_body_that_can_not_be_read_is_refused(body: bytes) -> None:
    with pytest.raises(TidegateError) as refused:
        read(body)
    assert api_error(refused.value).status == 400
