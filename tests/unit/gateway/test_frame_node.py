"""The npm package eventsource-parser reads what frame.py writes."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.unit.gateway.test_frame import Event, expected, written

SOURCE = Path(__file__).parents[2] / "support" / "node"
CACHE = Path(__file__).parents[3] / ".data" / "node"
AWKWARD = ["", "a\rb", "a\nb", "a\r\nb", "\r\n\r", ":x", "  x", "\ufeffx", "a\0b", "\u2028", "é😀", "x" * 200_000]


def installed() -> Path:
    """The folder that the parser is installed in; the test is skipped where node is missing."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        if os.environ.get("TIDEGATE_REQUIRE_ALL") == "1":
            pytest.fail("node and npm are required")
        pytest.skip("node or npm is not installed")
    CACHE.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json", ".npmrc", "parse.js"):
        shutil.copy(SOURCE / name, CACHE / name)
    if not (CACHE / "node_modules" / "eventsource-parser").is_dir():
        subprocess.run(["npm", "ci"], cwd=CACHE, check=True, capture_output=True, timeout=50)
    return CACHE


def test_eventsource_parser_reads_the_same_events_wherever_the_stream_is_cut() -> None:
    events: list[Event] = [(b"%d" % n, b"note" if n % 2 else b"", text.encode()) for n, text in enumerate(AWKWARD)]
    text = written(events)
    streams = [[base64.b64encode(text[at : at + n]).decode() for at in range(0, len(text), n)] for n in (7, 4096)]
    done = subprocess.run(
        ["node", "parse.js"], cwd=installed(), input=json.dumps(streams), capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    assert [[tuple(one) for one in stream] for stream in json.loads(done.stdout)] == [expected(events)] * 2
