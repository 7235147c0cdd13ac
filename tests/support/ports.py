"""Free ports of this machine's loopback."""

from __future__ import annotations

import contextlib
import socket

from tests.support.claims import Claims

_ports = Claims("ports", range(12_000, 32_000))
"""Below the ports that systems give to outgoing connections (Linux: 32,768 up; IANA, RFC 6335: 49,152 up).

A port from that range, found free, can be a client's own by the time that a server wants it. Nor may two test
processes find the same port free before one of them listens, so each port is claimed.
"""


def free_port(count: int = 1) -> int:
    """The first of `count` TCP ports in a row that nothing held a moment ago and that no test has been given."""
    return _ports.take(count, _is_free)


def _is_free(port: int) -> bool:
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.bind(("127.0.0.1", port))
        return True
    return False
