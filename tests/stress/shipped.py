"""The clients that Tidegate ships, as clients of the run: clients/python in this process, clients/js in one of Node's.

Both have one address, so that each stays with the gateway that it is given first, and both keep to `retry:`.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.stress.ledger import Ledger
from tests.stress.listener import Listener, Listening
from tests.stress.wire import Frame
from tidegate import State, connect

SCRIPT = Path(__file__).parent / "node" / "clients.mjs"

LINE_BYTES = 1 << 21
"""An event as a line: its data has quotes of its own."""


class PythonClient(Listener):
    """clients/python."""

    def __init__(self, name: str, listening: Listening, ledger: Ledger, port: Callable[[], int]) -> None:
        super().__init__(name, listening, ledger, port)
        self._task: asyncio.Task[None] | None = None
        self.token: Callable[[], str] | None = None

    def start(self) -> None:
        self.gateway_port = self.port()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            if not self._task.cancelled():
                self._task.result()

    async def _run(self) -> None:
        asked = self.listening
        async with connect(
            f"http://127.0.0.1:{self.gateway_port}/api/sse",
            client_id=self.name,
            user_id=asked.user_id,
            topics=asked.topics,
            token=self.token,
            on_state=self._is,
        ) as stream:
            async for event in stream:
                self.take(Frame(event.id or None, event.type, event.data))
        raise AssertionError(f"{self.name} has ended by itself: {stream.state}")

    def _is(self, state: State) -> None:
        if state.name == "connecting":
            self.coming()
        elif state.name != "open":
            self.gone()


class NodeClient(Listener):
    """clients/js, in the process that `node_clients` has started."""

    signed: dict[str, Any] | None = None
    """What its tokens are made of, where services want one."""

    def start(self) -> None:
        """The process has started it."""

    async def stop(self) -> None:
        """Its process ends it."""

    def told(self, kind: str, value: list[str | None]) -> None:
        """A line of the process: `event` (type, id, data) or `state` (its name, and why it has that)."""
        if kind == "event":
            event, event_id, data = value
            self.take(Frame(event_id, str(event), str(data)))
        elif value[0] == "connecting":
            self.coming()
        elif value[0] == "closed":
            raise AssertionError(f"{self.name} has ended by itself: {value[1]}")
        elif value[0] != "open":
            self.gone()


def has_node() -> bool:
    return shutil.which("node") is not None


@asynccontextmanager
async def node_clients(clients: list[NodeClient]) -> AsyncIterator[asyncio.Task[None]]:
    """Runs `clients` in one process. The task is done only where it broke."""
    wanted = []
    for client in clients:
        client.gateway_port = client.port()
        asked = client.listening
        options = {"clientId": client.name, "userId": asked.user_id, "topics": asked.topics}
        url = f"http://127.0.0.1:{client.gateway_port}/api/sse"
        wanted.append({"url": url, "options": options, "signed": client.signed})
    process = await asyncio.create_subprocess_exec(
        "node", str(SCRIPT), json.dumps(wanted), stdout=asyncio.subprocess.PIPE, limit=LINE_BYTES
    )
    assert process.stdout is not None
    reading = asyncio.create_task(_read(process.stdout, {client.name: client for client in clients}))
    try:
        yield reading
    finally:
        reading.cancel()
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _read(lines: asyncio.StreamReader, clients: dict[str, NodeClient]) -> None:
    async for line in lines:
        name, kind, *value = json.loads(line)
        clients[name].told(kind, value)
    raise AssertionError("the clients' process has ended by itself")
