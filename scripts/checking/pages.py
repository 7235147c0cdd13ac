"""The pages that people read, the tables in them, and the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]

READ = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/*.md",
    "examples/*.md",
    "compose.yaml",
    ".env",
    "deploy/*",
    "services/*/Dockerfile",
)
_CODE = re.compile(r"`([^`]*)`")


class Row(NamedTuple):
    """One row of a table: the names in its first cell, and its second cell as it stands."""

    names: list[str]
    value: str


def pages() -> dict[str, str]:
    """Every page's text by its path, from the repository's root on."""
    found = [path for pattern in READ for path in sorted(ROOT.glob(pattern)) if path.is_file()]
    return {str(path.relative_to(ROOT)): path.read_text() for path in found if path.suffix != ".png"}


def sources(*parts: str) -> dict[str, str]:
    """The Python code below each of `parts`, by its path."""
    paths = [path for part in parts for path in sorted((ROOT / part).rglob("*.py"))]
    return {str(path.relative_to(ROOT)): path.read_text() for path in paths}


def tables(page: str) -> dict[str, list[Row]]:
    """The rows of each table by the line of text that leads to it (`Gateway:`), headings left out."""
    found: dict[str, list[Row]] = {}
    title = ""
    for line in page.splitlines():
        if not line.startswith("|"):
            title = line.strip() or title
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        names = [name.partition("{")[0] for name in _CODE.findall(cells[0])]
        if names and len(cells) > 1:
            found.setdefault(title, []).append(Row(names, cells[1]))
    return found


def named(pages: dict[str, str], pattern: re.Pattern[str]) -> dict[str, str]:
    """Everything that `pattern` finds, with the first place where it stands (`docs/clients.md:12`)."""
    found: dict[str, str] = {}
    for path, text in pages.items():
        for number, line in enumerate(text.splitlines(), 1):
            for name in pattern.findall(line):
                found.setdefault(name, f"{path}:{number}")
    return found
