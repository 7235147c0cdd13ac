"""The one table from Tidegate's errors, and a job's, to OpenAI's: `{"error": {message, type, param, code}}`."""

from __future__ import annotations

import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import Response

from tidegate_common import errors
from tidegate_common.contract.answers import AiError
from tidegate_common.runtime.problems import challenge
from tidegate_common.telemetry.masking import masked

INVALID = "invalid_request_error"
SERVER = "server_error"
OVERLOADED = "overloaded"

NOT_AGAIN = {"x-should-retry": "false"}
"""OpenAI's clients repeat a request that got 409 or 5xx, which would be another job to pay for, unless told this."""


class ApiError(errors.TidegateError):
    """An answer to the caller: OpenAI's fields, and `status` if the head is not sent yet."""

    def __init__(
        self,
        status: int,
        message: str,
        kind: str = INVALID,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        self.status = status
        self.kind = kind
        self.param = param and masked(param)
        self.code = code
        self.headers = headers or {}
        super().__init__(masked(message))  # it may tell back what the caller sent

    def body(self) -> bytes:
        """The JSON that OpenAI's clients read, as a whole answer or as an event of a stream."""
        error = {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}
        return msgspec.json.encode({"error": error})

    def response(self) -> Response:
        return Response(self.body(), self.status, self.headers, media_type="application/json")


def unsupported(param: str, why: str) -> ApiError:
    """A parameter that OpenAI has and this front does not."""
    return ApiError(400, f"{param}: {why}", param=param, code="unsupported_parameter")


# The first class that fits decides: (class, status, type, code).
TABLE: list[tuple[type[errors.TidegateError], int, str, str | None]] = [
    (errors.InvalidBody, 400, INVALID, "invalid_body"),
    (errors.KeyReused, 422, INVALID, "idempotency_key_reused"),
    (errors.InvalidField, 400, INVALID, "invalid_value"),
    (errors.InvalidHost, 400, INVALID, "invalid_host"),
    (errors.WrongHost, 421, INVALID, "wrong_host"),
    (errors.InvalidCredentials, 400, INVALID, "invalid_credentials"),
    (errors.Unauthenticated, 401, INVALID, "invalid_api_key"),
    (errors.Forbidden, 403, INVALID, "forbidden"),
    (errors.BudgetSpent, 429, "insufficient_quota", "insufficient_quota"),
    (errors.Limited, 429, "rate_limit_error", "rate_limit_exceeded"),
    (errors.NotFound, 404, INVALID, "not_found"),
    (errors.TooLarge, 413, INVALID, "too_large"),
    (errors.UnsupportedMedia, 415, INVALID, "unsupported_media_type"),
    (errors.UnsupportedCoding, 415, INVALID, "unsupported_content_encoding"),
    (errors.TooManyConnections, 503, OVERLOADED, "too_many_completions"),
    (errors.QueueFull, 503, OVERLOADED, "queue_full"),
    (errors.Unavailable, 503, SERVER, "unavailable"),
]

# By the code of `ai_error`: (status, type, code, param).
JOBS: dict[str, tuple[int, str, str, str | None]] = {
    "prompt_too_long": (400, INVALID, "context_length_exceeded", "messages"),
    "model_not_found": (404, INVALID, "model_not_found", "model"),
    "invalid_params": (400, INVALID, "invalid_params", None),
    "timeout": (504, SERVER, "timeout", None),
    "backend_error": (502, SERVER, "backend_error", None),
}


def api_error(error: Exception) -> ApiError:
    """`error` as OpenAI's clients are told of it."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, HTTPException):
        return ApiError(error.status_code, error.detail, headers=dict(error.headers or {}))
    for kind, status, type_, code in TABLE:
        if isinstance(error, kind):
            param = error.field if isinstance(error, errors.InvalidField) else None
            retry_after = getattr(error, "retry_after", None)
            headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
            if isinstance(error, errors.UnsupportedCoding):
                headers["Accept-Encoding"] = "identity"
            if isinstance(error, errors.Unauthenticated):
                headers["WWW-Authenticate"] = challenge(error)
            if isinstance(error, errors.BudgetSpent):  # until the next day no try is of use
                headers |= NOT_AGAIN
            return ApiError(status, str(error), type_, param=param, code=code, headers=headers)
    return ApiError(500, "Internal error", SERVER, code="internal_error", headers=NOT_AGAIN)


def no_such_model(name: str) -> ApiError:
    """A model that there is not, or that the caller may not use: nobody is told which of the two."""
    return ApiError(404, f"The model {name} is not known here.", param="model", code="model_not_found")


def job_failed(error: AiError) -> ApiError:
    """A job's own end with an error."""
    status, kind, code, param = JOBS.get(error.code, (500, SERVER, error.code, None))
    return ApiError(status, error.message, kind, param=param, code=code, headers=NOT_AGAIN)


def job_cancelled() -> ApiError:
    """The job was cancelled by somebody else than this caller."""
    return ApiError(409, "The answer was cancelled.", SERVER, code="cancelled", headers=NOT_AGAIN)
