"""What to run: each part's command, environment, address and port, read from the environment."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from scripts.running.development import own_secret

ROOT = Path(__file__).resolve().parents[2]


class Fault(Exception):
    """Tidegate can't run; the text says what to do. `code` is the exit code."""

    def __init__(self, text: str, code: int = 1) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True)
class Part:
    """One process to run. Ready when `address` answers: NATS's greeting for `nats`, else GET /readyz."""

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    host: str
    port: int
    variable: str
    stop_seconds: float

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}" if self.name == "nats" else f"http://{self.host}:{self.port}"


@dataclass(frozen=True)
class Plan:
    """Every part in the order of starting, reversed that of ending; `nats_servers` are used where none is started."""

    parts: list[Part]
    data: Path
    ready_seconds: float
    """How long a part may take until it is ready; the local model is loaded in this time."""
    environ: Mapping[str, str]
    """What all parts are told."""
    secret: Path | None
    """A file to make before they start: what tokens are signed with; None if none is needed."""
    nats_servers: list[tuple[str, int]] = field(default_factory=list)

    def part(self, name: str) -> Part:
        return next(part for part in self.parts if part.name == name)


def plan(environ: Mapping[str, str]) -> Plan:
    """What `environ` asks for. Raises Fault (code 2)."""
    host = environ.get("TIDEGATE_HOST") or "127.0.0.1"
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    given_url = environ.get("TIDEGATE_NATS_URL", "")
    if environ.get("TIDEGATE_NATS_URL_FILE"):
        raise Fault("TIDEGATE_NATS_URL_FILE: each service may read one, this runner can't; set TIDEGATE_NATS_URL", 2)
    data = Path(environ.get("TIDEGATE_DATA_DIR") or ROOT / ".data").absolute()
    ports = {
        "nats": _port(environ, "TIDEGATE_NATS_PORT", 4222),
        "ai-worker": _port(environ, "TIDEGATE_WORKER_PORT", 8002),
        "publisher-api": _port(environ, "TIDEGATE_PUBLISHER_PORT", 8001),
        "gateway": _port(environ, "TIDEGATE_GATEWAY_PORT", 8000),
    }
    gateway = ports["gateway"][1]
    shared = {
        "TIDEGATE_NATS_URL": given_url or f"nats://127.0.0.1:{ports['nats'][1]}",
        "TIDEGATE_DRAIN_SECONDS": environ.get("TIDEGATE_DRAIN_SECONDS") or "2",  # Ctrl-C shall not take ten
        "PYTHONUNBUFFERED": "1",
    }
    if environ.get("TIDEGATE_AUTH", "") not in ("", "open", "token"):
        raise Fault(f"TIDEGATE_AUTH: open or token, not {environ['TIDEGATE_AUTH']!r}", 2)
    secret = own_secret(environ, data)
    if secret is not None:
        shared["TIDEGATE_AUTH_SECRET_FILE"] = str(secret)
    own = {
        "publisher-api": {"TIDEGATE_CORS_ORIGINS": f"http://127.0.0.1:{gateway},http://localhost:{gateway}"},
        "gateway": {"TIDEGATE_PUBLISHER_URL": f"http://{in_url(shown)}:{ports['publisher-api'][1]}"},
    }
    try:
        stop_seconds = float(shared["TIDEGATE_DRAIN_SECONDS"]) + 5
    except ValueError:
        raise Fault(
            f"TIDEGATE_DRAIN_SECONDS: a number of seconds, not {shared['TIDEGATE_DRAIN_SECONDS']!r}", 2
        ) from None
    parts = []
    if not given_url:
        variable, port = ports["nats"]
        nats = (_nats_binary(), "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(data / "nats"))
        parts.append(Part("nats", nats, environ, "127.0.0.1", port, variable, 10))
    for name in ("ai-worker", "publisher-api", "gateway"):
        variable, port = ports[name]
        extra = {key: environ.get(key) or value for key, value in own.get(name, {}).items()}
        command = (sys.executable, "-m", name.replace("-", "_"))
        env = {**environ, **shared, **extra, "TIDEGATE_PORT": str(port)}
        parts.append(Part(name, command, env, shown, port, variable, stop_seconds))
    ready_seconds = _seconds(environ, "TIDEGATE_READY_SECONDS", 180)
    return Plan(parts, data, ready_seconds, {**environ, **shared}, secret, _servers(given_url))


def _port(environ: Mapping[str, str], variable: str, default: int) -> tuple[str, int]:
    text = environ.get(variable) or str(default)
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise Fault(f"{variable}: a port from 1 to 65535, not {text!r}", 2)
    return variable, int(text)


def _seconds(environ: Mapping[str, str], variable: str, default: float) -> float:
    text = environ.get(variable) or str(default)
    if not re.fullmatch(r"\d+(\.\d+)?", text, re.ASCII):
        raise Fault(f"{variable}: a number of seconds, not {text!r}", 2)
    return float(text)


def _servers(urls: str) -> list[tuple[str, int]]:
    """Host and port of each server in a comma list. Raises Fault."""
    found = []
    for url in filter(None, (part.strip() for part in urls.split(","))):
        try:
            parts = urlsplit(url if "://" in url else f"nats://{url}")
            found.append((parts.hostname or "127.0.0.1", parts.port or 4222))
        except ValueError as error:
            raise Fault(f"TIDEGATE_NATS_URL: {error}; write nats://host:port", 2) from None
    return found


def in_url(host: str) -> str:
    """`host` as it is written in an address."""
    return f"[{host}]" if ":" in host else host


def _nats_binary() -> str:
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise Fault("nats-server is not installed: run `make setup`, or set TIDEGATE_NATS_URL to a server of yours", 2)
    return found


def check_ports(parts: list[Part]) -> None:
    """Raises Fault (code 2) naming the variable of the first port that is used twice, or by another process."""
    seen: dict[int, str] = {}
    for part in parts:
        if part.port in seen:
            other = seen[part.port]
            raise Fault(f"port {part.port} is given to both {other} and {part.name}: set {part.variable}", 2)
        seen[part.port] = part.name
        with socket.socket(socket.AF_INET6 if ":" in part.host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((part.host, part.port))
            except OSError as error:
                text = f"port {part.port} for {part.name} can't be used ({os.strerror(error.errno or 0)})"
                raise Fault(f"{text}: end what uses it, or set {part.variable} to another", 2) from None


@contextlib.contextmanager
def locked(data: Path) -> Iterator[None]:
    """`data` is ours: two nats-servers on one folder would spoil it. Raises Fault (code 2)."""
    try:
        data.mkdir(parents=True, exist_ok=True)
        lock = (data / "run.lock").open("w")
    except OSError as error:
        raise Fault(f"{data} can't be written ({error.strerror}): set TIDEGATE_DATA_DIR to another folder", 2) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Fault(f"another run uses {data}: end it, or set TIDEGATE_DATA_DIR to another folder", 2) from None
        yield
