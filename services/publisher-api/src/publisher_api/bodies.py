"""What callers may send: one Struct for each body, and the rules that a type does not say."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple, Protocol

import msgspec
from msgspec import Meta

from tidegate_common.contract.events import Event
from tidegate_common.contract.ids import check_event_type, is_well_formed
from tidegate_common.contract.jobs import MAX_CANDIDATES, ChatMessage, ChatParams, OnDisconnect
from tidegate_common.contract.soundness import is_kind
from tidegate_common.contract.subjects import BROADCAST, client_tail, topic_tail, user_tail
from tidegate_common.contract.wishes import Wish
from tidegate_common.errors import InvalidField

MAX_MESSAGES = 200

Client = Annotated[str, Meta(description="One client: all its connections.", examples=["ann-laptop"])]
User = Annotated[str, Meta(description="One user: all connections that named it.", examples=["ann@example.org"])]
Topic = Annotated[str, Meta(description="A topic, tokens with dots between them.", examples=["prices.eur"])]
Data = Annotated[msgspec.Raw, Meta(description="Any JSON. A string is sent as it is, anything else as compact JSON.")]


class Addressed(Protocol):
    """Exactly one of the three says who gets it."""

    @property
    def client_id(self) -> str | None: ...
    @property
    def user_id(self) -> str | None: ...
    @property
    def topic(self) -> str | None: ...


class Published(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The event itself."""

    event_type: Annotated[str, Meta(description="Stands in the stream's `event:` line.", examples=["note"])]
    data: Data
    durable: Annotated[bool, Meta(description="Stored and replayed; otherwise only for who is connected now.")] = True
    ttl: Annotated[int, Meta(ge=1, description="Seconds for which it is replayed.")] | None = None
    receipt: Annotated[bool, Meta(description="Answer to how many connections it was written.")] = False


