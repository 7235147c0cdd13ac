"""Which backend answers."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ai_worker.models import local
from ai_worker.models.local import LocalModel
from ai_worker.models.model import ChatModel
from ai_worker.models.scripted import ScriptedModel
from ai_worker.settings import WorkerSettings

log = logging.getLogger(__name__)


def choose(settings: WorkerSettings, local_obstacle: Callable[[], str] = local.obstacle) -> tuple[str, str]:
    """Name of the backend, and why it is that one; `local_obstacle` says what keeps the local one from being used."""
    if settings.ai_backend != "auto":
        return settings.ai_backend, "TIDEGATE_AI_BACKEND says so"
    if settings.openai_base_url:
        return "openai", "OPENAI_BASE_URL is set"
    if settings.openai_api_key:
        return "openai", "OPENAI_API_KEY is set"
    obstacle = local_obstacle()
    if not obstacle:
        return "local", "no endpoint is set and the local model is installed"
    return "scripted", f"no endpoint is set and the local model can't be used: {obstacle}"


def build(settings: WorkerSettings) -> ChatModel:
    """The backend that the settings ask for, not started yet."""
    name, reason = choose(settings)
    by_default = settings.ai_backend == "auto" and name == "scripted"
    log.log(logging.WARNING if by_default else logging.INFO, "answers come from the backend %s: %s", name, reason)
    if name == "openai":
        from ai_worker.models.openai import OpenAIModel  # half a second: no other backend loads OpenAI's client

        return OpenAIModel(
            settings.openai_base_url,
            settings.openai_api_key,
            settings.ai_model,
            continue_by=settings.ai_continue,
            retries=settings.ai_retries,
            silence_seconds=settings.ai_silence_seconds,
        )
    if name == "local":
        return LocalModel()
    continues = settings.ai_continue != "none"
    return ScriptedModel(settings.scripted_think_seconds, settings.scripted_token_seconds, continues)
