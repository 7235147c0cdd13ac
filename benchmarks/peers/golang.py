"""Programs built from the Go module proxy, where a Go toolchain and the proxy are at hand."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from benchmarks.options import Options
from benchmarks.server import NotHad

PINS = Path(__file__).with_name("go")
"""go.mod and go.sum of each peer: its version and that of all it needs, with their hashes."""
BUILD_SECONDS = 600


def built(options: Options, name: str, package: str) -> str:
    """The program that `package` of the module pinned under `name` builds to. Raises NotHad."""
    home = options.build / "go" / name
    program = home / name
    pinned = [(PINS / name / file).read_bytes() for file in ("go.mod", "go.sum")]
    if program.exists() and [(home / file).read_bytes() for file in ("go.mod", "go.sum")] == pinned:
        return str(program)
    go = shutil.which("go", path=f"{os.environ.get('PATH', '')}:/usr/local/go/bin")
    if go is None:
        raise NotHad("no Go toolchain here to build it with")
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(PINS / name, home)
    options.say(f"building {name}")
    try:
        said = subprocess.run(
            [go, "build", "-mod=readonly", "-o", str(program), package],
            cwd=home,
            capture_output=True,
            text=True,
            timeout=BUILD_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise NotHad(f"it was not built within {BUILD_SECONDS} s") from None
    if said.returncode:
        why = (said.stderr.strip().splitlines() or ["?"])[-1].strip()
        raise NotHad(f"it could not be built from the Go module proxy: {why}")
    return str(program)
