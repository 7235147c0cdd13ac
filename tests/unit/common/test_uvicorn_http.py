"""What we rest on in uvicorn: private names, and code that is replaced as a whole."""

import hashlib
import inspect
from collections.abc import Callable
from typing import Any

from starlette.types import Receive, Scope, Send
from uvicorn import Config, Server
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from tidegate_common.runtime.uvicorn_http.http_server import HttpServer

REPLACED: dict[Callable[..., Any], str] = {
    HttpToolsProtocol.data_received: "010a7ae59a5d3b1a",
    HttpToolsProtocol.on_response_complete: "64e254f28e389e76",
    HttpToolsProtocol.shutdown: "d7351fa33f00d430",
    HttpToolsProtocol.connection_lost: "c91a4c9bf2e29c55",
    HttpToolsProtocol._start_asgi_task: "9c08c2571ae9b038",
    RequestResponseCycle.send: "abdd8601b326a8da",
    RequestResponseCycle.receive: "8124ae006be71184",
    Server.handle_exit: "553276efa26e09ea",
    Server.shutdown: "9b33c50562992b1e",
}
"""Of these there is one of ours, or what they do is worked around: a change in one of them has to be read."""


def names(function: Any) -> set[str]:
    """What a function's code names."""
    return set(function.__code__.co_names)


def test_the_code_that_is_replaced_is_as_it_was() -> None:
    for function, known in REPLACED.items():
        found = hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:16]
        assert found == known, f"uvicorn has changed {function.__qualname__}: does ours still hold?"


def test_the_names_are_there() -> None:
    protocol = names(HttpToolsProtocol.__init__)
    assert {"parser", "transport", "flow", "cycle", "pipeline", "headers", "scope", "connections"} <= protocol
    assert {"server_state", "app_state", "loop", "expect_100_continue"} <= protocol
    cycle = names(RequestResponseCycle.__init__)
    assert {"scope", "disconnected", "keep_alive", "waiting_for_100_continue", "message_event"} <= cycle
    assert {"response_started", "response_complete", "chunked_encoding", "expected_content_length"} <= cycle
    assert {"read_paused"} <= names(FlowControl.__init__)
    assert {"connections", "tasks", "default_headers", "total_requests"} <= set(vars(ServerState()))
    assert {"server_state", "should_exit", "force_exit", "servers"} <= names(Server.__init__) | names(Server.startup)


def test_protocols_are_made_with_the_arguments_that_are_passed_on() -> None:
    assert list(inspect.signature(HttpToolsProtocol).parameters) == ["config", "server_state", "app_state", "_loop"]


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Is never called."""


def test_the_address_that_a_trusted_proxy_names_is_found_by_uvicorns_own_rules() -> None:
    config = Config(app, forwarded_allow_ips=["192.0.2.1"], log_config=None)
    config.load()
    assert isinstance(config.loaded_app, ProxyHeadersMiddleware)
    front = HttpServer(HttpToolsProtocol, config=config, server_state=ServerState())
    named = [(b"x-forwarded-for", b"203.0.113.9"), (b"x-forwarded-for", b"203.0.113.7, 192.0.2.1")]
    assert front.client("192.0.2.1", named) == "203.0.113.7"
    assert front.client("192.0.2.1", []) == "192.0.2.1"
    assert front.client("192.0.2.2", named) == "192.0.2.2"
