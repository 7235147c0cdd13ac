"""Under which name an endpoint takes the limit of an answer.

Ollama passes the newer name over in silence, Mistral refuses it, and OpenAI's reasoning models refuse the older one. So
the older one is sent first, and the newer one to a model that has refused it.
"""

from __future__ import annotations

MAX_TOKENS = "max_tokens"
MAX_COMPLETION_TOKENS = "max_completion_tokens"

OTHER = {MAX_TOKENS: MAX_COMPLETION_TOKENS, MAX_COMPLETION_TOKENS: MAX_TOKENS}

MOST_KEPT = 1_000
"""Models of which it is remembered: their names are the askers'."""


class LimitNames:
    """What was found out of each model."""

    def __init__(self) -> None:
        self._newer: dict[str, None] = {}
        """Models that take the newer name, those that were found out last at the end."""

    def of(self, model: str) -> str:
        return MAX_COMPLETION_TOKENS if model in self._newer else MAX_TOKENS

    def keep(self, model: str, name: str) -> None:
        """The model has answered under `name`, and refuses the other one."""
        self._newer.pop(model, None)
        if name == MAX_COMPLETION_TOKENS:
            self._newer[model] = None
        if len(self._newer) > MOST_KEPT:
            del self._newer[next(iter(self._newer))]
