"""`python -m benchmarks [--only a,b] [--connections N] [--rounds N] [--peers a,b] [--against DIR]`: prints the table.

Exit codes: 0 every bar is met; 1 one is missed or could not be put to the test; 2 the command is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path

from benchmarks.comparison import compare, interpreter, told
from benchmarks.figures import UNKNOWN, Row, table
from benchmarks.options import Options
from benchmarks.rows import (
    broadcast,
    connections,
    growth,
    identity,
    overhead,
    overload,
    publishing,
    reconnect,
    targeted,
    tokens,
    workers,
)
from benchmarks.tools import compile_all

QUESTIONS: dict[str, Callable[[Options], Awaitable[list[Row]]]] = {
    "broadcast": broadcast.run,
    "connections": connections.run,
    "overload": overload.run,
    "targeted": targeted.run,
    "reconnect": reconnect.run,
    "publishing": publishing.run,
    "identity": identity.run,
    "profiles": publishing.profiles,
    "tokens": tokens.run,
    "overhead": overhead.run,
    "workers": workers.run,
    "growth": growth.run,
}


def parse(arguments: list[str] | None = None) -> tuple[list[str], Options, str]:
    """The questions to answer, how, and the interpreter of a checkout to compare with, if any.

    Exits with 2 for what can't be read.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--only", default=",".join(QUESTIONS), help=f"with commas: {', '.join(QUESTIONS)}")
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3, help="of interleaved comparisons; medians are shown")
    parser.add_argument("--churn", type=int, default=100_000, help="connects and disconnects in a row")
    parser.add_argument("--peers", default="", help="with commas; all that can be had unless given")
    parser.add_argument("--against", metavar="CHECKOUT", help="compares this one with another, which is set up")
    chosen = parser.parse_args(arguments)
    names = chosen.only.split(",")
    unknown = [name for name in names if name not in QUESTIONS]
    if unknown:
        parser.error(f"no such question: {', '.join(unknown)}; there are {', '.join(QUESTIONS)}")
    try:
        other = interpreter(Path(chosen.against)) if chosen.against else ""
    except FileNotFoundError as error:
        parser.error(str(error))
    peers = tuple(filter(None, chosen.peers.split(",")))
    options = Options(connections=chosen.connections, rounds=chosen.rounds, churn=chosen.churn, peers=peers)
    return names, options, other


async def answer(names: list[str], options: Options) -> list[Row]:
    """The rows of all questions; one that breaks is a row that says so."""
    rows: list[Row] = []
    for name in names:
        options.say(f"--- {name}")
        try:
            found = await QUESTIONS[name](options)
        except Exception as error:  # the minutes that the other questions took are not to be lost
            traceback.print_exc()
            found = [Row(name, f"broke: {error}".replace("\n", " "), UNKNOWN)]
        rows += found
        for row in found:
            options.say(f"{row.figure}: {row.measured} {row.verdict}")
    return rows


def machine_row(before: float) -> Row:
    """Whether others had the machine meanwhile: a latency says nothing then, and CPU a little less."""
    text = f"load average {before:.1f} → {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores"
    return Row("machine", text, how="the benchmark itself comes to 1 or 2")


def python_row() -> Row:
    """What runs all that is Python here, and how fast: builds of one version differ by half (PGO, a shared library)."""

    def turns() -> float:
        found, began = {}, time.process_time()
        for number in range(1_000_000):
            found[number & 255] = str(number)
        return time.process_time() - began

    text = (
        f"CPython {sys.version.split()[0]}; a turn of a plain loop takes {min(turns() for _ in range(5)) * 1000:.0f} ns"
    )
    return Row("interpreter", text, how="another one: make bench VENV=.venv-bench PYTHON=/usr/bin/python3")


def main() -> int:
    names, options, other = parse()
    python, load = python_row(), os.getloadavg()[0]
    options.say(python.measured)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        compile_all(options.build)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"the load client can't be built, a C compiler (cc) is needed: {error}", file=sys.stderr)
        return 2
    try:
        if other:
            pairs = asyncio.run(compare({name: QUESTIONS[name] for name in names}, options, other))
            print(f"{told(pairs)}\n\n{machine_row(load).measured}")
            return 0
        rows = asyncio.run(answer(names, options))
    finally:
        shutil.rmtree(options.scratch, ignore_errors=True)
    print(table([python, machine_row(load), *rows]))
    short = [row.figure for row in rows if row.short]
    print(f"\n{len(short)} bars missed: {'; '.join(short)}" if short else "\nevery bar is met")
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
