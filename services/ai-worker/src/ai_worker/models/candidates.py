"""Several candidates from a backend that gives one at a time: asked for as often, at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from msgspec.structs import replace

from ai_worker.models.model import ChatRequest
from ai_worker.pieces import CandidateEnd, Finish, Piece, Reasoning, Text, Used
from tidegate_common.contract.jobs import Usage
from tidegate_common.runtime.tasks import end

BACKLOG = 64

Stream = Callable[[ChatRequest], AsyncGenerator[Piece | Used]]


async def several(stream: Stream, request: ChatRequest) -> AsyncGenerator[Piece | Used]:
    """`request.n` answers of `stream`, mixed as they come, with their numbers. Raises what one of them raises.

    Each has a seed of its own, from the one that was asked for on: the same one would give the same answer.
    """
    waiting: asyncio.Queue[tuple[int, Piece | Used | Exception]] = asyncio.Queue(BACKLOG)

    async def one(number: int) -> None:
        seed = (request.seed or 0) + number if request.seed is not None or number else None
        try:
            async with aclosing(stream(replace(request, n=1, seed=seed))) as pieces:
                async for piece in pieces:
                    await waiting.put((number, piece))
        except Exception as error:
            await waiting.put((number, error))

    tasks = [asyncio.create_task(one(number)) for number in range(request.n)]
    ends: dict[int, Finish] = {}
    used: dict[int, Usage] = {}
    try:
        while len(ends) < request.n:
            number, piece = await waiting.get()
            if isinstance(piece, Exception):
                raise piece
            if isinstance(piece, Text | Reasoning):
                yield replace(piece, candidate=number)
            elif isinstance(piece, Used):
                used[number] = piece.usage
                yield Used(_sum(list(used.values())))
            elif isinstance(piece, Finish):
                ends[number] = piece
                yield CandidateEnd(piece.reason, number)
    finally:
        await end(tasks)
    yield Finish(ends[0].reason, _counted(list(ends.values())), ends[0].model)


def _counted(ends: list[Finish]) -> Usage | None:
    known = [each.usage for each in ends if each.usage is not None]
    return _sum(known) if len(known) == len(ends) else None


def _sum(usages: list[Usage]) -> Usage:
    """The prompt counts once, as OpenAI counts it."""
    return Usage(usages[0].prompt_tokens, sum(usage.completion_tokens for usage in usages))
