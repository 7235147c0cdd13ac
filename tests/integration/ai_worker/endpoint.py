"""A server that speaks OpenAI's chat completions on a real socket; the prompt says how it behaves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.support.ports import free_port
from tests.support.waiting import until

MODEL = "endpoint-1"
GOOD = {"prompt_tokens": 7, "completion_tokens": 1, "total_tokens": 8}
"""What was used up to the first word."""


REFUSALS: dict[str, tuple[int, Any]] = {
    "no such model at openai": (404, {"error": {"message": "No.", "type": "x", "code": "model_not_found"}}),
    "no such model at vllm": (404, {"object": "error", "message": "The model `m` does not exist.", "code": 404}),
    "no such model at ollama": (404, {"error": {"message": 'model "m" not found, try pulling it first'}}),
    "no such path": (404, {"detail": "Not Found"}),
    "too long at vllm": (
        400,
        {
            "object": "error",
            "message": "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens",
            "type": "BadRequestError",
            "param": None,
            "code": 400,
        },
    ),
    "a bad value": (400, {"error": {"message": "secret: not 7", "param": "temperature", "code": "invalid_value"}}),
    "a bad request": (422, {"detail": [{"msg": "secret"}]}),
}


def at_openai(name: str) -> tuple[Any, int]:
    """How OpenAI's reasoning models refuse `max_tokens`."""
    message = f"Unsupported parameter: '{name}' is not supported with this model. Use 'max_completion_tokens' instead."
    error = {"message": message, "type": "invalid_request_error", "param": name, "code": "unsupported_parameter"}
    return {"error": error}, 400


def at_mistral(name: str) -> tuple[Any, int]:
    """How Mistral refuses a parameter that it does not have."""
    detail = [{"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs are not permitted", "input": 9}]
    return {"object": "error", "message": {"detail": detail}, "type": "invalid_request_error", "code": None}, 422


def at_fastapi(name: str) -> tuple[Any, int]:
    """How a server of one's own does, with no more than its framework's check."""
    return {
        "detail": [{"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs are not permitted"}]
    }, 422


def too_large(name: str) -> tuple[Any, int]:
    """The name is right, and the number is not."""
    message = f"{name} is too large: 9. This model supports at most 8 completion tokens."
    return {"error": {"message": message, "type": "invalid_request_error", "param": name, "code": None}}, 400


