"""The npm package eventsource-parser reads what frame.py writes."""

from __future__ import annotations

import base64
import json
import subprocess

from tests.support.npm import installed
from tests.unit.gateway.test_frame import Event, expected, written

AWKWARD = ["", "a\rb", "a\nb", "a\r\nb", "\r\n\r", ":x", "  x", "\ufeffx", "a\0b", "\u2028", "é😀", "x" * 200_000]


def test_eventsource_parser_reads_the_same_events_wherever_the_stream_is_cut() -> None:
    events: list[Event] = [(b"%d" % n, b"note" if n % 2 else b"", text.encode()) for n, text in enumerate(AWKWARD)]
    text = written(events)
    streams = [[base64.b64encode(text[at : at + n]).decode() for at in range(0, len(text), n)] for n in (7, 4096)]
    command, folder = ["node", "parse.js"], installed("parse.js")
    done = subprocess.run(command, cwd=folder, input=json.dumps(streams), capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert [[tuple(one) for one in stream] for stream in json.loads(done.stdout)] == [expected(events)] * 2
