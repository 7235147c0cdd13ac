"""Asking a function of the caller's, for what an attempt needs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

PASSING = (408, 425, 429)


class NotGiven(Exception):
    """The caller's function gave nothing this time; `__cause__` is what it raised."""


async def ask(function: Callable[[], Any], seconds: float, name: str) -> Any:
    """What `function` gives, at once or in `seconds`.

    Raises NotGiven if it may go better the next time, and whatever else it raises.
    """
    try:
        made = function()
        async with asyncio.timeout(seconds):
            return await made if isinstance(made, Awaitable) else made
    except (TimeoutError, httpx.RequestError) as error:
        raise _failed(name, error) from error
    except httpx.HTTPStatusError as error:
        if error.response.status_code < 500 and error.response.status_code not in PASSING:
            raise
        raise _failed(name, error) from error


def text(error: BaseException) -> str:
    """What `error` says; its kind if it says nothing."""
    return str(error) or type(error).__name__


def _failed(name: str, error: Exception) -> NotGiven:
    return NotGiven(f"{name}() failed: {text(error)}")
