"""What was asked for on the command line, and where the benchmark keeps its files."""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

BUILD = Path(__file__).with_name(".build")
"""Compiled programs and peers: kept between runs, ignored by git."""

_numbers = itertools.count()


@dataclass(frozen=True)
class Options:
    connections: int = 10_000
    rounds: int = 3
    churn: int = 100_000
    """Connects and disconnects, to see what stays of them."""
    peers: tuple[str, ...] = ()
    """Only these; empty for all."""
    python: str = sys.executable
    """What runs the services: another checkout's interpreter has that one's services."""
    build: Path = BUILD
    scratch: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="tidegate-bench-")))
    """Gone at the end."""

    def folder(self, name: str) -> Path:
        """A new folder that is gone at the end."""
        made = self.scratch / f"{next(_numbers)}-{name}"
        made.mkdir()
        return made

    def say(self, text: str) -> None:
        """How it goes, on standard error."""
        print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
