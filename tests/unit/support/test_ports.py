"""The ports that tests give to servers."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.support.ports import free_port

OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")


@pytest.mark.skipif(not OUTGOING.exists(), reason="the range of outgoing ports is read as on Linux")
def test_a_free_port_is_none_that_a_client_may_be_given() -> None:
    # A gateway's worker port was once taken by some client's connection between the look and the start.
    low, high = map(int, OUTGOING.read_text().split())
    assert all(not low <= free_port() <= high for _ in range(200))


def test_ports_in_a_row_are_free_and_given_once() -> None:
    first = free_port(2)
    for port in (first, first + 1):
        with socket.socket() as server:
            server.bind(("127.0.0.1", port))
    assert len({free_port() for _ in range(500)} | {first, first + 1}) == 502
