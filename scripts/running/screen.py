"""What is shown: lines prefixed by their part, coloured and shortened on a terminal."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from typing import IO

COLOURS = {"nats": 35, "publisher-api": 36, "ai-worker": 33, "gateway": 32}
NATS_LINE = re.compile(r"\[\d+\] \S+ (\d\d:\d\d:\d\d)\S* \[(\w+)\] (.*)")


class Screen:
    """Where lines go: prefixed by their part; coloured and shortened on a terminal."""

    def __init__(self, out: IO[str], *, terminal: bool) -> None:
        self._out = out
        self._terminal = terminal
        self._start = time.monotonic()

    def say(self, text: str = "") -> None:
        """One line of the runner's own."""
        try:
            print(text, file=self._out, flush=True)
        except OSError:  # the reader is gone (`make run | head`): nobody would see how to end it
            self._out = open(os.devnull, "w")  # noqa: SIM115
            signal.raise_signal(signal.SIGTERM)

    def status(self, part: str, state: str, text: str = "") -> None:
        self.say(f"{time.monotonic() - self._start:6.1f} s  {self._painted(part)}  {state:<8} {text}".rstrip())

    def log(self, part: str, line: str) -> None:
        """One line that a part wrote."""
        self.say(f"{self._painted(part)} | {compact(line) if self._terminal else line}")

    def _painted(self, part: str) -> str:
        text = f"{part:<13}"
        return f"\x1b[{COLOURS[part]}m{text}\x1b[0m" if self._terminal and "NO_COLOR" not in os.environ else text


def compact(line: str) -> str:
    """A JSON log line, or one of nats-server's, as `time LEVEL message`; any other line as it is."""
    nats = NATS_LINE.fullmatch(line)
    if nats:
        return f"{nats[1]} {nats[2]:<7} {nats[3]}"
    try:
        record = json.loads(line)
    except ValueError:
        return line
    if not isinstance(record, dict) or "message" not in record:
        return line
    clock = re.search(r"\d\d:\d\d:\d\d", str(record.get("timestamp", "")))
    text = f"{clock[0] if clock else '--:--:--'} {record.get('level', ''):<7} {record['message']}"
    return f"{text}\n{record['exc_info']}" if record.get("exc_info") else text


def serious(line: str) -> bool:
    """Whether a log line is a warning or worse: shown also while the parts are still starting."""
    nats = NATS_LINE.fullmatch(line)
    if nats:
        return nats[2] in ("WRN", "ERR", "FTL")
    try:
        record = json.loads(line)
    except ValueError:
        return False
    return isinstance(record, dict) and record.get("level") in ("WARNING", "ERROR", "CRITICAL")
