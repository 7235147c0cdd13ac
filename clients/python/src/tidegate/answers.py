"""What an answer is, before it is read as a stream."""

from __future__ import annotations

import asyncio
import re

import httpx

PROBLEM_SECONDS = 5.0
LONGEST_PROBLEM = 65_536


async def beginning(response: httpx.Response) -> bytes:
    """The body if it may tell the problem, as much of it as comes: what the head says counts without it too."""
    body = bytearray()
    try:
        if response.status_code not in (200, 204):
            async with asyncio.timeout(PROBLEM_SECONDS):
                async for piece in response.aiter_bytes():
                    body += piece
                    if len(body) >= LONGEST_PROBLEM:
                        break
    except (TimeoutError, httpx.RequestError, httpx.StreamError):
        pass
    finally:
        await response.aclose()
    return bytes(body)


def is_stream(response: httpx.Response) -> bool:
    """Whether the answer is an event stream, by its status and its media type without parameters."""
    kind: str = response.headers.get("Content-Type", "")
    return response.status_code == 200 and re.split("[;,]", kind)[0].strip().lower() == "text/event-stream"
