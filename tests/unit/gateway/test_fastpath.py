"""Which first bytes of a connection are a GET for a stream, and which are uvicorn's."""

import pytest

from gateway.sse.fastpath import read_head

GET = b"GET /api/sse?client_id=a HTTP/1.1\r\nHost: x\r\nLast-Event-ID: e-1\r\n\r\n"


def test_a_whole_get_is_taken_with_its_query_and_headers() -> None:
    head = read_head(GET, 1000)
    assert head is not None
    assert (head.query, head.job_id) == (b"client_id=a", None)
    assert head.headers == [(b"host", b"x"), (b"last-event-id", b"e-1")]
    assert read_head(b"GET /api/sse HTTP/1.1\r\n\r\n", 1000) is not None


def test_a_page_of_another_origin_and_a_jobs_own_stream_are_taken_too() -> None:
    assert read_head(GET.replace(b"Host: x", b"Origin: https://a.example"), 1000) is not None
    head = read_head(GET.replace(b"/api/sse?", b"/api/sse/jobs/0a1B?"), 1000)
    assert head is not None
    assert (head.query, head.job_id) == (b"client_id=a", "0a1B")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(GET[:-1], id="in pieces"),
        pytest.param(GET + GET, id="pipelined"),
        pytest.param(GET + b"GET", id="with a part of the next"),
        pytest.param(GET.replace(b"GET", b"POST"), id="another method"),
        pytest.param(GET.replace(b"/api/sse?", b"/api/sse/jobs?"), id="a path below"),
        pytest.param(GET.replace(b"/api/sse?", b"/api/sse/jobs/?"), id="no job"),
        pytest.param(GET.replace(b"/api/sse?", b"/api/sse/jobs/a/?"), id="below a job"),
        pytest.param(GET.replace(b"/api/sse?", b"/api/sse/jobs/%61?"), id="an id that is written in an odd way"),
        pytest.param(GET.replace(b"/api/sse?", b"/api/sser?"), id="a longer path"),
        pytest.param(GET.replace(b"HTTP/1.1", b"HTTP/1.0"), id="HTTP/1.0"),
        pytest.param(GET.replace(b"Host: x", b"Content-Length: 0"), id="a body, if an empty one"),
        pytest.param(GET.replace(b"Host: x", b"Connection: Upgrade\r\nUpgrade: websocket"), id="an upgrade"),
        pytest.param(GET.replace(b"Host: x", b"Host : x\r\n y"), id="no HTTP"),
        pytest.param(GET.replace(b"Host: x", b"X: " + b"x" * 1000), id="too long"),
        pytest.param(b"\x16\x03\x01\x02\x00", id="TLS"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_all_else_is_uvicorns(data: bytes) -> None:
    assert read_head(data, 1000) is None
