"""Programs built from the Go module proxy, where a Go toolchain and the proxy are at hand."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.options import Options
from benchmarks.server import NotHad

BUILD_SECONDS = 600


class Module(NamedTuple):
    """A module of one version. `sum` is its hash as a go.sum has it; its own go.sum pins all that it needs."""

    path: str
    version: str
    sum: str


def built(options: Options, name: str, module: Module, package: str) -> str:
    """The program that `package`, a folder of `module`, builds to. Raises NotHad."""
    home = options.build / "go" / name
    program, stamp = home / name, home / "built-from"
    if program.exists() and stamp.exists() and stamp.read_text() == module.sum:
        return str(program)
    go = shutil.which("go", path=f"{os.environ.get('PATH', '')}:/usr/local/go/bin")
    if go is None:
        raise NotHad("no Go toolchain here to build it with")
    options.say(f"building {name}")
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    source = _downloaded(go, module, home)
    # `-mod=readonly` has the module's own go.sum decide on all that it needs.
    _run([go, "build", "-mod=readonly", "-o", str(program), package], source)
    stamp.write_text(module.sum)
    return str(program)


def _downloaded(go: str, module: Module, home: Path) -> Path:
    """A copy of the module that can be built in. Raises NotHad, also where it is not the one that is pinned."""
    found: Any = json.loads(_run([go, "mod", "download", "-json", f"{module.path}@{module.version}"], home))
    if found.get("Sum") != module.sum:
        raise NotHad(f"{module.path} {module.version} is not what was pinned: {found.get('Sum')}, not {module.sum}")
    source = home / "source"
    shutil.copytree(found["Dir"], source)
    for each in (source, *source.rglob("*")):
        each.chmod(each.stat().st_mode | 0o200)  # the module cache is read-only
    return source


def _run(command: list[str], folder: Path) -> str:
    env = {**os.environ, "GOFLAGS": "-buildvcs=false", "GONOSUMDB": "*", "GOWORK": "off"}
    try:
        said = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=BUILD_SECONDS, env=env)
    except subprocess.TimeoutExpired:
        raise NotHad(f"it was not built within {BUILD_SECONDS} s") from None
    if said.returncode:
        why = ((said.stderr or said.stdout).strip().splitlines() or ["?"])[-1].strip()
        raise NotHad(f"it could not be built from the Go module proxy: {why}")
    return said.stdout