class Endpoint:
    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.times: list[float] = []
        self.refuses: set[str] = set()
        """Names of parameters that are refused, as `refusal` says it."""
        self.refusal: Callable[[str], tuple[Any, int]] = at_openai
        self.script: list[bytes] = []
        """What the prompt "scripted" is answered with: the data of each event, whatever it may be."""
        self.disconnected = asyncio.Event()

    async def models(self, _: Request) -> Response:
        return JSONResponse(
            {"object": "list", "data": [{"id": MODEL, "object": "model", "created": 1, "owned_by": "t"}]}
        )

    async def chat(self, request: Request) -> Response:
        body = await request.json()
        self.asked.append(body)
        self.keys.append(request.headers.get("authorization"))
        refused = self.refuses & body.keys()
        if refused:
            return JSONResponse(*self.refusal(min(refused)))
        prompt = body["messages"][-1]["content"]
        if prompt == "status 400":
            return JSONResponse({"error": {"message": "no", "code": "context_length_exceeded", "type": "x"}}, 400)
        if prompt in ("status 401", "status 403"):
            return JSONResponse({"error": {"message": "secret-key is wrong", "code": "x"}}, int(prompt[7:]))
        if prompt in REFUSALS:
            status, error = REFUSALS[prompt]
            return JSONResponse(error, status)
        self.times.append(asyncio.get_running_loop().time())
        if prompt == "busy once" and len(self.asked) == 1:
            return JSONResponse({"error": {"message": "later"}}, 503, {"retry-after-ms": "1"})
        if prompt == "too many" and len(self.asked) == 1:
            return JSONResponse({"error": {"message": "slower"}}, 429, {"retry-after": "1"})
        if prompt == "always busy":
            return JSONResponse({"error": {"message": "later"}}, 503, {"retry-after-ms": "1"})
        if prompt == "silent" or prompt.startswith("at first: "):
            return StreamingResponse(self._trouble(prompt, len(self.asked)), media_type="text/event-stream")
        if prompt == "limit in the stream":
            told = json.dumps(at_openai("max_tokens")[0] if "max_tokens" in body else {}).encode()
            self.script = [told] if "max_tokens" in body else [chunk({"content": "a"}), chunk({}, "stop")]
        if prompt in ("scripted", "limit in the stream"):
            return StreamingResponse(self._scripted(), media_type="text/event-stream")
        if prompt == "two":
            return StreamingResponse(self._two(), media_type="text/event-stream")
        return StreamingResponse(self._answer(prompt), media_type="text/event-stream")

    async def _scripted(self) -> AsyncIterator[bytes]:
        for data in self.script:
            yield b"data: " + data + b"\n\n"
        yield b"data: [DONE]\n\n"

    async def _two(self) -> AsyncIterator[bytes]:
        yield _chunk({"content": "a"})
        yield _chunk({"content": "x"}, index=1)
        yield _chunk({"content": "b"})
        yield _chunk({}, finish_reason="length", index=1)
        yield _chunk({}, finish_reason="stop")
        yield b"data: [DONE]\n\n"

    async def _trouble(self, prompt: str, number: int) -> AsyncIterator[bytes]:
        """What may happen between a 200 and the first piece."""
        yield _chunk({"role": "assistant", "content": ""})
        if prompt == "silent":
            await asyncio.sleep(60)
        if number > 1:
            async for chunk in self._answer("hello"):
                yield chunk
        elif prompt == "at first: cut":
            raise ConnectionAbortedError
        elif prompt == "at first: error":
            yield b'data: {"error": {"message": "overloaded", "code": 503}}\n\n'
        elif prompt == "at first: its own fault":
            yield b'data: {"error": {"message": "This model\'s maximum context length is 9", "code": 400}}\n\n'

    async def _answer(self, prompt: str) -> AsyncIterator[bytes]:
        try:
            yield _chunk({"role": "assistant", "content": ""})
            yield _chunk({"reasoning_content": "hm"})
            yield _chunk({"reasoning": "ah"})
            yield _chunk({"content": "Good "}, usage=GOOD if prompt == "counted" else None)
            if prompt == "cut":
                raise ConnectionAbortedError
            while prompt == "endless":
                yield _chunk({"content": "x"})
                await asyncio.sleep(0.01)
            yield _chunk({"content": "day"})
            if prompt == "no end":
                return
            yield _chunk({}, finish_reason="stop")
            if prompt != "uncounted":
                yield _chunk(None, usage={"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9})
            yield b"data: [DONE]\n\n"
        except (asyncio.CancelledError, GeneratorExit):
            self.disconnected.set()
            raise


def chunk(delta: Any, finish_reason: Any = None, usage: Any = None, index: Any = 0) -> bytes:
    """The data of one event of an answer, without a choice where `delta` is None."""
    choices = [] if delta is None else [{"index": index, "delta": delta, "finish_reason": finish_reason}]
    found = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": choices}
    return json.dumps({**found, "usage": usage}).encode()


def _chunk(delta: dict[str, Any] | None, finish_reason: str | None = None, usage: Any = None, index: int = 0) -> bytes:
    return b"data: " + chunk(delta, finish_reason, usage, index) + b"\n\n"


@asynccontextmanager
async def endpoint() -> AsyncIterator[Endpoint]:
    """The server, on a free port; `url` is what OPENAI_BASE_URL would be."""
    port = free_port()
    found = Endpoint(f"http://127.0.0.1:{port}/v1")
    app = Starlette(
        routes=[
            Route("/v1/models", found.models),
            Route("/v1/chat/completions", found.chat, methods=["POST"]),
        ]
    )
    config = uvicorn.Config(
        app, host="127.0.0.1", port=port, log_config=None, lifespan="off", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started, "the endpoint listens")
    try:
        yield found
    finally:
        server.should_exit = True
        await serving
