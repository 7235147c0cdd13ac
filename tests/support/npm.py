"""npm packages for tests: pinned by content in tests/support/node, installed outside what git keeps."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("node")
CACHE = Path(__file__).parents[2] / ".data" / "node"


def installed(script: str) -> Path:
    """The folder with `script` of tests/support/node and all packages; the test is skipped where node is missing."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        if os.environ.get("TIDEGATE_REQUIRE_ALL") == "1":
            pytest.fail("node and npm are required")
        pytest.skip("node or npm is not installed")
    CACHE.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json", ".npmrc", script):
        shutil.copy(SOURCE / name, CACHE / name)
    lock, of = (SOURCE / "package-lock.json").read_bytes(), CACHE / "installed.json"
    if not of.exists() or of.read_bytes() != lock:
        subprocess.run(["npm", "ci", "--ignore-scripts"], cwd=CACHE, check=True, capture_output=True, timeout=50)
        of.write_bytes(lock)
    return CACHE
