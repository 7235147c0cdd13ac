"""Tests on both event loops, and what a loop is told of that nobody else is."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop


def on_both_loops(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Runs `test` on uvloop, which services run on, and on asyncio's own: their transports refuse different things."""

    @functools.wraps(test)
    def run(loop: str, **arguments: Any) -> None:
        factory = uvloop.new_event_loop if loop == "uvloop" else asyncio.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(test(**arguments))

    signature = inspect.signature(test)
    loop = inspect.Parameter("loop", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    run.__signature__ = signature.replace(parameters=[loop, *signature.parameters.values()])  # type: ignore[attr-defined]
    both: Callable[..., None] = pytest.mark.parametrize("loop", ["uvloop", "asyncio"])(run)
    return both


class Quiet:
    """What was logged, and what the running loop was told of: exceptions that nobody retrieved are among it."""

    def __init__(self, caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> None:
        """Listens from now on, inside of the loop. Lines below `level` don't count."""
        caplog.set_level(logging.INFO)
        self._caplog = caplog
        self._level = level
        self._told: list[str] = []
        asyncio.get_running_loop().set_exception_handler(self._tell)

    def _tell(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._told.append(f"{context['message']}: {context.get('exception')!r}")

    def lines(self) -> list[str]:
        """All of it so far. What is garbage by now has been collected."""
        gc.collect()
        records = [record for record in self._caplog.records if record.levelno >= self._level]
        return self._told + [f"{record.name}: {record.getMessage()}" for record in records]
