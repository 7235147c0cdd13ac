"""Which site a request's page is of, as its browser says: no other site may use what a browser brings by itself.

That is a cookie, and in the mode `open` the mere place of the browser: behind the firewall, on this machine.
"""

from __future__ import annotations

from collections.abc import Iterable

from tidegate_common.errors import Forbidden

Headers = Iterable[tuple[bytes, bytes]]

READS = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing. What they answer is kept from other sites' pages by CORS."""


SAID = frozenset({b"origin", b"sec-fetch-site"})
"""What says whose page a request is of."""


class Origins:
    """The own site, and a list of others whose pages count as its own."""

    def __init__(self, listed: Iterable[str]) -> None:
        """`*` in the list stands for all: leave it out if a cookie is asked about (Fetch, 3.2.5)."""
        self._listed = frozenset(listed)

    def own(self, headers: Headers) -> bool | None:
        """Whether a request with `headers` (names in lower case) is of a page of these sites; None if nothing says so.

        Whoever is no browser says nothing, or what they like.
        """
        origins: list[bytes] = []
        site = host = b""
        for name, value in headers:
            if name == b"origin":
                origins.append(value)
            elif name == b"sec-fetch-site":
                site = value
            elif name == b"host":
                host = value
        if site == b"same-origin":  # no page can set it (Fetch Metadata, 4); what it is the same as, Hosts has checked
            return True
        if not origins:
            return False if site in (b"cross-site", b"same-site") else None
        if len(origins) > 1:
            return False
        if "*" in self._listed or origins[0].decode("latin-1") in self._listed:
            return True
        # The host alone would take http://app.example for https://app.example. Browsers that tell the site know better;
        # they do not tell it to plain http, where there is only one scheme.
        return not site and bool(host) and _authority(origins[0]) == host.lower()

    def check(self, method: str, headers: Headers) -> None:
        """Raises Forbidden if another site's page wants to change something without a token that it has itself."""
        if method in READS:
            return
        told = list(headers)
        for name, _ in told:
            if name in SAID:
                break
        else:
            return  # no browser's: services publish so, and it has to cost them little
        if self.own(told) is False and not _has_bearer(told):
            raise Forbidden("origin", "the page is neither of this site nor of one in TIDEGATE_CORS_ORIGINS")


def _authority(origin: bytes) -> bytes:
    return origin.partition(b"://")[2].lower()


def _has_bearer(headers: Headers) -> bool:
    """No browser sends a token by itself, and no page one of its own unless CORS allows it."""
    return any(name == b"authorization" and value[:7].lower() == b"bearer " for name, value in headers)
