"""What a client asks for when it opens a stream, checked before anything is done about it."""

from __future__ import annotations

from urllib.parse import parse_qsl

import msgspec
from starlette.requests import Request

from tidegate_common.contract.ids import check_name, new_client_id
from tidegate_common.contract.subjects import (
    BROADCAST,
    client_tail,
    minimal,
    topic_filter_tail,
    user_tail,
)
from tidegate_common.errors import InvalidField
from tidegate_common.runtime.body import decode, read_body

MAX_ID_LENGTH = 256
"""What is longer is no id of ours, nor becomes one when it is cut: those are shorter by far."""


class StreamBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `POST /api/sse`: the fields of the query string, `topic` one or a list."""

    client_id: str | None = None
    user_id: str | None = None
    topic: str | list[str] = []
    last_event_id: str | None = None


class StreamRequest(msgspec.Struct, frozen=True):
    """A checked request: `tails` is what the connection listens to, without repeats."""

    client_id: str
    tails: list[str]
    last_event_id: str | None
    since: str | None = None
    """Id after which a client gets what there is when it comes without one of its own."""
    ends_at: int = 0
    """Sequence of the last event, where the stream is known to have one."""
    job_id: str | None = None
    """Of a request for a job's own stream."""
    job_trace_id: str = ""
    """Of the call that asked for that job, for the span of the connecting to point to."""


_BODY = msgspec.json.Decoder(StreamBody)


async def read(request: Request, max_topics: int, max_body_bytes: int) -> StreamRequest:
    """What `request` asks for. Raises InvalidField, InvalidBody, TooLarge, UnsupportedMedia."""
    last_event_id = request.headers.get("last-event-id")
    if request.method != "POST":
        return of_query(request.scope["query_string"], last_event_id, max_topics)
    return _checked(decode(_BODY, await read_body(request, max_body_bytes)), last_event_id, max_topics)


def of_query(query: bytes, last_event_id: str | None, max_topics: int) -> StreamRequest:
    """What a query string asks for; `last_event_id` is the header's. Raises InvalidField."""
    values = _values(query)
    asked = StreamBody(
        client_id=_once(values, "client_id"),
        user_id=_once(values, "user_id"),
        topic=values.get("topic", []),
        last_event_id=_once(values, "last_event_id"),
    )
    return _checked(asked, last_event_id, max_topics)


def _checked(asked: StreamBody, header: str | None, max_topics: int) -> StreamRequest:
    last_event_id = _last_event_id(header, asked.last_event_id)
    topics = [asked.topic] if isinstance(asked.topic, str) else asked.topic
    if len(topics) > max_topics:
        raise InvalidField("topic", f"at most {max_topics} topics on one connection")
    client_id = new_client_id() if asked.client_id is None else asked.client_id
    tails = [BROADCAST, client_tail(client_id)]
    if asked.user_id is not None:
        tails.append(user_tail(asked.user_id))
    tails += [topic_filter_tail(topic) for topic in topics]
    return StreamRequest(client_id, minimal(tails) if topics else tails, last_event_id)


def of_job_query(query: bytes, header: str | None) -> tuple[str, str | None]:
    """The client's id, given or made, and its last event's id, for a job's own stream. Raises InvalidField."""
    values = _values(query)
    client_id = _once(values, "client_id")
    client_id = new_client_id() if client_id is None else check_name("client_id", client_id)
    return client_id, _last_event_id(header, _once(values, "last_event_id"))


def _values(query: bytes) -> dict[str, list[str]]:
    values: dict[str, list[str]] = {}
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        values.setdefault(name, []).append(value)
    return values


def _last_event_id(header: str | None, field: str | None) -> str | None:
    # The header is what EventSource sends when it comes back by itself: it is newer than what the address says.
    last_event_id = header or field
    return last_event_id[:MAX_ID_LENGTH] if last_event_id else None


def _once(values: dict[str, list[str]], name: str) -> str | None:
    found = values.get(name)
    if found is None:
        return None
    if len(found) > 1:
        raise InvalidField(name, "given once")
    return found[0]
