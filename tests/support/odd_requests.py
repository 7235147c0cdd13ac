"""Requests for a stream as no client library sends them, generated as bytes."""

from __future__ import annotations

from hypothesis import strategies as st

ODD: dict[str, list[bytes]] = {
    "method": [b"HEAD", b"OPTIONS", b"POST", b"PUT", b"get", b"BREW", b"CONNECT"],
    "before the path": [b"http://localhost", b"http://other.example", b"HTTP://LOCALHOST:80", b"http://", b"x"],
    "path": [
        b"/api/sse/",
        b"//api/sse",
        b"/api/./sse",
        b"/api/%73se",
        b"/api/sse%3F",
        b"/api/sse;a",
        b"/api/sse%F6",
        b"/API/SSE",
        b"/api/sse/jobs",
        b"/api/sse/jobs/",
        b"/api/sse/jobs/none",
        b"/api/sse/jobs/{job}",
        b"/api/sse/jobs/{job}/",
        b"/api/sse/jobs/{job}%00",
        b"/api/sse/jobs/%30{job}",
        b"*",
        b"",
    ],
    "after the query": [b"#", b"#part", b"#part?client_id=bob", b"&", b"?", b" ", b"\xc3\xb6", b"\x00"],
    "version": [b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.2", b"HTTP/0.9", b"http/1.1", b"HTTP/1.1 ", b""],
    "space": [b"  ", b"\t", b""],
    "hosts": [
        b"",
        b"Host: localhost\r\nHost: localhost\r\n",
        b"Host:\r\n",
        b"hOST:\tlocalhost:80 \r\n",
        b"Host: 127.0.0.1\r\n",
        b"Host: evil.example\r\n",
        b"Host : localhost\r\n",
        b"Host: a@localhost\r\n",
    ],
    "field": [
        b"Last-Event-ID: a\x00b\r\n",
        b"Last-Event-ID : {epoch}-1\r\n",
        b"Last-Event-ID: {epoch}-1\r\n ,x\r\n",
        b"Last-Event-ID: {epoch}-1\n",
        b"Last-Event-ID: {epoch}-1\rX: y\r\n",
        b"Content-Length: 0\r\nContent-Length: 0\r\n",
        b"Content-Length: +0\r\n",
        b"Content-Length: x\r\n",
        b"Transfer-Encoding: identity\r\n",
        b"Transfer-Encoding: gzip\r\n",
        b": nothing\r\n",
        b"nothing\r\n",
        b"X-\xc3\xb6: x\r\n",
    ],
    "end": [
        b"\n",
        b"\r\n\r\n",
        b"\r\nleft over",
        b"\r\nGET /api/sse HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nLast-Event-ID: {epoch}-1\r\n\r\n",
    ],
    "start": [b"\r\n", b"\n", b" "],
}
"""For each part of a request what is odd there."""

USUAL: dict[str, bytes] = {
    "method": b"GET",
    "before the path": b"",
    "path": b"/api/sse",
    "after the query": b"",
    "version": b"HTTP/1.1",
    "space": b" ",
    "hosts": b"Host: localhost\r\n",
    "field": b"",
    "end": b"\r\n",
    "start": b"",
}
NAMES = [
    b"client_id",
    b"user_id",
    b"topic",
    b"last_event_id",
    b"lastEventId",
    b"client%5Fid",
    b"_",
    b"t",
    b"topics",
    b"",
]
VALUES = [
    b"ann",
    b"",
    b"a.b",
    b"prices.*",
    b"a..b",
    b"%C3%B6",
    b"%F6",
    b"%",
    b"%4",
    b"%zz",
    b"a+b",
    b"a%20b",
    b"a;b=c",
    b"a=b",
    b"%00",
    b"5",
    b"{epoch}-1",
    b"{epoch}-9",
    b"other-1",
    b"a|b",
    b"a'b",
    b'"a"',
]
FIELDS = [
    b"Last-Event-ID: {epoch}-1",
    b"Last-Event-ID: {epoch}-2",
    b"LAST-EVENT-ID:{epoch}-1\t ",
    b"last-event-id: {epoch}-9",
    b"Last-Event-ID:",
    b"Last-Event-ID: \t",
    b"Last-Event-ID: \xf6",
    b"Last-Event-ID: \xc3\xb6",
    b"Last_Event_ID: {epoch}-1",
    b"traceparent: 00-1234567890abcdef1234567890abcdef-1234567890abcdef-01",
    b"traceparent: none",
    b"tracestate: a=b",
    b"Connection: close",
    b"Connection: keep-alive",
    b"Connection: Keep-Alive, Last-Event-ID",
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA",
    b"Upgrade: websocket",
    b"Content-Length: 0",
    b"TE: trailers",
    b"Trailer: Last-Event-ID",
    b"Expect: 100-continue",
    b"Expect: 200-ok",
    b"Origin: https://app.example",
    b"Origin: https://evil.example",
    b"Origin:",
    b"X-Forwarded-For: 192.0.2.7",
    b"X-Forwarded-For: 192.0.2.7, 127.0.0.1",
    b"X-Forwarded-For: 127.0.0.1",
    b"X-Forwarded-For: [2001:db8::1]:443",
    b"X-Forwarded-For: 192.0.2.8:1234",
    b"X-Forwarded-For: , ,",
    b"X-Forwarded-For:",
    b"X-Forwarded-For: \xf6",
    b"X-Forwarded-Proto: https",
    b"Forwarded: for=192.0.2.9",
    b"Content-Type: application/json",
    b"Content-Encoding: gzip",
    b"Cookie: a=b",
    b"Accept: text/html",
    b"Authorization: Bearer x",
    b"X: " + b"y" * 300,
]


CREDENTIALS = [
    b"Authorization: Bearer {good}",
    b"AUTHORIZATION:\tbearer {good} \t",
    b"Authorization: Bearer  {good}",
    b"Authorization: Bearer {good}, Bearer {good}",
    b"Authorization: Bearer {bad}",
    b"Authorization: Bearer {expired}",
    b"Authorization: Bearer {other}",
    b"Authorization: Bearer",
    b"Authorization: Bearer \xf6",
    b"Authorization: Bearer tgk_shop_x",
    b"Authorization: Basic eDp5",
    b"Authorization:",
    b"Authorization_: Bearer {good}",
    b"Cookie: session={good}",
    b'Cookie: a=b; session="{good}"; c',
    b"Cookie: session={bad}",
    b"Cookie: session={bad}\r\nCookie: session={good}",
    b"Cookie: session",
    b"Sec-Fetch-Site: same-origin",
    b"Sec-Fetch-Site: cross-site",
    b"Origin: http://localhost",
    b"Origin: https://app.example",
    b"Origin: https://evil.example",
]
"""What says who asks, or seems to. The names in braces stand for tokens."""

WISHES = [
    b"topic=prices.eur",
    b"topic=prices.%2A",
    b"topic=prices.%3E",
    b"topic=%3E",
    b"topic=prices%252Eeur",
    b"user_id=ann",
    b"user_id=bob",
    b"client_id=ann",
    b"client_id=bob",
    b"client_id=caf%C3%A9",
    b"client_id=cafe%CC%81",
    b"ticket=x",
    b"ticket=tgt_" + b"x" * 43,
    b"ticket={good}",
    b"access_token={good}",
    b"last_event_id={epoch}-1",
]
"""What a token may grant, or not."""


@st.composite
def authenticated_requests(draw: st.DrawFn, job_id: bytes) -> bytes:
    """A request for a stream or for that of the job `job_id`, with what says who asks."""
    query = b"&".join(draw(st.lists(st.sampled_from(WISHES), max_size=2)))
    path = draw(st.sampled_from([b"/api/sse", b"/api/sse", b"/api/sse/jobs/%s" % job_id]))
    method = draw(st.sampled_from([b"GET", b"GET", b"GET", b"HEAD"]))
    fields = draw(st.lists(st.sampled_from(CREDENTIALS), max_size=2))
    usual = draw(st.lists(st.just(CREDENTIALS[0]), max_size=1))
    lines = draw(st.permutations([USUAL["hosts"].rstrip(), *usual, *fields]))
    target = path + (b"?" if query else b"") + query
    return b"%s %s HTTP/1.1\r\n" % (method, target) + b"\r\n".join([*lines, b"", b""])


@st.composite
def odd_requests(draw: st.DrawFn, job_id: bytes) -> bytes:
    """A request that is odd in two parts at most, for one path or the other, some of it of the job `job_id`.

    `{epoch}` stands for that of the stream, whose first event is 1.
    """
    part = dict(USUAL)
    part["path"] = draw(st.sampled_from([USUAL["path"], b"/api/sse/jobs/{job}"]))
    for name in draw(st.sets(st.sampled_from(sorted(ODD)), max_size=2)):
        part[name] = draw(st.sampled_from(ODD[name]))
    pairs = draw(st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES)), max_size=3))
    query = b"&".join(name + b"=" + value for name, value in pairs)
    mark = b"?" if query or draw(st.booleans()) else b""
    target = part["before the path"] + part["path"] + mark + query + part["after the query"]
    line = part["method"] + part["space"] + target + part["space"] + part["version"] + b"\r\n"
    fields = [field + b"\r\n" for field in draw(st.lists(st.sampled_from(FIELDS), max_size=3))]
    lines = draw(st.permutations([part["hosts"], part["field"], *fields]))
    return (part["start"] + line + b"".join(lines) + part["end"]).replace(b"{job}", job_id)
