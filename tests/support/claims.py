"""Numbers that one test process has for itself, among all that run on this machine: ports, networks."""

from __future__ import annotations

import fcntl
import os
import random
import tempfile
from collections.abc import Callable
from pathlib import Path


class Claims:
    """Numbers of a range. A number that was taken stays this process's own until it ends, even if it is killed."""

    def __init__(self, name: str, numbers: range) -> None:
        """All processes of this user that give the same `name` share the numbers."""
        self._path = Path(tempfile.gettempdir(), f"tidegate-tests-{os.getuid()}.{name}")
        self._numbers = numbers
        self._taken: set[int] = set()
        self._random = random.Random()
        """Its own: two runs of the stress program with the same seed would draw the same numbers."""
        self._file = -1

    def take(self, count: int = 1, fits: Callable[[int], bool] = lambda number: True) -> int:
        """The first of `count` numbers in a row that fit and that nobody has."""
        while True:
            numbers = range(first := self._random.choice(self._numbers), first + count)
            if self._taken.isdisjoint(numbers) and all(self._lock(number) and fits(number) for number in numbers):
                self._taken.update(numbers)
                return first

    def _lock(self, number: int) -> bool:
        """Whether the byte `number` of the file is ours; the kernel takes such a lock from a process that has ended."""
        if self._file < 0:  # opened once: to close any descriptor of the file would end all of the process's locks
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
        except OSError:
            return False
        return True
