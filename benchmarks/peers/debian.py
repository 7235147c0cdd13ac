"""Programs from Debian's packages, unpacked into the build folder: nothing is installed, no service starts."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

from benchmarks.options import Options
from benchmarks.server import NotHad


class Unpacked:
    """Where a package's files are: below the build folder, or in the system where they are installed."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, path: str) -> str:
        """The file that the package installs at `path`. Raises NotHad."""
        for base in (self.root, Path("/")):
            if (base / path).exists():
                return str(base / path)
        raise NotHad(f"Debian's package has no /{path}")

    def env(self) -> dict[str, str]:
        """What its programs need to find their libraries and each other."""
        libraries = [str(path) for path in self.root.glob("usr/lib/*-linux-*")]
        programs = [str(self.root / path) for path in ("usr/bin", "usr/sbin")]
        return {"LD_LIBRARY_PATH": ":".join(libraries), "PATH": ":".join([*programs, os.environ.get("PATH", "")])}


def unpacked(options: Options, *packages: str) -> Unpacked:
    """`packages` and what they depend on that is not installed. Raises NotHad where apt or a mirror is not there."""
    root = options.build / "debian" / "+".join(packages)
    done = root / ".done"
    if done.exists():
        return Unpacked(root)
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise NotHad("no apt-get here: Debian's packages can't be had")
    archives = root / "archives"
    (archives / "partial").mkdir(parents=True, exist_ok=True)
    fetch = ["apt-get", "-qq", "-y", "--no-install-recommends", "--download-only"]
    fetch += ["-o", "Debug::NoLocking=1", "-o", f"Dir::Cache::archives={archives}", "-o", "APT::Sandbox::User=root"]
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        said = subprocess.run([*fetch, "install", *packages], capture_output=True, text=True)
        if said.returncode and os.geteuid() == 0:
            subprocess.run(["apt-get", "-qq", "update"], capture_output=True)
            said = subprocess.run([*fetch, "install", *packages], capture_output=True, text=True)
        if said.returncode:
            raise NotHad(f"apt-get has no {' and '.join(packages)}: {(said.stderr.strip().splitlines() or ['?'])[-1]}")
        for archive in archives.glob("*.deb"):
            subprocess.run(["dpkg", "-x", str(archive), str(root)], check=True)
    done.touch()
    return Unpacked(root)


def version(options: Options, package: str, of: str) -> str:
    """The version of package `of` among those unpacked for `package`, or of the installed one; `?` if neither."""
    for archive in (options.build / "debian").glob(f"*{package}*/archives/{of}_*.deb"):
        return archive.name.split("_")[1].replace("%3a", ":")
    said = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", of], capture_output=True, text=True)
    return said.stdout or "?"
