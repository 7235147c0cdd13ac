"""A peer whose network is gone without a FIN: nobody tells the gateway, it has to find out."""

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateway import running_gateway
from tests.support.nats import nats_server
from tests.support.network import network
from tests.support.processes import running
from tests.support.waiting import until

READER = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as client:
    client.sendall(b"GET /api/sse?client_id=far HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
    while piece := client.recv(65536):
        print(piece.decode(), flush=True)
"""


@pytest.mark.parametrize(("streams", "ending"), [("slim", "stalled"), ("plain", "client")])
async def test_a_client_whose_network_is_gone_is_cut_off_after_the_write_timeout(
    tmp_path: Path, streams: str, ending: str
) -> None:
    """Within ASGI nobody is told why a connection is lost."""
    async with network("far") as net, nats_server(tmp_path) as nats:
        settings: dict[str, Any] = {"host": net.address, "auth": "open", "heartbeat_seconds": 0.5, "streams": streams}
        settings["write_timeout_seconds"] = 1
        async with running_gateway(nats.url, **settings) as running_one:
            port = running_one.url.rpartition(":")[2]
            hub = running_one.gateway.hub
            async with running(*net.command("far"), sys.executable, "-c", READER, net.address, port) as reader:
                await until(lambda: reader.said("event: connected"), "the client is connected")
                await net.unplug("far")
                await until(lambda: not hub.sessions, "the gateway has found out", 15)
                assert hub.ended[ending] == 1


async def test_a_client_that_only_listens_is_not_cut_off(tmp_path: Path) -> None:
    async with network("far") as net, nats_server(tmp_path) as nats:
        settings = {"host": net.address, "auth": "open", "heartbeat_seconds": 0.5, "write_timeout_seconds": 1}
        async with running_gateway(nats.url, **settings) as running_one:
            port = running_one.url.rpartition(":")[2]
            async with running(*net.command("far"), sys.executable, "-c", READER, net.address, port) as reader:
                await until(
                    lambda: sum(line == ": heartbeat" for line in reader.output) >= 6, "three seconds of it", 15
                )
                assert len(running_one.gateway.hub.sessions) == 1
