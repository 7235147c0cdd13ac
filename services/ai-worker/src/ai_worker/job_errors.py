"""Why a job fails, as its asker is told.

TidegateError
└── JobError            `code` and a text for people: they are the `ai_error` event
    ├── UnknownKind     no handler for the job's kind
    ├── InvalidParams   the handler can't read the job's params
    ├── ModelNotFound   the backend has no model of that name
    ├── PromptTooLong   more than the settings or the model's context allow
    ├── BackendFailed   the model's backend is away, refused, or broke off
    ├── OutputTooLarge  a piece of the answer is over what one event may hold
    ├── JobTimeout      the job's time limit has passed
    └── TooManyAttempts workers kept dying over the job
"""

from __future__ import annotations

from tidegate_common.errors import TidegateError


class JobError(TidegateError):
    """Ends a job as failed; the text is shown to whoever asked, so it names no inner part of the system."""

    code = "internal_error"


class UnknownKind(JobError):
    code = "unknown_kind"

    def __init__(self) -> None:
        super().__init__("This kind of job is not known here.")


class InvalidParams(JobError):
    """`reason` says which parameter is wrong and what is allowed."""

    code = "invalid_params"

    def __init__(self, reason: str) -> None:
        super().__init__(f"The request can't be read: {reason}")


class ModelNotFound(JobError):
    code = "model_not_found"

    def __init__(self, model: str) -> None:
        super().__init__(f"The model {model} is not known here.")


class PromptTooLong(JobError):
    code = "prompt_too_long"

    def __init__(self, limit: str) -> None:
        super().__init__(f"The prompt is too long: {limit}.")


class BackendFailed(JobError):
    """The cause, which only the log shows, is the exception that this one is raised from."""

    code = "backend_error"

    def __init__(self, message: str = "The model could not answer. Please try again later.") -> None:
        super().__init__(message)


class OutputTooLarge(JobError):
    code = "output_too_large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"A piece of the answer is over the {limit} bytes that one event may hold.")


class JobTimeout(JobError):
    code = "timeout"

    def __init__(self, seconds: float | None) -> None:
        """`seconds` is the limit of one attempt; None if the job's own deadline has passed."""
        late = "was not ready by its deadline" if seconds is None else f"took longer than {seconds:g} seconds"
        super().__init__(f"The answer {late}.")


class TooManyAttempts(JobError):
    code = "too_many_attempts"

    def __init__(self) -> None:
        super().__init__("The answer could not be finished, although it was tried several times.")


RETRIABLE = frozenset({JobError.code, BackendFailed.code, JobTimeout.code, TooManyAttempts.code})
"""Codes of failures that are not the asker's fault: the same job may succeed when it is tried again."""
