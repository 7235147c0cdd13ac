"""Other servers that push events over SSE, each set up as its own documentation has it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from benchmarks.options import Options
from benchmarks.peers.centrifugo import centrifugo
from benchmarks.peers.mercure import mercure
from benchmarks.peers.nchan import nchan
from benchmarks.peers.pushpin import pushpin
from benchmarks.peers.sse_starlette import sse_starlette
from benchmarks.server import Server

PEERS: dict[str, Callable[[Options], AbstractAsyncContextManager[Server]]] = {
    "Nchan": nchan,
    "Pushpin": pushpin,
    "sse-starlette": sse_starlette,
    "Mercure": mercure,
    "Centrifugo": centrifugo,
}
