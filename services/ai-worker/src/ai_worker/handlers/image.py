"""Jobs of the kind `image.progressive`: a picture that is rendered coarse first, then ever sharper.

It shows how such an answer travels. The picture is a part of the Mandelbrot set, really rendered at each resolution;
a diffusion model's previews would be yielded in the same way.
"""

from __future__ import annotations

import asyncio
import io
import random
from collections.abc import AsyncGenerator
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from PIL import Image

from ai_worker.handlers.handler import Work
from ai_worker.job_errors import InvalidParams
from ai_worker.pieces import Artifact, Finish, Piece, Progress

STEPS = (16, 8, 4, 2, 1)
"""The resolution of each step is the wanted one divided by this."""

QUALITY = 80
"""Of the encoding; of the rendering it is the number of iterations."""

Side = Annotated[int, Meta(ge=16, le=1024)]


class ImageParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`params` of a job of the kind `image.progressive`. The same seed gives the same picture."""

    width: Side = 512
    height: Side = 512
    seed: int = 0
    format: Literal["jpeg", "png", "webp"] = "jpeg"


async def image(work: Work, params: dict[str, Any]) -> AsyncGenerator[Piece]:
    """Each step is the whole picture: an artifact of the same name, which replaces the one before."""
    try:
        wanted = msgspec.convert(params, ImageParams)
    except msgspec.ValidationError as error:
        raise InvalidParams(str(error)) from error
    for number, divisor in enumerate(STEPS):
        # In a thread: the event loop has other jobs. A step is short enough to be waited for by a cancel.
        content = await asyncio.to_thread(render, wanted, divisor)
        final = number == len(STEPS) - 1
        yield Artifact(name="image", media_type=f"image/{wanted.format}", content=content, final=final)
        if not final:
            yield Progress((number + 1) / len(STEPS), f"1/{divisor} of the resolution")
    yield Finish("stop")


def render(wanted: ImageParams, divisor: int) -> bytes:
    """The picture at the wanted size, rendered at that divided by `divisor`."""
    size = (max(2, wanted.width // divisor), max(2, wanted.height // divisor))
    grey = Image.effect_mandelbrot(size, _extent(wanted), QUALITY)
    grey.putpalette([value for step in range(256) for value in _colour(step)])
    picture = grey.convert("RGB").resize((wanted.width, wanted.height), Image.Resampling.BICUBIC)
    written = io.BytesIO()
    picture.save(written, wanted.format.upper(), quality=QUALITY)
    return written.getvalue()


def _extent(wanted: ImageParams) -> tuple[float, float, float, float]:
    """A part of the plane, with the picture's proportions, at the edge of the set."""
    chosen = random.Random(wanted.seed)
    half = 0.4 * chosen.uniform(0.2, 1.0)
    x, y = chosen.choice([(-0.745, 0.113), (-0.16, 1.035), (-1.25, 0.02), (0.28, 0.53)])
    tall = half * wanted.height / wanted.width
    return x - half, y - tall, x + half, y + tall


def _colour(step: int) -> tuple[int, int, int]:
    """From deep water to foam."""
    return step * step // 255, min(255, step * 3 // 2), min(255, 60 + step)
