"""Runs the JavaScript client's tests, and looks at how it is packed."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from tests.support.npm import needs

ROOT = Path(__file__).parents[3]
SOURCE = ROOT / "clients" / "js" / "src"


def test_the_javascript_client_passes_its_tests() -> None:
    needs("node")
    tests = sorted(str(file) for file in Path(__file__).parent.glob("*.test.mjs"))
    done = subprocess.run(["node", "--test", *tests], capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_gateways_wheel_holds_the_client_that_the_console_imports(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "-w", str(tmp_path), str(ROOT / "services" / "gateway")], check=True, timeout=50)
    (wheel,) = tmp_path.glob("gateway-*.whl")
    with zipfile.ZipFile(wheel) as packed:
        for file in SOURCE.iterdir():
            assert packed.read(f"gateway/console/client/{file.name}") == file.read_bytes()
