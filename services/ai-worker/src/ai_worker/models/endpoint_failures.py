"""Why an endpoint gave no answer: whose fault it is, and whether, and when, it may be asked again."""

from __future__ import annotations

import math
import random
import re
import time
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2
from openai import APIError, APIStatusError, APITimeoutError

from ai_worker.job_errors import BackendFailed, InvalidParams, JobError, ModelNotFound, PromptTooLong
from ai_worker.models.values import count, word

CONTEXT_CODES = {"context_length_exceeded", "exceed_context_size_error"}
MODEL_CODE = "model_not_found"

LONGEST_WAIT = 120.0
"""An endpoint that asks for more patience is not asked again."""

BACK_OFF = (0.5, 8.0)
"""If it does not say when: seconds before the second try, which double, and the most of them."""

MOST_SEARCHED = 10_000
"""Characters of an endpoint's words."""

_UNKNOWN = re.compile(
    r"(unsupported|unknown|unrecognized|unexpected)[_ ](parameter|field|argument|request argument|keyword)"
    r"|extra[_ ](forbidden|inputs|fields)|not (supported|permitted|allowed)",
    re.IGNORECASE,
)
_CONTEXT = re.compile(r"context (length|size|window)|maximum context", re.IGNORECASE)
_MODEL = re.compile(r"\bmodel\b", re.IGNORECASE)
_TRY_AGAIN = {408, 409, 429}


class BrokenStream(Exception):
    """The stream of an answer ended without its end."""


class UnreadableStream(Exception):
    """The stream of an answer holds what is no chunk of one: the question was taken all the same, and is paid."""


def failure(error: Exception, model: str) -> JobError:
    """What the asker of a job is told of `error`: never in the endpoint's words, which may name what is inside."""
    status, told = _said(error)
    words, text = {str(told.get("code")), str(told.get("type"))}, str(told.get("message"))
    wrong = status in (400, 413, 422)
    if words & CONTEXT_CODES or (wrong and _CONTEXT.search(text)):
        return PromptTooLong("it does not fit into the model's context")
    if MODEL_CODE in words or (status == 404 and _MODEL.search(text)):
        return ModelNotFound(model)
    if wrong:
        param = told.get("param")
        return InvalidParams(f"the model's backend does not take {word(param) or 'it'}")
    if status in (401, 403):
        return BackendFailed(f"The model's backend does not let this server in ({status}).")
    if isinstance(error, UnreadableStream):
        return BackendFailed("The model's answer could not be read.")
    if isinstance(error, BrokenStream):
        return BackendFailed("The model broke off in the middle of its answer.")
    if _said_nothing(error):
        return BackendFailed("The model said nothing for too long.")
    return BackendFailed()


def pause(error: Exception, number: int) -> float | None:
    """Seconds after which to ask again, for the `number`th time; None if that would not help, or be paid twice."""
    status, _ = _said(error)
    if (
        isinstance(error, UnreadableStream)
        or _said_nothing(error)
        or (400 <= status < 500 and status not in _TRY_AGAIN)
    ):
        return None
    told = _retry_after(error.response.headers) if isinstance(error, APIStatusError) else None
    if told:
        return told if told <= LONGEST_WAIT else None
    first, most = BACK_OFF
    return min(first * 2.0 ** (number - 1), most) * random.uniform(0.75, 1)


def refuses_name(error: Exception, name: str) -> bool:
    """Whether the endpoint does not know a parameter of that `name`, whatever its value."""
    status, told = _said(error)
    text = str(told)[:MOST_SEARCHED]
    return status in (0, 400, 422) and _UNKNOWN.search(text) is not None and re.search(rf"\b{name}\b", text) is not None


def _said(error: Exception) -> tuple[int, dict[str, Any]]:
    """Status and body of a refusal, which may come as an event of the stream, too; 0 if it was none."""
    if not isinstance(error, APIError):
        return 0, {}
    body: Any = error.body
    told = body if isinstance(body, dict) else {"message": body}
    if isinstance(error, APIStatusError):
        return error.status_code, told
    return count(told.get("code")), told


def _said_nothing(error: Exception) -> bool:
    """Whether it took the question and let the time pass: it may be at work on it."""
    cause = error.__cause__ if isinstance(error, APITimeoutError) else error
    return isinstance(cause, httpx2.ReadTimeout)


def _retry_after(headers: httpx2.Headers) -> float | None:
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) * unit
        except (KeyError, ValueError):
            continue
        return seconds if math.isfinite(seconds) and seconds > 0 else None
    try:
        return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time())
    except (KeyError, ValueError, OverflowError):
        return None
