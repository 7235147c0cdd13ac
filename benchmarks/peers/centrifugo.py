"""Centrifugo with its unidirectional SSE transport, without history and pings."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import quote

import httpx

from benchmarks.options import Options
from benchmarks.peers.answering import until_answering
from benchmarks.peers.golang import Module, built
from benchmarks.server import Server
from tests.support.ports import free_port
from tests.support.processes import running

KEY = "a key that only this benchmark's own server knows"
SUBSCRIBE = quote(json.dumps({"subs": {"all": {}}}, separators=(",", ":")), safe="")

MODULE = Module("github.com/centrifugal/centrifugo/v5", "v5.4.9", "h1:XpCLOMoYZ6ly71eOPe1YK9qzXaEmRXdgqlr3Bv3WePA=")


@asynccontextmanager
async def centrifugo(options: Options) -> AsyncIterator[Server]:
    """One process. Raises NotHad."""
    program = built(options, "centrifugo", MODULE, ".")
    folder, port = options.folder("centrifugo"), free_port()
    settings = {
        "address": "127.0.0.1",
        "port": str(port),
        "api_key": KEY,
        "uni_sse": True,
        "allow_anonymous_connect_without_token": True,
        "allow_subscribe_for_client": True,
        "allow_subscribe_for_anonymous": True,
        "ping_interval": "3600s",
        "pong_timeout": "10s",
        "log_level": "error",
        "usage_stats_disable": True,
    }
    written = folder / "config.json"
    written.write_text(json.dumps(settings))
    async with running(program, "--config", str(written), cwd=str(folder)) as run:
        await until_answering(port, run)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:

            async def publish(text: str) -> None:
                body = {"channel": "all", "data": {"text": text}}
                answer = await http.post("/api/publish", json=body, headers={"X-API-Key": KEY})
                answer.raise_for_status()

            path = f"/connection/uni_sse?cf_connect={SUBSCRIBE}"
            yield Server("Centrifugo", port, path, [run.process.pid], publish, "data: ")
