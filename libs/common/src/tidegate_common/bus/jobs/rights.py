"""What a principal's rights make of a job: whether it may be, and how many tokens it may use. No I/O."""

from __future__ import annotations

from typing import Any, TypeGuard

import msgspec

from tidegate_common.contract.budget import Tokens
from tidegate_common.contract.jobs import CHAT, MAX_CANDIDATES, NAMING_MODELS, TRANSFORM, Job, passage_characters
from tidegate_common.contract.principal import JobRights, Principal
from tidegate_common.errors import InvalidField

BYTES_PER_TOKEN = 4
"""Of a prompt, to guess its tokens: English has about so many. What the guess is wrong by counts when the job ends."""


def allowed(principal: Principal, kind: str, params: dict[str, Any]) -> tuple[dict[str, Any], JobRights]:
    """The `params` with which `principal` may have a job of `kind`, and the rights that it has then.

    Raises Forbidden, Unauthenticated, InvalidField.
    """
    model = params.get("model")
    rights = principal.check_job(kind, model if isinstance(model, str) else None)
    if rights.models is not None and model is None and kind in NAMING_MODELS:
        # The worker's own model may be another one.
        raise InvalidField("model", f"one of those that you may use: {', '.join(rights.models) or 'none'}")
    if rights.max_tokens is not None and kind == CHAT:
        wanted = params.get("max_tokens")
        if wanted is None:
            # The job's own limit holds all the same. Workers of other releases know this one alone.
            params = {**params, "max_tokens": rights.max_tokens}
        elif _is_number(wanted) and wanted > rights.max_tokens:
            raise principal.refuse(f"jobs max_tokens {wanted:g}")
    return params, rights


def tokens_of(job: Job) -> Tokens:
    """How many tokens `job` may use. A kind that is not known here has one answer."""
    most = job.max_tokens or 0
    if job.kind == CHAT:
        wanted = job.params.get("max_tokens")
        if most and _is_number(wanted) and 1 <= wanted < most:  # NaN is in no range
            most = int(wanted)
        return Tokens(_guess(job.params.get("messages")), most * _candidates(job.params.get("n", 1)))
    if job.kind == TRANSFORM:
        # As many passages as there can be, and the instruction with each.
        passages = len(str(job.params.get("text"))) // (passage_characters(most or None) // 4) + 1
        again = (passages - 1) * _guess(job.params.get("instruction"))
        return Tokens(_guess(job.params) + again, most * passages)
    return Tokens(_guess(job.params), most)


def _guess(prompt: Any) -> int:
    """The tokens of a prompt, by its length."""
    return len(msgspec.json.encode(prompt)) // BYTES_PER_TOKEN + 1


def _candidates(wanted: Any) -> int:
    """How many answers are meant. What no worker takes counts as the most: nobody is to gain by it."""
    return int(wanted) if _is_number(wanted) and 1 <= wanted <= MAX_CANDIDATES else MAX_CANDIDATES


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
