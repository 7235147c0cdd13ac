from collections.abc import AsyncIterator

import msgspec
import pytest
from starlette.requests import Request
from starlette.types import Message

from tidegate_common.errors import InvalidBody, InvalidField, TooLarge, UnsupportedMedia
from tidegate_common.runtime.body import decode, read_body


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    size: int


class Outer(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    parts: list[Inner] = []


DECODER = msgspec.json.Decoder(Outer)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"name":1}', "name"),
        (b"{}", "name"),
        (b'{"name":"a","colour":1}', "colour"),
        (b'{"name":"a","parts":[{"size":"x"}]}', "parts[0].size"),
        (b'{"name":"a","parts":[{}]}', "parts[0].size"),
        (b"[]", "body"),
    ],
)
def test_a_wrong_field_is_named_by_its_path(body: bytes, field: str) -> None:
    with pytest.raises(InvalidField) as caught:
        decode(DECODER, body)
    assert caught.value.field == field


@pytest.mark.parametrize("body", [b"", b"{", b"nonsense", b'{"name":"\xff"}'])
def test_what_is_no_json_is_an_invalid_body(body: bytes) -> None:
    with pytest.raises(InvalidBody):
        decode(DECODER, body)


def request(chunks: list[bytes], content_type: str = "application/json", length: int | None = None) -> Request:
    async def messages() -> AsyncIterator[Message]:
        for number, chunk in enumerate(chunks):
            yield {"type": "http.request", "body": chunk, "more_body": number < len(chunks) - 1}
        yield {"type": "http.disconnect"}

    found = messages()
    headers = [(b"content-type", content_type.encode())]
    if length is not None:
        headers.append((b"content-length", str(length).encode()))
    return Request({"type": "http", "method": "POST", "path": "/", "headers": headers}, lambda: anext(found))


async def test_a_body_within_the_limit_is_read_whole() -> None:
    assert await read_body(request([b"ab", b"c"], "Application/JSON; charset=utf-8"), 3) == b"abc"


async def test_a_body_over_the_limit_is_refused_by_its_length_and_by_its_bytes() -> None:
    for over in (request([b"abcd"], length=4), request([b"ab", b"cd"])):
        with pytest.raises(TooLarge):
            await read_body(over, 3)


async def test_another_media_type_is_refused_before_the_body_is_read() -> None:
    with pytest.raises(UnsupportedMedia, match="application/json"):
        await read_body(request([b"a=1"], "application/x-www-form-urlencoded"), 100)
