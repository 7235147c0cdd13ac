"""An offer to go on in another protocol is not taken up, and changes nothing (RFC 9110, 7.8)."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.http import answer_in, exchange, head, served

JSON = "Content-Type: application/json"
JAVA = (
    "Connection: Upgrade, HTTP2-Settings",
    "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
    "Upgrade: h2c",
)
OFFERS = [
    JAVA,
    ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: x", "Sec-WebSocket-Version: 13"),
    ("Connection: upgrade", "Upgrade: TLS/1.0, HTTP/2.0"),
    ("Upgrade: h2c", "Connection: keep-alive, Upgrade"),
    ("Upgrade: h2c",),
    ("Connection: Upgrade",),
]
BODIES = [
    pytest.param(("Content-Length: 12",), b'{"a": "b"}\r\n', id="length"),
    pytest.param(("Transfer-Encoding: chunked",), b'a\r\n{"a": "b"}\r\n2\r\n\r\n\r\n0\r\n\r\n', id="chunks"),
]


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize(("framing", "body"), BODIES)
@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_a_body_is_read_whatever_its_request_offers(
    offer: tuple[str, ...], framing: tuple[str, ...], body: bytes, version: str
) -> None:
    """Java's client offers h2c with each first request, its POSTs too. The parser took the body for bytes of the
    other protocol, and the answer was 400."""
    if version == "1.0" and "Transfer-Encoding: chunked" in framing:
        return
    async with served() as own:
        request = head(f"POST /read HTTP/{version}", JSON, *offer, *framing) + body
        end = head("GET /stream HTTP/1.1", "Connection: close", *offer[:0])
        said = await exchange(own.port, request + end if version == "1.1" else request)
        found = answer_in(said)
        assert found.status == 200
        assert found.body.startswith(b"12")
        if version == "1.1":
            assert answer_in(found.body[2:]).body == b"4\r\none,\r\n3\r\ntwo\r\n0\r\n\r\n", "the next request is read"


@pytest.mark.parametrize("offer", OFFERS)
async def test_requests_without_a_body_that_offer_are_answered_in_turn(offer: tuple[str, ...]) -> None:
    async with served() as own:
        ask = head("GET /stream HTTP/1.1", *offer)
        said = await exchange(own.port, ask * 3 + head("GET /nothing HTTP/1.1", "Connection: close"))
        assert [said.count(b"HTTP/1.1 %d" % status) for status in (200, 404)] == [3, 1]


PIECES = st.lists(st.integers(0, 400), max_size=6)
REQUESTS = [
    (head("POST /read HTTP/1.1", JSON, "Content-Length: 4", *JAVA) + b"[12]", b"4"),
    (head("POST /read HTTP/1.1", JSON, "Transfer-Encoding: chunked", *JAVA) + b"3\r\n[1]\r\n0\r\n\r\n", b"3"),
    (head("POST /read HTTP/1.1", JSON, "Content-Length: 2") + b"{}", b"2"),
    (head("POST /read HTTP/1.1", JSON, "Content-Length: 0", *JAVA), b"0"),
]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=5), PIECES)
async def test_requests_that_offer_and_others_follow_each_other_in_pieces_of_any_size(
    requests: list[tuple[bytes, bytes]], cuts: list[int]
) -> None:
    async with served() as own:
        data = b"".join(one for one, _ in requests) + head("GET /nothing HTTP/1.1", "Connection: close")
        at = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
        said = await exchange(own.port, *(data[one:other] for one, other in itertools.pairwise(at)))
        for _, body in requests:
            found = answer_in(said)
            assert (found.status, found.body[: len(body)]) == (200, body)
            said = found.body[len(body) :]
        assert answer_in(said).status == 404
