"""The ways that a request can take through a gateway, which have to read it alike."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import pytest

from gateway.sse.fastpath import FirstProtocol
from gateway.sse.socket_stream import SocketStream
from tests.support.eventstream import Received
from tests.support.gateway import RunningGateway
from tests.support.waiting import until
from tests.support.wire import SECONDS, Told, ask, beats

BOTH_PATHS = pytest.mark.parametrize("streams", ["slim", "plain"])
"""For what the socket's side does: a gateway that opens plain GETs by the fast path, and one that opens none so."""


class Way(Enum):
    FAST = "in one piece: a GET for a stream is opened without the HTTP server"
    PORTABLE = "its first byte alone: the HTTP server and the app have it"


async def ask_by(
    way: Way,
    running: RunningGateway,
    request: bytes,
    last: Callable[[Received], bool] = beats,
    seconds: float = SECONDS,
) -> Told:
    """The answer to `request`, which goes that way; of a stream up to the `last` thing that is waited for."""
    connections = running.server.server_state.connections
    before = set(connections)

    async def handed_over() -> None:
        def taken() -> bool:
            return any(not isinstance(each, FirstProtocol | SocketStream) for each in connections - before)

        await until(taken, "the HTTP server has the connection")

    return await ask(running.url, request, handed_over if way is Way.PORTABLE else None, last, seconds)
