"""What a client asks for when it opens a stream, checked before anything is done about it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec
from starlette.requests import Request

from tidegate_common.auth.client_ids import ClientIds
from tidegate_common.contract.principal import Principal, Ticket
from tidegate_common.contract.wishes import Wish, selection
from tidegate_common.errors import InvalidCredentials, InvalidField
from tidegate_common.runtime.body import decode, read_body
from tidegate_common.runtime.query import MOST_PARAMETERS, Ignored, once, read_query, utf8
from tidegate_common.telemetry.propagation import context_fields

MAX_ID_LENGTH = 256
"""What is longer is no id of ours, nor becomes one when it is cut: those are shorter by far."""


APPENDED_IDS = ("lastEventId", "evs_last_event_id")
"""The last event's id, as polyfills append it to the address that they were given."""

JOB_PARAMETERS = ("client_id", "last_event_id", *APPENDED_IDS)
NAMES = ("client_id", "user_id", "topic")
PARAMETERS = (*NAMES, "last_event_id", *APPENDED_IDS)
TICKET = "ticket"
"""The parameter that says who asks, if everyone is asked."""
TICKET_START = f"{TICKET}=".encode()


class Fields(NamedTuple):
    """The header fields that a stream's request is read from, on whichever way it comes in."""

    last_event_id: str | None
    context: dict[str, str]
    """The trace context; empty if none is given. One that can't be read is no reason to refuse a client."""

    @classmethod
    def of(cls, headers: Iterable[tuple[bytes, bytes]]) -> Fields:
        """Of `headers` with names in lower case. Raises InvalidField for a Last-Event-ID given twice, or not UTF-8."""
        given = [value for name, value in headers if name == b"last-event-id"]
        if len(given) > 1:
            raise InvalidField("Last-Event-ID", "given once")
        last_event_id = utf8("Last-Event-ID", given[0].decode("latin-1")) if given else None
        return cls(last_event_id, context_fields(headers))


class StreamBody(Wish, frozen=True, forbid_unknown_fields=True):
    """Body of `POST /api/sse`: the fields of the query string, `topic` one or a list."""

    last_event_id: str | None = None


class StreamRequest(msgspec.Struct, frozen=True):
    """A checked request: `tails` is what the connection listens to, without repeats."""

    client_id: str
    tails: list[str]
    last_event_id: str | None
    listening: tuple[str, ...]
    """Names of all that is listened to, as the client is told: `broadcast`, `client:ann`, `topic:prices.*`."""
    context: dict[str, str] = {}
    """The trace that the request is of."""
    since: str | None = None
    """Id after which a client gets what there is when it comes without one of its own."""
    ends_at: int = 0
    """Sequence of the last event, if the stream is known to have one; else 0."""
    job_id: str | None = None
    """Of a request for a job's own stream."""
    job_trace_id: str = ""
    """Of the call that asked for that job, for the span of the connecting to point to."""


class Listener(NamedTuple):
    """Whoever asks for a stream, and what it takes to know their client again."""

    principal: Principal
    client_ids: ClientIds

    def parameters(self, known: tuple[str, ...]) -> tuple[str, ...]:
        """Those that are `known`, and the one that has been read already."""
        return known if self.principal.is_open else (*known, TICKET)


def ticket_of(query: bytes) -> str | None:
    """The ticket in a query string. It is URL-safe: one that is encoded all the same is none of ours.

    Raises InvalidCredentials.
    """
    if TICKET_START not in query:
        return None
    given = [part.removeprefix(TICKET_START) for part in query.split(b"&") if part.startswith(TICKET_START)]
    if len(given) > 1:
        raise InvalidCredentials("the parameter ticket is given twice: send it once")
    return given[0].decode("latin-1") if given else None


_BODY = msgspec.json.Decoder(StreamBody)


async def of_body(
    request: Request, listener: Listener, max_topics: int, max_body_bytes: int, ignored: Ignored
) -> StreamRequest:
    """What a POST asks for. Raises InvalidBody, TooLarge, UnsupportedMedia, and as `of_query`."""
    fields = Fields.of(request.scope["headers"])
    read_query(request.scope["query_string"], (), ignored)
    asked = decode(_BODY, await read_body(request, max_body_bytes))
    return _checked(asked, fields.last_event_id or asked.last_event_id, listener, max_topics, fields)


def of_query(query: bytes, fields: Fields, listener: Listener, max_topics: int, ignored: Ignored) -> StreamRequest:
    """What a query string and headers ask for.

    Raises InvalidField; Forbidden, Unauthenticated for what the listener may not hear; BrokerUnavailable.
    """
    values = read_query(query, listener.parameters(PARAMETERS), ignored, MOST_PARAMETERS + max_topics)
    last_event_id = _last_event_id(fields, values)
    ticket = listener.principal.ticket
    if ticket is not None and ticket.job_id:  # whatever names stand beside it: the own user needs no grant
        raise listener.principal.refuse("a ticket for this stream")
    if ticket is not None and not any(name in values for name in NAMES):
        return _of_ticket(ticket, last_event_id, fields)
    asked = Wish(
        client_id=once(values, "client_id"),
        user_id=once(values, "user_id"),
        topic=values.get("topic", []),
    )
    return _checked(asked, last_event_id, listener, max_topics, fields)


def of_job_query(query: bytes, fields: Fields, listener: Listener, ignored: Ignored) -> tuple[str, str | None]:
    """The client's id, given or made, and its last event's id, for a job's own stream. Raises as `of_query`."""
    values = read_query(query, listener.parameters(JOB_PARAMETERS), ignored)
    client_id = listener.client_ids.chosen(listener.principal, once(values, "client_id"))
    return client_id, _cut(_last_event_id(fields, values))


def _of_ticket(ticket: Ticket, last_event_id: str | None, fields: Fields) -> StreamRequest:
    """All that the ticket was asked for."""
    return StreamRequest(ticket.client_id, list(ticket.tails), _cut(last_event_id), ticket.names, fields.context)


def _checked(
    asked: Wish, last_event_id: str | None, listener: Listener, max_topics: int, fields: Fields
) -> StreamRequest:
    client_id = listener.client_ids.chosen(listener.principal, asked.client_id)
    tails, names = selection(asked, client_id, listener.principal, max_topics)
    return StreamRequest(client_id, tails, _cut(last_event_id), names, fields.context)


def _last_event_id(fields: Fields, values: dict[str, list[str]]) -> str | None:
    """The newest of the ids that a request brings.

    The header is EventSource's own, set anew each time that it comes back, while the address stays. A polyfill appends
    its parameter to an address, which may hold an older one, and where the application began.
    """
    first = once(values, "last_event_id")
    appended = (values[name][-1] for name in APPENDED_IDS if name in values)
    return fields.last_event_id or next(filter(None, appended), None) or first


def _cut(last_event_id: str | None) -> str | None:
    return last_event_id[:MAX_ID_LENGTH] if last_event_id else None
