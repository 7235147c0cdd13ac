"""What `POST /v1/chat/completions` may ask for, checked, and turned into a job's parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

from gateway.openai.api_errors import ApiError, unsupported
from tidegate_common.contract.ids import check_name, is_well_formed
from tidegate_common.contract.jobs import ChatMessage, ChatParams
from tidegate_common.errors import InvalidField
from tidegate_common.runtime.body import decode, invalid_field

MAX_MESSAGES = 2048

IGNORED = frozenset(
    {
        "metadata",
        "parallel_tool_calls",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
    }
)
"""Fields of OpenAI's that change nothing about the answer."""

WITHOUT_EFFECT: Mapping[str, tuple[Any, ...]] = {
    "audio": (),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "moderation": (),
    "prediction": (),
    "reasoning_effort": (),
    "response_format": ({"type": "text"},),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "verbosity": (),
    "web_search_options": (),
}
"""Fields of OpenAI's that are not supported, and their values that ask for nothing (null is one of each)."""

Penalty = Annotated[float, Meta(ge=-2, le=2)]
Sequence = Annotated[str, Meta(min_length=1, max_length=1000)]


class StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool = False


class CompletionBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields that count; their meaning is OpenAI's."""

    model: Annotated[str, Meta(min_length=1, max_length=200)]
    messages: Annotated[list[Any], Meta(min_length=1, max_length=MAX_MESSAGES)]
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Meta(ge=1)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    n: Annotated[int, Meta(ge=1, le=8)] | None = None
    stop: Sequence | Annotated[list[Sequence], Meta(max_length=4)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None


class _Message(msgspec.Struct, frozen=True):
    """A turn; of what else clients send back with an earlier answer, only `tool_calls` and the like matter."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[dict[str, Any]]
    tool_calls: list[Any] | None = None
    function_call: Any = None
    audio: Any = None


class Completion(NamedTuple):
    """A checked request. `user` is whom it is said to be for, empty if nobody is named."""

    params: ChatParams
    model: str
    stream: bool
    include_usage: bool
    user: str


_FIELDS = msgspec.json.Decoder(dict[str, Any])


def read(body: bytes) -> Completion:
    """What `body` asks for. Raises InvalidBody, InvalidField, and ApiError for what is not supported."""
    fields = {name: value for name, value in decode(_FIELDS, body).items() if name not in IGNORED}
    for name, harmless in WITHOUT_EFFECT.items():
        value = fields.pop(name, None)
        if value is not None and value not in harmless:
            raise unsupported(name, "this is not supported here")
    asked = _converted(fields)
    if asked.stream_options is not None and not asked.stream:
        raise InvalidField("stream_options", "only with stream: true")
    stop = [asked.stop] if isinstance(asked.stop, str) else asked.stop or []
    params = ChatParams(
        messages=[_message(each, f"messages[{number}]") for number, each in enumerate(asked.messages)],
        model=asked.model,
        max_tokens=asked.max_completion_tokens or asked.max_tokens,
        temperature=asked.temperature,
        n=asked.n or 1,
        top_p=asked.top_p,
        stop=[_well_formed(each, "stop") for each in stop],
        seed=asked.seed,
        presence_penalty=asked.presence_penalty,
        frequency_penalty=asked.frequency_penalty,
    )
    options = asked.stream_options or StreamOptions()
    user = check_name("user", asked.user) if asked.user else ""
    return Completion(params, _well_formed(asked.model, "model"), bool(asked.stream), options.include_usage, user)


def _converted(fields: dict[str, Any]) -> CompletionBody:
    unknown = fields.keys() - set(CompletionBody.__struct_fields__)
    if unknown:
        name = min(unknown)
        raise ApiError(400, f"{name}: this field is not known here", param=name, code="unknown_parameter")
    try:
        return msgspec.convert(fields, CompletionBody)
    except msgspec.ValidationError as error:
        raise invalid_field(error) from None


def _message(raw: Any, place: str) -> ChatMessage:
    if isinstance(raw, dict):
        raw = {name: value for name, value in raw.items() if value is not None}
        if raw.get("role") in ("tool", "function"):
            raise unsupported(f"{place}.role", "tools are not supported here")
        for name in ("tool_calls", "function_call", "audio"):
            if raw.get(name):
                raise unsupported(f"{place}.{name}", "this is not supported here")
    try:
        message = msgspec.convert(raw, _Message)
    except msgspec.ValidationError as error:
        found = invalid_field(error)
        raise InvalidField(place if found.field == "body" else f"{place}.{found.field}", found.allowed) from None
    content = message.content if isinstance(message.content, str) else _text(message.content, f"{place}.content")
    role = "system" if message.role == "developer" else message.role
    return ChatMessage(role, _well_formed(content, f"{place}.content"))


def _text(parts: list[dict[str, Any]], place: str) -> str:
    """The text of a list of parts, one after another."""
    texts = []
    for number, part in enumerate(parts):
        if part.get("type") != "text":
            raise unsupported(f"{place}[{number}].type", "only parts of the type text are supported here")
        if not isinstance(part.get("text"), str):
            raise InvalidField(f"{place}[{number}].text", "a text")
        texts.append(part["text"])
    return "".join(texts)


def _well_formed(text: str, place: str) -> str:
    if not is_well_formed(text):
        raise InvalidField(place, "text without lone surrogates")
    return text
