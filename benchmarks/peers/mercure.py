"""Mercure's stand-alone hub, without history and heartbeats."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from benchmarks.options import Options
from benchmarks.peers.answering import until_answering
from benchmarks.peers.golang import Module, built
from benchmarks.server import Server
from tests.support.ports import free_port
from tests.support.processes import running

KEY = "a key that only this benchmark's own hub knows"

MODULE = Module("github.com/dunglas/mercure", "v0.16.0", "h1:mCb0FC1AK7lLxb9cI4/rkjzQvCcpnFctgg1A7x4bSoM=")


def _token() -> str:
    """A JWT (HS256) that may publish everything."""

    def encoded(part: bytes) -> bytes:
        return base64.urlsafe_b64encode(part).rstrip(b"=")

    parts = ({"alg": "HS256", "typ": "JWT"}, {"mercure": {"publish": ["*"]}})
    signed = b".".join(encoded(json.dumps(part).encode()) for part in parts)
    return (signed + b"." + encoded(hmac.digest(KEY.encode(), signed, hashlib.sha256))).decode()


@asynccontextmanager
async def mercure(options: Options) -> AsyncIterator[Server]:
    """One process. Raises NotHad."""
    program = built(options, "mercure", MODULE, "./cmd/mercure")
    port = free_port()
    env = {
        "ADDR": f"127.0.0.1:{port}",
        "JWT_KEY": KEY,
        "ALLOW_ANONYMOUS": "1",
        "TRANSPORT_URL": "local://local",
        "HEARTBEAT_INTERVAL": "0s",
        "WRITE_TIMEOUT": "0s",
    }
    async with running(program, env=env, cwd=str(options.folder("mercure"))) as run:
        await until_answering(port, run)
        address = f"http://127.0.0.1:{port}/.well-known/mercure"
        async with httpx.AsyncClient(timeout=60, headers={"Authorization": f"Bearer {_token()}"}) as http:

            async def publish(text: str) -> None:
                answer = await http.post(address, data={"topic": "all", "type": "tick", "data": text})
                answer.raise_for_status()

            yield Server("Mercure", port, "/.well-known/mercure?topic=all", [run.process.pid], publish)
