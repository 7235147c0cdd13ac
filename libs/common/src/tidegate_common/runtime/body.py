"""Request bodies: bounded while they are read, and decoded with errors that name the field."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeVar

import msgspec
from starlette.requests import Request

from tidegate_common.errors import InvalidBody, InvalidField, TooLarge, UnsupportedCoding, UnsupportedMedia
from tidegate_common.runtime.guard import BODIES, Bodies

T = TypeVar("T")

_PATH = re.compile(r"(.*) - at `\$\.?(.*)`", re.DOTALL)
_FIELD = re.compile(r"Object (?:contains unknown|missing required) field `([^`]*)`")


async def read_body(request: Request, limit: int, media_type: str = "application/json") -> bytes:
    """The whole body.

    Raises UnsupportedMedia, UnsupportedCoding, TooLarge (as soon as that is known), InvalidBody (cut off), and
    Unavailable if the process holds too much of other bodies that are not there as a whole.
    """
    sent = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if sent != media_type:
        raise UnsupportedMedia(media_type)
    codings = [part.strip() for part in ",".join(request.headers.getlist("content-encoding")).split(",")]
    coding = next((part for part in codings if part.lower() not in ("", "identity")), None)
    if coding is not None:
        raise UnsupportedCoding(coding)
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > limit:
        raise TooLarge("the body", limit)
    bodies: Bodies = request.scope.get("extensions", {}).get(BODIES) or Bodies(limit)
    body = bytearray()
    held = 0
    try:
        while True:
            message = await request.receive()
            if message["type"] == "http.disconnect":
                raise InvalidBody("the body was cut off")
            body += message.get("body", b"")
            if len(body) > limit:
                raise TooLarge("the body", limit)
            if not message.get("more_body", False):
                return bytes(body)
            bodies.take(len(body) - held)
            held = len(body)
    finally:
        bodies.give_back(held)


def decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """`body` as the decoder's type. Raises InvalidField naming the field and what is allowed, or InvalidBody."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise invalid_field(error, getattr(decoder.type, "__struct_encode_fields__", ())) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidBody(f"the body is no valid JSON: {error}") from None
    except RecursionError:
        raise InvalidBody("the body's JSON is nested too deeply") from None


def invalid_field(error: msgspec.ValidationError, known: Sequence[str] = ()) -> InvalidField:
    """What msgspec found, as field and rule; `known` are the fields that the whole body may have."""
    text, path = str(error), ""
    match = _PATH.fullmatch(text)
    if match:
        text, path = match[1], match[2]
    named = _FIELD.search(text)
    if named:
        name = f"{path}.{named[1]}" if path else named[1]
        if "unknown" not in text:
            return InvalidField(name, "this field is required")
        fields = f", which takes {', '.join(known)}" if known and not path else ""
        return InvalidField(name, f"no field of this body{fields}")
    return InvalidField(path or "body", text[:1].lower() + text[1:])
