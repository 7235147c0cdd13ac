"""Why a job fails, as its asker is told.

TidegateError
└── JobError            `code` and a text for people: they are the `ai_error` event
    ├── UnknownKind     no handler for the job's kind
    ├── InvalidParams   the handler can't read the job's params
    ├── PromptTooLong   more than the settings or the model's context allow
    ├── BackendFailed   the model's backend is away, refused, or broke off
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


class PromptTooLong(JobError):
    code = "prompt_too_long"

    def __init__(self, limit: str) -> None:
        super().__init__(f"The prompt is too long: {limit}.")


class BackendFailed(JobError):
    """The cause, which only the log shows, is the exception that this one is raised from."""

    code = "backend_error"

    def __init__(self, message: str = "The model could not answer. Please try again later.") -> None:
        super().__init__(message)


class JobTimeout(JobError):
    code = "timeout"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"The answer took longer than {seconds:g} seconds.")


class TooManyAttempts(JobError):
    code = "too_many_attempts"

    def __init__(self) -> None:
        super().__init__("The answer could not be finished, although it was tried several times.")
