"""Runs a service and says where its event loop's thread was, by package: `python -m benchmarks.profiled`.

The module is named by PROFILED_MODULE. Another thread looks each few milliseconds where processor time went; what C
code did counts for the Python function that called it. At the end one line of JSON is printed: the share of each
package, and of the functions that took most.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import FrameType

PERIOD = 0.002
IDLE = {"run", "run_until_complete", "_run_once", "select"}
"""Where the thread is when the loop waits, or does what no Python function asked for."""
MOST = 12


def place(frame: FrameType) -> tuple[str, str]:
    """Package and function of a frame."""
    path = Path(frame.f_code.co_filename)
    parts = path.parts
    for mark in ("site-packages", "src", f"python3.{sys.version_info[1]}"):
        if mark in parts:
            rest = parts[len(parts) - parts[::-1].index(mark) :]
            return rest[0].removesuffix(".py"), f"{'.'.join(rest).removesuffix('.py')}:{frame.f_code.co_name}"
    return "other", f"{path.name}:{frame.f_code.co_name}"


def watch(thread: int, seen: Counter[tuple[str, str]], done: threading.Event) -> None:
    """Adds the nanoseconds of processor time to where `thread` is, from its first turn of a loop until `done`."""
    looping, spent = False, time.process_time_ns()
    while not done.wait(PERIOD):
        before, spent = spent, time.process_time_ns()
        frame = sys._current_frames().get(thread)
        if frame is not None:
            in_loop = frame.f_code.co_name in IDLE
            looping = looping or in_loop
            if looping:
                package, function = place(frame)
                seen["event loop, system calls" if in_loop else package, function] += spent - before


def summary(seen: Counter[tuple[str, str]]) -> str:
    """JSON: `packages` and `functions`, each a list of name and share, the largest first."""
    total = max(1, seen.total())
    packages: Counter[str] = Counter()
    for (package, _), count in seen.items():
        packages[package] += count
    functions = Counter({function: count for (_, function), count in seen.items()})
    return json.dumps(
        {
            "packages": [(name, count / total) for name, count in packages.most_common(MOST)],
            "functions": [(name, count / total) for name, count in functions.most_common(MOST)],
        }
    )


if __name__ == "__main__":
    places: Counter[tuple[str, str]] = Counter()
    finished = threading.Event()
    module = os.environ["PROFILED_MODULE"]
    sys.setswitchinterval(0.0005)
    threading.Thread(target=watch, args=(threading.get_ident(), places, finished), daemon=True).start()
    try:
        runpy.run_module(module, run_name="__main__")
    finally:
        finished.set()
        print(f"PROFILE {summary(places)}", flush=True)
