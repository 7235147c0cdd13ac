"""A disk of a few megabytes, in memory. Needs root."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest


@asynccontextmanager
async def small_disk(where: Path, megabytes: int) -> AsyncIterator[Path]:
    """`where`, mounted with so much room; skips the test where it can't be."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        if os.environ.get("TIDEGATE_REQUIRE_ALL"):
            raise AssertionError("a disk of the test's own needs root")
        pytest.skip("a disk of the test's own needs root")
    where.mkdir()
    await _run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(where))
    try:
        yield where
    finally:
        await _run("umount", str(where))


async def _run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(*command)
    assert await process.wait() == 0, command
