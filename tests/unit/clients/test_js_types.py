"""Holds the JavaScript client's types against TypeScript and against the code."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from tests.support.npm import installed

CLIENT = Path(__file__).parents[3] / "clients" / "js"
STRICT = ["--strict", "--noEmit", "--target", "es2022", "--module", "nodenext", "--lib", "es2022,dom,dom.iterable"]


def members(script_folder: Path) -> dict[str, dict[str, list[str] | None]]:
    """`declared` by index.d.ts and `actual` of index.js: the members of each exported class, None for a function."""
    source = CLIENT / "src"
    command = ["node", "members.js", (source / "index.js").as_uri(), str(source / "index.d.ts")]
    done = subprocess.run(command, cwd=script_folder, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return {
        side: {name: found and sorted(found) for name, found in exported.items()}
        for side, exported in json.loads(done.stdout).items()
    }


def test_a_typed_page_that_uses_all_of_the_client_compiles_and_mistakes_do_not(tmp_path: Path) -> None:
    compiler = installed("members.js") / "node_modules" / "typescript" / "bin" / "tsc"
    shutil.copy(Path(__file__).with_name("usage.mts"), tmp_path)
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "tidegate").symlink_to(CLIENT)
    command = ["node", str(compiler), *STRICT, "usage.mts"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_types_declare_what_the_client_exports_and_no_more() -> None:
    found = members(installed("members.js"))
    assert set(found["declared"]) >= {"Tidegate", "Problem", "EventParser", "backOff"}
    assert "wake" in (found["declared"]["Tidegate"] or [])
    assert found["declared"] == found["actual"]
