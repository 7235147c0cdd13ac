"""Waiting for a peer to listen."""

from __future__ import annotations

import asyncio

from tests.support.processes import Running
from tests.support.waiting import until


async def until_answering(port: int, run: Running, seconds: float = 20) -> None:
    """Returns when something accepts connections on `port`. Raises RuntimeError with what `run` said if it ended."""

    async def answers() -> bool:
        if run.process.returncode is not None:
            raise RuntimeError("ended at its start: " + " / ".join(run.output[-5:]))
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    await until(answers, f"port {port} answers", seconds)
