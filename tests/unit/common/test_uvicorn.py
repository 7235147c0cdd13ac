"""What the protocol and its answers rest on in uvicorn: private names, and code that is replaced as a whole."""

import hashlib
import inspect
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

REPLACED: dict[Callable[..., Any], str] = {
    HttpToolsProtocol.data_received: "010a7ae59a5d3b1a",
    HttpToolsProtocol.on_response_complete: "64e254f28e389e76",
    HttpToolsProtocol.shutdown: "d7351fa33f00d430",
    HttpToolsProtocol.connection_lost: "c91a4c9bf2e29c55",
    RequestResponseCycle.send: "abdd8601b326a8da",
}
"""Of these the protocol has its own, or works around what they do: a change in one of them has to be read."""


def test_the_code_that_is_replaced_is_as_it_was() -> None:
    for function, known in REPLACED.items():
        found = hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:16]
        assert found == known, f"uvicorn has changed {function.__qualname__}: does our protocol still hold?"


def test_the_names_are_there() -> None:
    protocol = set(HttpToolsProtocol.__init__.__code__.co_names)
    assert {"parser", "transport", "flow", "cycle", "pipeline", "headers", "scope", "connections"} <= protocol
    assert {"server_state", "app_state", "loop"} <= protocol
    cycle = set(RequestResponseCycle.__init__.__code__.co_names)
    assert {"disconnected", "keep_alive", "waiting_for_100_continue", "message_event"} <= cycle
    assert {"response_started", "response_complete", "chunked_encoding", "expected_content_length"} <= cycle
    assert {"read_paused"} <= set(FlowControl.__init__.__code__.co_names)
