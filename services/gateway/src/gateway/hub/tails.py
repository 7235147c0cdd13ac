"""How a session says what it listens to: a tail, or within a tail one job's events alone.

A job's events go to whoever asked for it, once, with one id, however many watch the answer and on whichever stream: a
job's own stream picks them out of that tail. Within the gateway its tail is `<tail>#<job id>`; encoded tails hold no #.
"""

from __future__ import annotations

from tidegate_common.contract.filters import Filters


def filtered(tail: str, job_id: str) -> str:
    """What a session of the job's own stream listens to."""
    return f"{tail}#{job_id}"


def split(tail: str) -> tuple[str, str]:
    """The tail that events address, and the job whose events are wanted; empty if all are."""
    real, _, job_id = tail.partition("#")
    return real, job_id


def overlapping(tails: list[str]) -> bool:
    """Whether some event could match two of `tails`, which are all different."""
    if not any("*" in tail or ">" in tail for tail in tails):
        return False
    return Filters(tails).overlap()
