"""What a client asks for when it opens a stream, checked before anything is done about it."""

from __future__ import annotations

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

MAX_ID_BYTES = 256


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


_BODY = msgspec.json.Decoder(StreamBody)


async def read(request: Request, max_topics: int, max_body_bytes: int) -> StreamRequest:
    """What `request` asks for. Raises InvalidField, InvalidBody, TooLarge, UnsupportedMedia."""
    if request.method == "POST":
        asked = decode(_BODY, await read_body(request, max_body_bytes))
    else:
        query = request.query_params
        asked = StreamBody(
            client_id=_once(request, "client_id"),
            user_id=_once(request, "user_id"),
            topic=query.getlist("topic"),
            last_event_id=_once(request, "last_event_id"),
        )
    # The header is what EventSource sends when it comes back by itself: it is newer than what the address says.
    last_event_id = request.headers.get("last-event-id") or asked.last_event_id or None
    if last_event_id is not None and len(last_event_id) > MAX_ID_BYTES:
        raise InvalidField("last_event_id", f"at most {MAX_ID_BYTES} characters")
    topics = [asked.topic] if isinstance(asked.topic, str) else asked.topic
    if len(topics) > max_topics:
        raise InvalidField("topic", f"at most {max_topics} topics on one connection")
    client_id = new_client_id() if asked.client_id is None else check_name("client_id", asked.client_id)
    tails = [BROADCAST, client_tail(client_id)]
    if asked.user_id is not None:
        tails.append(user_tail(asked.user_id))
    tails += [topic_filter_tail(topic) for topic in topics]
    return StreamRequest(client_id, minimal(tails), last_event_id)


def _once(request: Request, name: str) -> str | None:
    values = request.query_params.getlist(name)
    if len(values) > 1:
        raise InvalidField(name, "given once")
    return values[0] if values else None
