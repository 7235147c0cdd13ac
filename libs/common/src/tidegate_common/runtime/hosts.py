"""Which hosts a service answers for: no page of another name may reach it (DNS rebinding).

A browser lets a page talk to its own origin freely. Whoever owns `evil.example` can let that name lead to 127.0.0.1
once the page is there; then the service on this machine is the page's own origin, and only `Host` tells. An address
can't be rebound, so IP literals pass.
"""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Callable, Iterable, Sequence

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from tidegate_common.errors import InvalidHost, TidegateError, WrongHost
from tidegate_common.runtime.problems import problem_response
from tidegate_common.telemetry.trouble import Trouble

log = logging.getLogger(__name__)

Responder = Callable[[Scope, TidegateError], Response]
"""Makes the answer to a request whose host is refused."""

AUTHORITY = "tidegate.authority"
"""Key in `scope["state"]`: the host and port in an absolute-form target, which count in place of `Host`."""

PROBES = frozenset({"/healthz", "/readyz"})
"""What asks these knows a process by its address, or by a name of its own: any host will do."""

# RFC 9110 7.2: uri-host [":" port]. There is no user information in it, and no host at all is no http URI (4.2.1).
_HOST = re.compile(
    rb"(?:\[(?P<literal>[0-9A-Fa-f:.]+(?:%25[A-Za-z0-9._~-]+)?)\]"
    rb"|(?P<name>(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+))(?::[0-9]*)?"
)

_ABSOLUTE = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)(.*)", re.DOTALL)

HOST_NAME = re.compile(r"[a-z0-9_]([a-z0-9._-]*[a-z0-9_])?")
"""What may be allowed: a name in lower case, without its last dot."""


def canonical(name: str) -> str:
    """`name` as names are compared: in lower case, without the dot that says that it is a full one."""
    return name.lower().removesuffix(".")


def split_target(target: bytes) -> tuple[bytes | None, bytes]:
    """The authority of an absolute-form target, None for any other; and the target in origin form."""
    found = _ABSOLUTE.fullmatch(target)
    if found is None:
        return None, target
    rest = found[2].partition(b"#")[0]
    return found[1], rest if rest.startswith(b"/") else b"/" + rest


class Hosts:
    """`localhost`, every IP literal and the names that the settings allow, each with any port."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset({"localhost", *map(canonical, names)})

    def check(self, values: Sequence[bytes], version: str, path: str, authority: bytes | None = None) -> None:
        """Checks a request's `Host` fields. `authority` is that of an absolute-form target and counts in their place.

        Raises InvalidHost (two, none, or no host at all), WrongHost (a name that is not allowed).
        """
        if len(values) > 1:
            raise InvalidHost("one Host header, not several")
        if not values and version != "1.0":
            raise InvalidHost("a request of HTTP/1.1 needs a Host header")
        host = authority if authority is not None else next(iter(values), None)
        if host is None or path in PROBES:
            return
        found = _HOST.fullmatch(host)
        if found is None:
            raise InvalidHost("Host is a name or an address, and a port: example.com:8000")
        if found["literal"] is not None:
            _check_literal(found["literal"])
        elif not self._knows(found["name"].decode()):
            raise WrongHost(found["name"].decode())

    def passes(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether an origin-form request of HTTP/1.1 with `headers` (names in lower case) is answered, probes apart."""
        try:
            self.check([value for name, value in headers if name == b"host"], "1.1", "/")
        except TidegateError:
            return False
        return True

    def _knows(self, name: str) -> bool:
        name = canonical(name)
        if name in self._names:
            return True
        try:
            ipaddress.IPv4Address(name)
        except ValueError:
            return False
        return True


def _check_literal(literal: bytes) -> None:
    """A zone (RFC 6874) names an interface of the client's."""
    try:
        ipaddress.IPv6Address(literal.partition(b"%25")[0].decode())
    except ValueError:
        raise InvalidHost("Host has brackets without an IPv6 address in them") from None


def problem(scope: Scope, error: TidegateError) -> Response:
    """Problem details, which is what all answers are unless the path belongs to another protocol."""
    return problem_response(error, scope["headers"])


class HostCheck:
    """ASGI middleware, outside of everything else: what is not for us gets no other answer."""

    def __init__(self, app: ASGIApp, hosts: Hosts, refusal: Responder = problem) -> None:
        self._app = app
        self._hosts = hosts
        self._refusal = refusal
        self._foreign = Trouble(
            log,
            "a request for a host that is not in TIDEGATE_ALLOWED_HOSTS got 421: if pages of yours are refused, "
            "add the name that they use",
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            values = [value for name, value in scope["headers"] if name == b"host"]
            authority = scope.get("state", {}).get(AUTHORITY)
            try:
                self._hosts.check(values, scope["http_version"], scope["path"], authority)
            except TidegateError as error:
                if isinstance(error, WrongHost):
                    self._foreign.note()
                await self._refusal(scope, error)(scope, receive, send)
                return
        await self._app(scope, receive, send)
