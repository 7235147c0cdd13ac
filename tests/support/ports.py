"""Free ports of this machine's loopback."""

from __future__ import annotations

import contextlib
import random
import socket

_RANGE = range(12_000, 32_000)
"""Below the ports that systems give to outgoing connections (Linux: 32,768 up; IANA, RFC 6335: 49,152 up).

A port from that range, found free, can be a client's own by the time that a server wants it.
"""

_given: set[int] = set()

_random = random.Random()
"""Its own: two runs of the stress program with the same seed would draw the same ports."""


def free_port(count: int = 1) -> int:
    """The first of `count` TCP ports in a row that nothing held a moment ago and that were not given before."""
    while True:
        ports = range(first := _random.choice(_RANGE), first + count)
        if _given.isdisjoint(ports) and all(map(_is_free, ports)):
            _given.update(ports)
            return first


def _is_free(port: int) -> bool:
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.bind(("127.0.0.1", port))
        return True
    return False