class BroadcastBody(Published, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /api/sse/broadcast`."""


class SendBody(Published, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /api/sse/send`: to exactly one of `client_id`, `user_id` and `topic`."""

    client_id: Client | None = None
    user_id: User | None = None
    topic: Topic | None = None


class BatchLine(SendBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line of `POST /api/sse/batch`: a send, or a broadcast."""

    broadcast: bool = False


class JobFields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every job may say: to at most one target, and when it is to end. Without a target, its own stream has it."""

    client_id: Client | None = None
    user_id: User | None = None
    topic: Topic | None = None
    deadline_seconds: Annotated[float, Meta(gt=0, description="From now; past it the job fails.")] | None = None
    on_disconnect: Annotated[OnDisconnect, Meta(description="When nobody listens to it any more.")] = (
        OnDisconnect.CONTINUE
    )
    grace_seconds: Annotated[float, Meta(ge=0, le=3600, description="How long nobody may listen before that.")] = 10.0


class ChatBody(JobFields, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /api/ai/chat`: exactly one of `prompt` and `messages`."""

    prompt: Annotated[str, Meta(min_length=1, examples=["Tell me about the tides."])] | None = None
    messages: Annotated[list[ChatMessage], Meta(min_length=1, max_length=MAX_MESSAGES)] | None = None
    model: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    max_tokens: Annotated[int, Meta(ge=1, le=32_768)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    n: Annotated[int, Meta(ge=1, le=MAX_CANDIDATES, description="Candidates: so many answers.")] = 1
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    stop: Annotated[list[str], Meta(max_length=4, description="Texts before which an answer ends.")] = []
    seed: int | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None


class JobBody(JobFields, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /api/ai/jobs`: a job of any kind that the workers have a handler for."""

    kind: Annotated[str, Meta(description="As workers name it.", examples=["transform"])]
    params: Annotated[dict[str, Any], Meta(description="What the kind's handler takes.")] = {}


class TicketBody(Wish, frozen=True, forbid_unknown_fields=True):
    """Body of `POST /api/auth/tickets`: the names of a stream, as in `POST /api/sse`, or a job for its own stream."""

    job_id: Annotated[str, Meta(description="For this job's own stream; then no names.")] | None = None


class RetryBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `POST /api/ai/dead/{job_id}/retry`: an empty object, or nothing."""


SEND_BODY = msgspec.json.Decoder(SendBody)
BROADCAST_BODY = msgspec.json.Decoder(BroadcastBody)
LINE = msgspec.json.Decoder(BatchLine)
CHAT_BODY = msgspec.json.Decoder(ChatBody)
JOB_BODY = msgspec.json.Decoder(JobBody)
RETRY_BODY = msgspec.json.Decoder(RetryBody)
TICKET_BODY = msgspec.json.Decoder(TicketBody)


class Target(NamedTuple):
    """Whom an event or a job addresses: as a tail, and as grants are written."""

    tail: str
    grant: str


EVERYBODY = Target(BROADCAST, BROADCAST)


def target_of(addressed: Addressed) -> Target:
    """Whom the caller means. Raises InvalidField if it is not exactly one, or its name is not allowed."""
    given = [name for name in ("client_id", "user_id", "topic") if getattr(addressed, name) is not None]
    if len(given) != 1:
        what = "none of them was" if not given else f"{' and '.join(given)} were"
        raise InvalidField("client_id", f"exactly one of client_id, user_id and topic; {what} given")
    if addressed.client_id is not None:
        return Target(client_tail(addressed.client_id), f"client:{addressed.client_id}")
    if addressed.user_id is not None:
        return Target(user_tail(addressed.user_id), f"user:{addressed.user_id}")
    assert addressed.topic is not None
    return Target(topic_tail(addressed.topic), f"topic:{addressed.topic}")


def job_target_of(fields: JobFields) -> Target | None:
    """Whom a job's events address; None for its own stream alone. Raises InvalidField."""
    if fields.client_id is None and fields.user_id is None and fields.topic is None:
        return None
    return target_of(fields)


def kind_of(body: JobBody) -> str:
    """Raises InvalidField."""
    if not is_kind(body.kind):
        raise InvalidField("kind", "1 to 64 of the characters A-Z a-z 0-9 _ . -")
    return body.kind


def line_target_of(line: BatchLine) -> Target:
    """Whom a batch line means. Raises InvalidField."""
    if not line.broadcast:
        return target_of(line)
    if line.client_id is not None or line.user_id is not None or line.topic is not None:
        raise InvalidField("broadcast", "true only without client_id, user_id and topic")
    return EVERYBODY


def event_of(published: Published, max_ttl_seconds: int) -> Event:
    """The event that goes on the bus. Raises InvalidField."""
    if published.ttl is not None:
        if not published.durable:
            raise InvalidField("ttl", "only with durable true: a volatile event is not kept")
        if published.ttl > max_ttl_seconds:
            raise InvalidField("ttl", f"at most {max_ttl_seconds} seconds, the age up to which events are kept")
    return Event(check_event_type("event_type", published.event_type), text_of(published.data))


def text_of(data: msgspec.Raw) -> str:
    """A JSON string's own text, or compact JSON that keeps numbers and the order of keys as they were written.

    Raises InvalidField for text that UTF-8 can't write.
    """
    raw = bytes(data)
    allowed = "JSON in UTF-8 without lone surrogates"
    try:
        text = (
            msgspec.json.decode(raw, type=str)
            if raw.startswith(b'"')
            else bytes(msgspec.json.format(raw, indent=-1)).decode()
        )
    except RecursionError:
        raise InvalidField("data", "JSON that is not nested so deeply") from None
    except (msgspec.MsgspecError, UnicodeError):
        raise InvalidField("data", allowed) from None
    if not is_well_formed(text):
        raise InvalidField("data", allowed)
    return text


def chat_of(body: ChatBody) -> ChatParams:
    """The job's parameters. Raises InvalidField."""
    if (body.prompt is None) == (body.messages is None):
        raise InvalidField("prompt", "exactly one of prompt and messages")
    messages = body.messages or [ChatMessage("user", body.prompt or "")]
    for number, message in enumerate(messages):
        if not is_well_formed(message.content):
            raise InvalidField(f"messages[{number}].content", "text without lone surrogates")
    for number, text in enumerate(body.stop):
        if not text or not is_well_formed(text):
            raise InvalidField(f"stop[{number}]", "text that is not empty and has no lone surrogates")
    return ChatParams(
        messages=messages,
        model=body.model,
        max_tokens=body.max_tokens,
        temperature=body.temperature,
        n=body.n,
        top_p=body.top_p,
        stop=body.stop,
        seed=body.seed,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
    )
