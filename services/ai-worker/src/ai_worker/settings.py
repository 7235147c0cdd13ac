"""What the AI worker reads from its environment."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from msgspec import Meta

from tidegate_common.bus.jobs.dequeue import ACK_WAIT_SECONDS
from tidegate_common.bus.requests.roll import DOUBT_SECONDS
from tidegate_common.runtime.environment import AtLeastOne, CommonSettings, Count, Port, Positive, env

Seconds = Annotated[float, Meta(ge=0)]


class WorkerSettings(CommonSettings, frozen=True, kw_only=True):
    """The AI worker's settings; `port` is that of health and metrics."""

    port: Port = 8002
    ai_backend: Literal["auto", "openai", "local", "scripted"] = "auto"
    """`auto`: `openai` when its address or key is set, else `local` when installed, else `scripted`."""
    ai_model: str = ""
    """Model for jobs that name none; empty: the first that the backend offers."""
    openai_base_url: Annotated[str, env("OPENAI_BASE_URL")] = ""
    openai_api_key: Annotated[str, env("OPENAI_API_KEY", secret=True)] = ""
    ai_continue: Literal["none", "assistant", "prefix", "continue_final_message"] = "none"
    """How an endpoint (or the scripted model) goes on from the beginning of an answer, after a worker has died."""
    ai_retries: Count = 4
    """How often an endpoint that fails before its first piece is asked again."""
    ai_silence_seconds: Positive = 120
    """How long an endpoint may say nothing, before its first piece and between two."""
    ai_handlers: tuple[str, ...] = ()
    """Kinds of jobs beside the shipped ones: `kind=module:attribute`."""
    ai_concurrency: AtLeastOne = 4
    """Jobs that this process runs at once."""
    ai_max_prompt_chars: AtLeastOne = 16_000
    """Characters of all messages of a job together."""
    ai_max_tokens: AtLeastOne | None = None
    """The most tokens of an answer; a job may ask for less. None: as many as the job asks for, else as the backend
    gives."""
    ai_job_seconds: Positive = 600
    """Time limit of a job."""
    ai_ack_seconds: Positive = ACK_WAIT_SECONDS
    """A worker that shows no sign of life for so long loses its jobs to another. The same on all workers."""
    ai_coalesce_ms: Count = 10
    """Text of so many milliseconds goes into one event; 0: each piece by itself."""
    ai_coalesce_chars: AtLeastOne = 2_000
    """An event is sent sooner once so much text waits for it."""
    ai_patience_seconds: Positive = 30
    """How long a job goes on while NATS is away, before it is left to another worker."""
    ai_max_attempts: AtLeastOne = 4
    """Workers that may die over a job before it fails and is kept among the dead ones."""
    ai_doubt_seconds: Seconds = DOUBT_SECONDS
    """A gateway that fell silent without leaving counts as one that has a job's listeners for so long."""
    scripted_think_seconds: Seconds = 0.3
    scripted_token_seconds: Seconds = 0.02

    def faults(self) -> list[str]:
        found = super().faults()
        if self.openai_base_url and urlsplit(self.openai_base_url).scheme not in ("http", "https"):
            found.append("OPENAI_BASE_URL: an http or https address, such as https://api.openai.com/v1")
        if self.ai_backend == "openai" and not (self.openai_base_url or self.openai_api_key):
            found.append("TIDEGATE_AI_BACKEND: openai needs OPENAI_BASE_URL or OPENAI_API_KEY")
        return found
