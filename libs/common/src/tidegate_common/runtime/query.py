"""What a request says in its query string and its headers, decoded as UTF-8 or not at all.

A parameter with a slip of the pen (`topics=` for `topic=`) asks for something that never comes, so it is refused as an
unknown field of a body is. Parameters that other people's software adds to addresses on its own are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tidegate_common.contract.subjects import encode_token
from tidegate_common.errors import InvalidField

IGNORED = frozenset(
    {
        # caches are passed by with these: jQuery's, and what pages write themselves
        "_",
        "nocache",
        "cachebust",
        "cachebuster",
        # polyfills of EventSource: Yaffle's, amvtek's
        "padding",
        "evs_preamble",
        "evs_buffer_size_limit",
        # Angular's service worker lets a request with it through
        "ngsw-bypass",
        # links are followed with these
        "_ga",
        "_gl",
        "dclid",
        "fbclid",
        "gbraid",
        "gclid",
        "igshid",
        "mc_cid",
        "mc_eid",
        "msclkid",
        "ttclid",
        "twclid",
        "wbraid",
        "yclid",
    }
)
"""Parameters that browsers, polyfills and proxies add, whatever their value."""

IGNORED_STARTS = ("utm_", "__cf_", "__amp_")
"""How more of them begin: links' campaigns, Cloudflare's challenges, AMP's caches."""

IGNORED_NUMBERS = frozenset({"_t", "_ts", "cb", "r", "rand", "random", "rnd", "t", "time", "timestamp", "ts"})
"""A time or a random number to pass caches by. With another value it is a slip: `t=prices.eur`."""

MOST_PARAMETERS = 100
"""Of a request, those that are ignored too. A stream may have as many topics beside them as it may."""

_NUMBER = re.compile(r"[0-9.]*")
_KEY = re.compile(r"[\x21-\x7e]{1,128}")
_SAID = 64


class Ignored:
    """Which unknown parameters are not refused: the ones above, and those that the operator names."""

    def __init__(self, more: Iterable[str] = ()) -> None:
        """`more` are names; one that ends in `*` stands for all that begin so."""
        named = list(more)
        self._names = IGNORED.union(named)
        self._starts = (*IGNORED_STARTS, *(name[:-1] for name in named if name.endswith("*")))

    def has(self, name: str, value: str) -> bool:
        if name in self._names or name.startswith(self._starts):
            return True
        return name in IGNORED_NUMBERS and _NUMBER.fullmatch(value) is not None


def read_query(
    query: bytes, known: Sequence[str], ignored: Ignored, most: int = MOST_PARAMETERS
) -> dict[str, list[str]]:
    """The `known` parameters of a query string, each with its values in their order.

    Raises InvalidField for a parameter that is neither known nor ignored, for more than `most`, and for bytes that are
    not UTF-8: read as U+FFFD, two names would be one.
    """
    if query.count(b"&") >= most:  # before anything is made of them: thousands fit into a head
        raise InvalidField("query", f"at most {most} parameters")
    values: dict[str, list[str]] = {}
    # As Latin-1, which keeps each byte, raw or percent-encoded.
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True, encoding="latin-1"):
        if name in known:
            values.setdefault(name, []).append(utf8(name, value))
        elif not ignored.has(name, value):
            said = name.encode("latin-1").decode("utf-8", "backslashreplace")[:_SAID]
            raise InvalidField(said, f"no parameter of this call, which takes {', '.join(known) or 'none'}")
    return values


def strict(route: Route, ignored: Ignored, known: Sequence[str] = ()) -> Route:
    """`route`, whose endpoint finds the `known` parameters in `request.state.query`. Others are refused before it."""
    endpoint = route.endpoint

    async def checked(request: Request) -> Response:
        request.state.query = read_query(request.scope["query_string"], known, ignored)
        answer: Response = await endpoint(request)
        return answer

    return Route(route.path, checked, methods=list(route.methods or ()))


def once(values: dict[str, list[str]], name: str) -> str | None:
    """The one value of a parameter; None if it is not given. Raises InvalidField if it is given twice."""
    found = values.get(name)
    if found is None:
        return None
    if len(found) > 1:
        raise InvalidField(name, "given once")
    return found[0]


def utf8(field: str, value: str) -> str:
    """The text whose bytes `value` holds as Latin-1. Raises InvalidField naming `field` if they are not UTF-8."""
    if value.isascii():
        return value
    try:
        return value.encode("latin-1").decode()
    except UnicodeDecodeError:
        raise InvalidField(field, "UTF-8") from None


def single(request: Request, name: str) -> str | None:
    """The header `name` as text. Raises InvalidField if it is given twice, or is not UTF-8."""
    found = request.headers.getlist(name)
    if len(found) > 1:
        raise InvalidField(name, "given once")
    return utf8(name, found[0]) if found else None


def idempotency_key(request: Request) -> str | None:
    """The caller's `Idempotency-Key`. Raises InvalidField."""
    key = single(request, "Idempotency-Key")
    if key is not None and not _KEY.fullmatch(key):
        raise InvalidField("Idempotency-Key", "1 to 128 visible ASCII characters")
    return key


def address_owner(request: Request) -> str:
    """The owner of jobs that name nobody: the address that a trusted proxy tells, or else the peer's."""
    return f"address.{encode_token(request.client.host if request.client else 'none')}"
