"""What the checks of the compose stack use: curl through the edge, and docker."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CHAT_SECONDS = 60.0


def address(variable: str) -> str:
    """Where the stack is reached, as .env or the environment says."""
    listed = dict(line.split("=", 1) for line in (ROOT / ".env").read_text().splitlines() if re.match(r"\w+=", line))
    return f"http://127.0.0.1:{os.environ.get(variable) or listed[variable]}"


EDGE = address("TIDEGATE_EDGE_PORT")
"""For browsers."""
SERVICES = address("TIDEGATE_SERVICES_PORT")
"""For services: all of the API."""

SAID: list[str] = []
"""Options of each curl: in the mode `token`, whoever checks says who they are."""


class Failed(Exception):
    """A check that does not hold."""


def must(holds: object, what: str) -> None:
    if not holds:
        raise Failed(what)


def until(condition: Callable[[], object], what: str, seconds: float = 5) -> None:
    """Returns when `condition` holds. Raises Failed after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        must(time.monotonic() < deadline, f"not within {seconds} s: {what}")
        time.sleep(0.02)


# HTTP and streams -----------------------------------------------------------------------------------------------------


@dataclass
class Answer:
    status: int
    version: str
    body: str

    def json(self) -> Any:
        return json.loads(self.body)


def curl(path: str, *options: str, at: str = EDGE, said: list[str] = SAID) -> Answer:
    """One request to the edge, by the path as it is written."""
    written = ["--path-as-is", "--globoff", "-w", "\n%{http_code} %{http_version}"]
    done = subprocess.run(
        ["curl", "-sS", "--max-time", "20", *written, *said, *options, at + path],
        capture_output=True,
        text=True,
        check=False,
    )
    must(done.returncode == 0, f"{path}: {done.stderr.strip()}")
    body, _, last = done.stdout.rpartition("\n")
    status, version = last.split()
    return Answer(int(status), version, body)


def post(path: str, body: dict[str, object], at: str = EDGE) -> Any:
    """POSTs JSON that must be accepted with 202; gives what is answered."""
    answer = curl(path, *as_json(body), at=at)
    must(answer.status == 202, f"POST {path} answered {answer.status}: {answer.body}")
    return answer.json()


def as_json(body: dict[str, object]) -> list[str]:
    """curl's options for a POST of it."""
    return ["-H", "Content-Type: application/json", "-d", json.dumps(body)]


@dataclass
class Event:
    id: str
    type: str
    data: str
    at: float


class Stream:
    """`curl -N` on a stream, its events as they come."""

    def __init__(self, path: str, *options: str, said: list[str] = SAID) -> None:
        self.opened = time.monotonic()
        self.events: list[Event] = []
        command = ["curl", "-sS", "-N", *said, *options, EDGE + path]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        fields: dict[str, list[str]] = {}
        for line in self.process.stdout:
            name, _, value = line.rstrip("\n").partition(":")
            if name:
                fields.setdefault(name, []).append(value.removeprefix(" "))
            elif line == "\n":
                if "data" in fields:
                    id_, type_ = fields.get("id", [""])[-1], fields.get("event", ["message"])[-1]
                    self.events.append(Event(id_, type_, "\n".join(fields["data"]), time.monotonic()))
                fields = {}

    @property
    def open(self) -> bool:
        return self.process.poll() is None

    @property
    def last_id(self) -> str:
        return next((event.id for event in reversed(self.events) if event.id), "")

    def of(self, type_: str) -> list[Event]:
        return [event for event in list(self.events) if event.type == type_]

    def expect(self, type_: str, count: int = 1, seconds: float = 5) -> list[Event]:
        """The first `count` events of this type, when they have come."""
        until(lambda: len(self.of(type_)) >= count, f"{count} events of type {type_}", seconds)
        return self.of(type_)[:count]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join(5)


@contextlib.contextmanager
def stream(query: str = "", *options: str, said: list[str] = SAID) -> Iterator[Stream]:
    """A stream that has said `connected`."""
    opened = Stream("/api/sse" + query, *options, said=said)
    try:
        opened.expect("connected", seconds=10)
        yield opened
    finally:
        opened.close()


def name() -> str:
    return uuid.uuid4().hex[:12]


# Containers -----------------------------------------------------------------------------------------------------------


def docker(*arguments: str, env: Mapping[str, str] | None = None) -> str:
    """What docker says, with `env` added to the environment."""
    said = {**os.environ, **(env or {})}
    done = subprocess.run(["docker", *arguments], cwd=ROOT, env=said, capture_output=True, text=True, check=False)
    must(done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


def gateways() -> list[str]:
    return docker("compose", "ps", "-q", "gateway").split()


def held_by(container: str) -> int:
    """Streams that the gateway in `container` holds, by its own metrics."""
    program = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9200/metrics').read().decode())"
    found = re.search(
        r"^tidegate_connections_active\S* (\S+)$", docker("exec", container, "python", "-c", program), re.M
    )
    must(found, "no metric tidegate_connections_active")
    assert found is not None
    return int(float(found[1]))


def state(container: str, field: str) -> str:
    return docker("inspect", "-f", f"{{{{.State.{field}}}}}", container)


@contextlib.contextmanager
def started_again(container: str) -> Iterator[None]:
    """Whatever is done to `container` inside, it runs and is healthy afterwards."""
    try:
        yield
    finally:
        docker("start", container)
        until(lambda: state(container, "Health.Status") == "healthy", "the gateway is healthy again", 60)
