"""Answers to what never becomes a request: written to the socket as they are, and the connection ends with them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from http import HTTPStatus
from typing import NamedTuple

from tidegate_common.telemetry.propagation import context_fields, extract, trace_id


class Refusal(NamedTuple):
    """`reason` is what it is counted as; `detail` is for whoever reads the answer."""

    reason: str
    status: HTTPStatus
    type: str
    detail: str

    def encode(self, headers: Iterable[tuple[bytes, bytes]], asked: Iterable[tuple[bytes, bytes]] = ()) -> bytes:
        """The whole answer (RFC 9457), with the server's own `headers`.

        `asked` are the request's headers, as far as they have come (names in lower case): the answer is of their trace.
        """
        problem = {
            "type": f"urn:tidegate:problem:{self.type}",
            "title": self.status.phrase,
            "status": int(self.status),
            "detail": self.detail,
            "trace_id": trace_id(extract(context_fields(asked))),
        }
        body = json.dumps(problem).encode()
        own = (
            (b"content-type", b"application/problem+json"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        )
        return encode_head(self.status, (*headers, *own)) + body


def encode_head(status: HTTPStatus, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The head of an answer that is written to a socket; `headers` are legal ones of ours."""
    lines = b"".join(b"%s: %s\r\n" % header for header in headers)
    return b"HTTP/1.1 %d %s\r\n%s\r\n" % (status, status.phrase.encode(), lines)


INVALID = Refusal("invalid", HTTPStatus.BAD_REQUEST, "invalid-request", "this can't be read as HTTP")
VERSION = Refusal(
    "invalid", HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "http-version", "HTTP/1.1 and HTTP/1.0 are spoken here"
)
PIPELINED = Refusal(
    "invalid", HTTPStatus.TOO_MANY_REQUESTS, "too-many-requests", "too many requests wait on this connection"
)


def head_large(most: int) -> Refusal:
    detail = f"the request's line and headers are over the limit of {most} bytes"
    return Refusal("head_large", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "headers-too-large", detail)


def head_late(seconds: float) -> Refusal:
    detail = f"the request's head was not there within {seconds:g} seconds"
    return Refusal("head_late", HTTPStatus.REQUEST_TIMEOUT, "request-timeout", detail)


def body_late(seconds: float) -> Refusal:
    detail = f"the body came too slowly: 64 KiB, or the rest of it, within each {seconds:g} seconds, ten minutes in all"
    return Refusal("body_late", HTTPStatus.REQUEST_TIMEOUT, "request-timeout", detail)
