"""What a request says of who it is from. The first of these counts: `Authorization`, a ticket, the cookie."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple

from tidegate_common.errors import InvalidCredentials

KEY_START = "tgk_"
MAX_BYTES = 8192
"""Of a token."""


class Kind(Enum):
    NONE = "none"
    TOKEN = "token"
    KEY = "key"
    TICKET = "ticket"
    COOKIE = "cookie"


class Credential(NamedTuple):
    kind: Kind
    text: str = ""


NOTHING = Credential(Kind.NONE)


def credential(headers: Iterable[tuple[bytes, bytes]], ticket: str | None, cookie: str) -> Credential:
    """Of `headers` (names in lower case), of the parameter `ticket`, and of the cookie named `cookie`, if one is.

    Raises InvalidCredentials.
    """
    given = [value for name, value in headers if name == b"authorization"]
    if len(given) > 1:
        raise InvalidCredentials("Authorization is given twice: send it once")
    if given:
        scheme, _, text = given[0].decode("latin-1").partition(" ")
        text = text.strip()
        if scheme.lower() != "bearer" or not text or " " in text:
            raise InvalidCredentials("Authorization is not read as it is: Bearer, then a token or a key")
        return Credential(Kind.KEY if text.startswith(KEY_START) else Kind.TOKEN, text)
    if ticket is not None:
        return Credential(Kind.TICKET, ticket)
    found = _cookies(headers, cookie) if cookie else []
    if len(found) > 1:
        raise InvalidCredentials(f"the cookie {cookie} is there twice: one of another path or domain is in the way")
    return Credential(Kind.COOKIE, found[0]) if found and found[0] else NOTHING


def _cookies(headers: Iterable[tuple[bytes, bytes]], wanted: str) -> list[str]:
    """The values of all cookies of that name (RFC 6265, 5.4): HTTP/2 may split them over several fields."""
    pairs = [pair for name, value in headers if name == b"cookie" for pair in value.decode("latin-1").split(";")]
    return [text for key, equals, text in (pair.strip().partition("=") for pair in pairs) if equals and key == wanted]
