"""Requests of all kinds, one after the other on a connection, cut anywhere: each gets the answer that is its own."""

import itertools
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.http import BODY_LIMIT, Answer, answer_in, exchange, head, served

UPGRADE = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAAAAI")


class Asked(NamedTuple):
    """One request and what has to come of it."""

    path: str
    json: bool
    size: int
    chunked: bool
    expect: bool
    upgrade: bool

    @property
    def status(self) -> int:
        if self.path == "/nothing":
            return 404
        if self.path == "/stream":
            return 200
        if not self.json:
            return 415
        return 413 if self.size > BODY_LIMIT else 200

    @property
    def ends(self) -> bool:
        """Whether the connection has to end with the answer: nobody was told to go on with the body."""
        if self.path == "/stream":
            return False  # Starlette looks whether the client leaves, which asks for the body
        asks = self.path == "/read" and self.json and (self.chunked or self.size <= BODY_LIMIT)
        return self.expect and not asks

    def encode(self) -> bytes:
        headers = [f"Content-Type: {'application/json' if self.json else 'text/plain'}"]
        headers += UPGRADE if self.upgrade else ()
        headers += ["Expect: 100-continue"] if self.expect else []
        body = b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n" * (self.size // 34 + 1)
        body = body[: self.size]
        if not self.chunked:
            headers.append(f"Content-Length: {self.size}")
            return head(f"POST {self.path} HTTP/1.1", *headers) + body
        headers.append("Transfer-Encoding: chunked")
        pieces = [body[at : at + 7000] for at in range(0, self.size, 7000)]
        chunks = b"".join(b"%x;a=b\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
        return head(f"POST {self.path} HTTP/1.1", *headers) + chunks + b"0\r\nX-Trailer: 1\r\n\r\n"


ASKED = st.builds(
    Asked,
    path=st.sampled_from(["/read", "/read", "/nothing", "/stream"]),
    json=st.booleans(),
    size=st.one_of(st.integers(0, 300), st.integers(90_000, 300_000)),
    chunked=st.booleans(),
    expect=st.booleans(),
    upgrade=st.booleans(),
)


def split(said: bytes) -> tuple[Answer, bytes]:
    """The first answer in `said`, its body whole, and what follows it."""
    found = answer_in(said)
    if b"content-length: " in found.head:
        length = int(found.head.split(b"content-length: ")[1].split(b"\r\n")[0])
        return found._replace(body=found.body[:length]), found.body[length:]
    body, _, rest = found.body.partition(b"0\r\n\r\n")
    return found._replace(body=body), rest


@settings(max_examples=100, deadline=None)
@given(st.lists(ASKED, min_size=1, max_size=5), st.lists(st.integers(0, 200_000), max_size=5))
async def test_each_request_gets_its_own_answer_and_no_body_is_read_as_one(asked: list[Asked], cuts: list[int]) -> None:
    async with served() as own:
        data = b"".join(one.encode() for one in asked) + head("GET /stream HTTP/1.1", "Connection: close")
        at = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
        said = await exchange(own.port, *(data[one:other] for one, other in itertools.pairwise(at)))
        for one in asked:
            found, said = split(said)
            assert found.status == one.status, one
            if (one.path, one.status) == ("/read", 200):
                assert found.body == str(one.size).encode()
            assert (b"connection: close" in found.head) == one.ends, one
            if one.ends:
                assert said == b""
                return
        assert split(said)[0].status == 200
