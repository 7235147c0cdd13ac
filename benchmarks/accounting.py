"""What processes cost, from the operating system's own accounting (/proc)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")


def family(pid: int, proc: Path = PROC) -> list[int]:
    """`pid` and all processes below it; one that is gone has none."""
    found, todo = [], [pid]
    while todo:
        here = todo.pop()
        tasks = list((proc / str(here) / "task").glob("*/children"))
        if tasks:
            found.append(here)
        for children in tasks:
            todo += [int(child) for child in children.read_text().split()]
    return found


def cpu_seconds(pids: Iterable[int], proc: Path = PROC) -> float:
    """User and system time so far of all threads of `pids`, in steps of a tick (10 ms). Raises OSError for one gone."""
    return sum(stat_ticks((proc / str(pid) / "stat").read_text()) for pid in pids) / TICKS


def stat_ticks(stat: str) -> int:
    """utime + stime of a line of /proc/<pid>/stat (proc_pid_stat(5)); the name before them may hold anything."""
    fields = stat[stat.rindex(")") + 2 :].split()
    return int(fields[11]) + int(fields[12])


def resident_kib(pids: Iterable[int], proc: Path = PROC) -> int:
    """Memory of `pids` in RAM (KiB), pages shared between them counted once (Pss). Raises OSError for one gone."""
    return sum(rollup_kib((proc / str(pid) / "smaps_rollup").read_text()) for pid in pids)


def rollup_kib(rollup: str) -> int:
    """Pss of a /proc/<pid>/smaps_rollup. Raises ValueError where it has none."""
    found = re.search(r"^Pss:\s+(\d+) kB$", rollup, re.M)
    if found is None:
        raise ValueError("no Pss in smaps_rollup")
    return int(found[1])
