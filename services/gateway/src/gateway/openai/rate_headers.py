"""What is left of a limit, in OpenAI's headers."""

from __future__ import annotations

import math
from typing import Literal

RATE_HEADERS = [f"x-ratelimit-{what}-{of}" for what in ("limit", "remaining", "reset") for of in ("requests", "tokens")]
"""Their names, for pages of other origins to be let read them."""


def rate_headers(of: Literal["requests", "tokens"], limit: float, left: float, reset_seconds: float) -> dict[str, str]:
    """`limit` at most, of which there are so many `left`, and all of them after `reset_seconds`."""
    return {
        f"x-ratelimit-limit-{of}": f"{math.floor(limit)}",
        f"x-ratelimit-remaining-{of}": f"{math.floor(left)}",
        f"x-ratelimit-reset-{of}": duration(reset_seconds),
    }


def duration(seconds: float) -> str:
    """As OpenAI writes it: `20ms`, `1s`, `6m0s`, `23h59m1s`. Rounded up: nobody is to come too early."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    hours, rest = divmod(math.ceil(seconds), 3600)
    minutes, last = divmod(rest, 60)
    return f"{hours}h{minutes}m{last}s" if hours else f"{minutes}m{last}s" if minutes else f"{last}s"
