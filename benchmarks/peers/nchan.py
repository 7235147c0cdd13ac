"""Nchan, the nginx module, as Debian has it."""

from __future__ import annotations

import string
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from benchmarks.options import Options
from benchmarks.peers.answering import until_answering
from benchmarks.peers.debian import unpacked
from benchmarks.server import NotHad, Server
from tests.support.ports import free_port
from tests.support.processes import running

SPOOL = Path("/var/lib/nginx/body")
"""Compiled into the module; nchan_message_temp_path can't replace it ("directive is duplicate")."""
UNLIMITED = httpx.Limits(max_connections=None, max_keepalive_connections=None)
CONFIGURATION = string.Template(Path(__file__).with_name("nchan.conf").read_text())


@asynccontextmanager
async def nchan(options: Options) -> AsyncIterator[Server]:
    """nginx with one worker. Raises NotHad."""
    files = unpacked(options, "nginx-light", "libnginx-mod-nchan")
    try:
        SPOOL.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NotHad(f"Nchan needs the folder {SPOOL}: {error.strerror}") from None
    folder, port = options.folder("nchan"), free_port()
    module = files.path("usr/lib/nginx/modules/ngx_nchan_module.so")
    written = folder / "nginx.conf"
    written.write_text(CONFIGURATION.substitute(module=module, folder=folder, port=port))
    command = (files.path("usr/sbin/nginx"), "-p", str(folder), "-c", str(written), "-e", "stderr")
    async with running(*command, env=files.env()) as run:
        await until_answering(port, run)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=90, limits=UNLIMITED) as http:

            async def publish(text: str) -> None:
                (await http.post("/pub", content=text)).raise_for_status()

            yield Server("Nchan", port, "/sub", [run.process.pid], publish)
