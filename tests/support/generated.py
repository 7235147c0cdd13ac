"""Generated input for tests that are coroutines."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from hypothesis import given, settings
from hypothesis.strategies import SearchStrategy, binary

T = TypeVar("T")


async def holds_for(values: SearchStrategy[T], check: Callable[[T], Awaitable[None]], examples: int = 50) -> None:
    """Awaits `check` on this event loop for each of `examples` values, one after another; a failing one is shrunk."""
    loop = asyncio.get_running_loop()

    @settings(max_examples=examples, deadline=None, database=None)
    @given(values)
    def run(value: T) -> None:
        asyncio.run_coroutine_threadsafe(_awaited(check(value)), loop).result()

    await asyncio.to_thread(run)


async def _awaited(work: Awaitable[None]) -> None:
    await work


def not_utf8() -> SearchStrategy[bytes]:
    """Bytes that no text has in UTF-8."""
    return binary(min_size=1, max_size=6).map(lambda raw: raw + b"\xf6").filter(_is_no_text)


def _is_no_text(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return True
    return False


def percent_encoded(raw: bytes) -> str:
    """Every byte of `raw`."""
    return "".join(f"%{byte:02X}" for byte in raw)
