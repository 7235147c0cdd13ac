"""Which kinds of jobs there are: those shipped here, installed ones, and those that a setting names."""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points

from ai_worker.handlers.chat import Chat
from ai_worker.handlers.handler import Handler, Handlers
from ai_worker.handlers.image import image
from ai_worker.handlers.transcribe import ScriptedSource, Transcribe
from ai_worker.handlers.transform import Transform
from ai_worker.models.traced import TracedModel
from ai_worker.settings import WorkerSettings
from tidegate_common.errors import ConfigError

GROUP = "tidegate.handlers"
"""Of the entry points by which an installed package adds kinds: the name is the kind."""

VARIABLE = "TIDEGATE_AI_HANDLERS"


def shipped(model: TracedModel, settings: WorkerSettings) -> dict[str, Handler]:
    """The kinds that every worker has."""
    source = ScriptedSource(settings.scripted_think_seconds)
    return {
        "chat": Chat(model, settings),
        "transform": Transform(model, settings),
        "image.progressive": image,
        "transcribe": Transcribe({"scripted": source}),
    }


def load_handlers(model: TracedModel, settings: WorkerSettings) -> Handlers:
    """All of them. Raises ConfigError, with a line for each that can't be had."""
    found: dict[str, Handler] = shipped(model, settings)
    faults: list[str] = []
    named = [(point.name, point.value, f"the entry point {point.name}") for point in entry_points(group=GROUP)]
    for text in settings.ai_handlers:
        kind, _, value = text.partition("=")
        named.append((kind.strip(), value.strip(), f"{VARIABLE}: {text}"))
    for kind, value, where in named:
        try:
            if kind in found:
                raise ValueError(f"there is a handler for the kind {kind} already")
            found[kind] = _load(kind, value)
        except (ImportError, AttributeError, ValueError) as error:
            faults.append(f"{where}: {error}")
    if faults:
        raise ConfigError(faults)
    return found


def _load(kind: str, value: str) -> Handler:
    module, _, attribute = value.partition(":")
    if not kind or not module or not attribute:
        raise ValueError("written as kind=module:attribute")
    found = getattr(importlib.import_module(module), attribute)
    if not callable(found):
        raise ValueError(f"{attribute} is no function that gives an async generator")
    handler: Handler = found
    return handler
