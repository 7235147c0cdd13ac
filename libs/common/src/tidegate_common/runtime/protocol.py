"""uvicorn's HTTP/1.1 protocol with a limit on the size of a request's head."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tidegate_common.runtime.hosts import AUTHORITY, split_target

_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Type: application/problem+json\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%s"
)
_BODY = (
    b'{"type":"urn:tidegate:problem:headers-too-large","title":"Request headers too large","status":431,'
    b'"detail":"the request\'s line and headers are over the limit of %d bytes"}'
)


class LimitedHttpProtocol(HttpToolsProtocol):
    """Answers 431 and closes once the request line and the headers are over `max_header_bytes` in all."""

    max_header_bytes = 32_768
    _in_head = True
    _head_ended = False
    _refused = False
    _parsed = 0
    _unparsed = 0

    def on_url(self, url: bytes) -> None:
        if self._fits(len(url)):
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._fits(len(name) + len(value) + 4):
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_ended = True
        self._parsed = self._unparsed = 0
        if not self._refused:
            # RFC 9112 3.2.2: of an absolute-form target the host counts, and not the header's. uvicorn drops it.
            authority, self.url = split_target(self.url)
            if authority is not None:
                self.scope["state"][AUTHORITY] = authority
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_head = True
        if not self._refused:
            super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        was_in_head, self._head_ended = self._in_head, False
        super().data_received(data)
        # httptools hands over a field only when it is whole: an endless one is counted by the bytes that came.
        # A whole request in one piece is in a head before and after it too, the next one's: its body does not count.
        if was_in_head and self._in_head and not self._head_ended:
            self._unparsed += len(data)
            if self._unparsed > self.max_header_bytes:
                self._refuse()

    def abort(self) -> None:
        """Cuts the connection: nothing more is waited for."""
        self.transport.abort()

    def _fits(self, size: int) -> bool:
        self._parsed += size
        if self._parsed > self.max_header_bytes:
            self._refuse()
        return not self._refused

    def _refuse(self) -> None:
        if not self._refused:
            self._refused = True
            body = _BODY % self.max_header_bytes
            self.transport.write(_TOO_LARGE % (len(body), body))
            self.transport.close()


def limited(max_header_bytes: int, base: type[LimitedHttpProtocol] = LimitedHttpProtocol) -> type[Any]:
    """`base` with this limit: uvicorn makes protocols without arguments of ours."""
    return type(base.__name__, (base,), {"max_header_bytes": max_header_bytes})
