"""An event loop whose time passes only when there is nothing to do: what waits for seconds is over at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class SkippingLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        selector: Any = self._selector  # type: ignore[attr-defined]
        select = selector.select

        def skip(timeout: float | None = None) -> Any:
            assert timeout is not None, "nothing is left that could ever happen"
            self._now += timeout
            return select(0)

        selector.select = skip

    def time(self) -> float:
        return self._now


@contextmanager
def skipping_loop() -> Iterator[SkippingLoop]:
    loop = SkippingLoop()
    try:
        yield loop
    finally:
        loop.close()
