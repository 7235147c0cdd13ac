"""Every file that a page or a docstring names is there, and each folder of bus/ has the modules that its row names."""

from __future__ import annotations

import re
from collections.abc import Iterator

from scripts.checking.pages import ROOT, sources, tables

ARCHITECTURE = "docs/architecture.md"
BUS = "libs/common/src/tidegate_common/bus"
MODULES = "The folders of `bus/`"
TOP = ("benchmarks", "clients", "deploy", "examples", "libs", "scripts", "services", "tests")
_NAME = re.compile(r"(?<![\w./<-])[\w/-]*\w\.py\b")


def faults(pages: dict[str, str]) -> Iterator[str]:
    """What does not fit, a line each."""
    code = sources(*TOP)
    # A test may name files that it makes itself.
    told = {path: text for path, text in (code | pages).items() if path.endswith((".md", ".py"))}
    told |= {str(path.relative_to(ROOT)): path.read_text() for path in ROOT.glob("*/*/pyproject.toml")}
    for path, text in told.items():
        if path.startswith("tests/unit/scripts/"):
            continue
        for number, line in enumerate(text.splitlines(), 1):
            for name in _NAME.findall(line) if ".py" in line else ():
                if not _is_there(name, path, code):
                    yield f"{path}:{number}: there is no file {name}"
    yield from _folders(pages[ARCHITECTURE])


def _is_there(name: str, path: str, code: dict[str, str]) -> bool:
    """Code of a library or service that gives no folder means its own files, or a test."""
    whole = name.startswith("test_") or "/" in name or path.endswith(".md") or path.startswith("tests/")
    near = "" if whole else "/".join(path.split("/")[:2])
    return any(f"/{each}".endswith(f"/{name}") for each in code if each.startswith(near))


def _folders(page: str) -> Iterator[str]:
    rows = next(rows for title, rows in tables(page).items() if title.startswith(MODULES))
    said = {row.names[0].strip("/"): set(row.value.rpartition(": ")[2].split(", ")) for row in rows}
    for folder in sorted(path.name for path in (ROOT / BUS).iterdir() if (path / "__init__.py").exists()):
        has = {path.stem for path in (ROOT / BUS / folder).glob("*.py")} - {"__init__"}
        if has != said.get(folder):
            different = ", ".join(sorted(has ^ said.get(folder, set())))
            yield f"{ARCHITECTURE}, bus/{folder}/: the page or the folder alone has {different}"
