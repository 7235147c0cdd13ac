"""Holds docs/ to the code: each setting with its default, each metric and file, and nothing that is not there."""

from __future__ import annotations

import sys

from scripts.checking import files, metrics, settings
from scripts.checking.pages import pages


def main() -> int:
    """Prints what does not fit; gives the exit code."""
    read = pages()
    found = [*settings.faults(read), *metrics.faults(read), *files.faults(read)]
    for fault in found:
        print(fault, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
