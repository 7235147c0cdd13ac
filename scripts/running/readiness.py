"""Whether a part is ready, and what it still waits for."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import Any

from scripts.running.plan import Fault, Part, in_url
from scripts.running.screen import Screen

NATS_SECONDS = 5.0


async def nats_answers(host: str, port: int) -> bool:
    """Whether a NATS server greets there."""
    try:
        async with asyncio.timeout(2):
            reader, writer = await asyncio.open_connection(host, port)
            greeting = await reader.readline()
            writer.close()
    except (OSError, TimeoutError, ValueError):
        return False
    return greeting.startswith(b"INFO ")


async def waiting_for(part: Part) -> str:
    """What `part` still waits for, in words; empty when it is ready."""
    if part.name == "nats":
        return "" if await nats_answers(part.host, part.port) else "starting"
    try:
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection(part.host, part.port)
            writer.write(b"GET /readyz HTTP/1.1\r\nHost: tidegate\r\nConnection: close\r\n\r\n")
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            writer.close()
    except (OSError, TimeoutError):
        return "starting"
    if head.split(b" ")[1:2] == [b"200"]:
        return ""
    with contextlib.suppress(ValueError, AttributeError, KeyError, TypeError):
        told: dict[str, Any] = json.loads(body)
        lacking = {**told["faults"], **told["dependencies"]}
        return ", ".join(str(text) for text in lacking.values())
    return "not ready"


async def until_ready(part: Part, seconds: float, screen: Screen) -> None:
    """Returns when `part` is ready, saying meanwhile what it waits for. Raises Fault after `seconds`."""
    deadline = time.monotonic() + seconds
    said = "starting"
    while reason := await waiting_for(part):
        if reason != said:
            screen.status(part.name, "waiting", reason)
            said = reason
        if time.monotonic() > deadline:
            text = f"{part.name} is not ready after {seconds:g} s ({reason})"
            raise Fault(f"{text}: set TIDEGATE_READY_SECONDS to wait longer")
        await asyncio.sleep(0.1)
    screen.status(part.name, "ready", part.address)


async def until_nats(servers: list[tuple[str, int]], screen: Screen) -> None:
    """Returns when one of `servers` answers. Raises Fault after NATS_SECONDS."""
    deadline = time.monotonic() + NATS_SECONDS
    shown = ", ".join(f"{in_url(host)}:{port}" for host, port in servers)
    screen.status("nats", "waiting", f"for {shown}")
    while not any([await nats_answers(host, port) for host, port in servers]):
        if time.monotonic() > deadline:
            text = f"no NATS server answers at {shown}: start one"
            raise Fault(f"{text}, correct TIDEGATE_NATS_URL, or unset it to have a server started here")
        await asyncio.sleep(0.2)
    screen.status("nats", "ready", shown)
