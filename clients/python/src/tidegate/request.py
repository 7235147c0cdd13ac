"""What an attempt asks for: the address and the fields, made so that what can't be sent is known before."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

import httpx

from tidegate.asking import ask
from tidegate.events import Stopped

Headers = Mapping[str, str] | Callable[[], Mapping[str, str] | Awaitable[Mapping[str, str]]]

_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_IN_FIELD = re.compile(rb"[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?")


def address(url: str, client_id: str, user_id: str, topics: str | Sequence[str]) -> httpx.URL:
    """`url` with what it has and what is named beside it. Raises httpx.InvalidURL."""
    made = httpx.URL(url)
    if client_id and "client_id" not in made.params:
        made = made.copy_set_param("client_id", client_id)
    if user_id:
        made = made.copy_set_param("user_id", user_id)
    for topic in [topics] if isinstance(topics, str) else topics:
        made = made.copy_add_param("topic", topic)
    return made


async def fields(given: Headers | None, seconds: float) -> httpx.Headers:
    """The caller's fields for one attempt, which have to be there in `seconds`.

    Raises NotGiven, Stopped, and what the caller's function raises.
    """
    made = await ask(given, seconds, "headers") if callable(given) else given
    try:
        return httpx.Headers(list(_checked(httpx.Headers(made, encoding="latin-1"))))
    except (ValueError, TypeError, AttributeError) as error:
        raise Stopped(f"the headers can't be sent: {error}") from error


def place(url: httpx.URL, fields: httpx.Headers, last_event_id: str) -> tuple[httpx.URL, httpx.Headers]:
    """Both with the id to go on from: as WHATWG sends it, its UTF-8 bytes in `Last-Event-ID`.

    In the query if a field can't hold it: servers refuse control characters there, and blanks at its ends are lost.
    """
    value = last_event_id.encode("utf-8", "replace")
    if _IN_FIELD.fullmatch(value):
        return url, httpx.Headers([*fields.raw, (b"Last-Event-ID", value)])
    return (url.copy_set_param("last_event_id", last_event_id) if last_event_id else url), fields


def drop_cookies(client: httpx.AsyncClient) -> None:
    """Takes those out of the jar that httpx can't send: one outside of ASCII makes an error of every request."""
    for cookie in list(client.cookies.jar):
        if not f"{cookie.name}{cookie.value}".isascii():
            client.cookies.jar.clear(cookie.domain, cookie.path, cookie.name)


def check_address(url: httpx.URL) -> None:
    """Raises Stopped if no attempt can be made at `url`."""
    if url.scheme not in ("http", "https") or not url.host:
        raise Stopped(f"the address can't be used: {url} is no http or https address of a host")


def _checked(headers: httpx.Headers) -> Iterator[tuple[bytes, bytes]]:
    """Each field without the blanks around its value, such as the line end of a token's file. Raises ValueError."""
    for name, value in headers.raw:
        value = value.strip(b"\t\n\r ")
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name.decode('latin-1')!r} is no field's name")
        if not _VALUE.fullmatch(value):
            raise ValueError(f"the value of {name.decode('latin-1')} holds control characters")
        yield name, value
