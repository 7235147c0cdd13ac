"""What a principal's rights make of a job: whether it may be, and how many tokens it may use. No I/O."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from tidegate_common.contract.jobs import CHAT, MAX_CANDIDATES, NAMING_MODELS
from tidegate_common.contract.principal import JobRights, Principal
from tidegate_common.errors import InvalidField

BYTES_PER_TOKEN = 4
"""Of a prompt, to guess its tokens: English has about so many. What the guess is wrong by counts when the job ends."""


class Allowed(NamedTuple):
    """A job as it may be: its `params`, the most tokens of each of its answers, and what it may use in all."""

    params: dict[str, Any]
    max_tokens: int | None = None
    tokens: int = 0


def allowed(principal: Principal, kind: str, params: dict[str, Any]) -> Allowed:
    """Raises Forbidden, Unauthenticated, InvalidField."""
    model = params.get("model") if kind in NAMING_MODELS else None
    rights = principal.check_job(kind, model if isinstance(model, str) else None)
    if rights.models is not None and model is None and kind in NAMING_MODELS:
        # The worker's own model may be another one.
        raise InvalidField("model", f"one of those that you may use: {', '.join(rights.models) or 'none'}")
    if rights.max_tokens is None:
        return Allowed(params, None, _estimate(kind, params))
    return _limited(principal, rights, rights.max_tokens, kind, params)


def _limited(principal: Principal, rights: JobRights, most: int, kind: str, params: dict[str, Any]) -> Allowed:
    """`most` holds for each answer. It is sent with a chat that names no limit: workers of other releases know that
    alone."""
    if kind == CHAT:
        wanted = params.get("max_tokens")
        if wanted is None:
            params = {**params, "max_tokens": most}
        elif _is_number(wanted) and wanted > most:
            raise principal.refuse(f"jobs max_tokens {wanted:g}")
        elif _is_number(wanted) and wanted >= 1:  # a lower one, or none (NaN), would reserve too little
            most = int(wanted)
    return Allowed(params, rights.max_tokens, _estimate(kind, params) + most * _candidates(kind, params))


def _estimate(kind: str, params: dict[str, Any]) -> int:
    """Tokens of a prompt, by its length."""
    asked = params.get("messages", params) if kind == CHAT else params
    return len(msgspec.json.encode(asked)) // BYTES_PER_TOKEN + 1


def _candidates(kind: str, params: dict[str, Any]) -> int:
    """How many answers a job is to have. A number that no worker takes is the most, since nobody is to gain by it."""
    wanted = params.get("n", 1) if kind == CHAT else 1
    return int(wanted) if _is_number(wanted) and 1 <= wanted <= MAX_CANDIDATES else MAX_CANDIDATES


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
