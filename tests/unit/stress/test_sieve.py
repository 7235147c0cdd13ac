"""The stress run's sieve: it leaves out what it is told to, and nothing else changes."""

import pytest

from tests.stress.sieve import Drops

WANTED = b"HMSG tg.out.all 1 21 26\r\nNATS/1.0\r\nA: 1234\r\n\r\n7:abc\r\n"
OTHER = b"HMSG tg.out.all 1 21 26\r\nNATS/1.0\r\nA: 1234\r\n\r\n8:abc\r\n"
ASKED = b"MSG _INBOX.x 2 reply.to 5\r\n7:a\r\n\r\n"
STREAM = b'INFO {"x":1}\r\nPING\r\n' + WANTED + OTHER + ASKED + WANTED + b"PONG\r\n"


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_an_events_messages_are_left_out_of_one_gateways_connection_and_nothing_else_is(size: int) -> None:
    drops = Drops()
    first, second = drops.sieve(), drops.sieve()
    drops.drop(7, {1})
    pieces = [STREAM[at : at + size] for at in range(0, len(STREAM), size)]
    assert b"".join(map(first, pieces)) == STREAM
    assert b"".join(map(second, pieces)) == STREAM.replace(WANTED, b"")
    assert drops.done[7] == 2
