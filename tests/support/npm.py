"""npm packages for tests: pinned by content in tests/support/node, installed outside what git keeps."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("node")
CACHE = Path(__file__).parents[2] / ".data" / "node"


def needs(*programs: str) -> None:
    """Skips the test if one of `programs` is missing; with TIDEGATE_REQUIRE_ALL=1 that fails it."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing and os.environ.get("TIDEGATE_REQUIRE_ALL") == "1":
        pytest.fail(f"{missing[0]} is required")
    if missing:
        pytest.skip(f"{missing[0]} is not installed")


def installed(script: str) -> Path:
    """The folder with `script` of tests/support/node and all packages. Needs node and npm."""
    needs("node", "npm")
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:  # of other test processes, which want the same folder
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name in ("package.json", "package-lock.json", ".npmrc", script):
            _update(CACHE / name, (SOURCE / name).read_bytes())
        wanted, of = (SOURCE / "package-lock.json").read_bytes(), CACHE / "installed.json"
        if not of.exists() or of.read_bytes() != wanted:
            subprocess.run(["npm", "ci", "--ignore-scripts"], cwd=CACHE, check=True, capture_output=True, timeout=50)
            of.write_bytes(wanted)
    return CACHE


def _update(file: Path, content: bytes) -> None:
    """A file that is as it should be is not written: another test's program may be reading it."""
    if not file.exists() or file.read_bytes() != content:
        file.write_bytes(content)
