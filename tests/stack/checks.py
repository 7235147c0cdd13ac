"""What must hold of the stack that compose.yaml starts, seen from outside: through the edge, with curl.

Needs Python and curl only. Each check says what it shows; all run, also after one that failed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CHAT_SECONDS = 60.0


def edge() -> str:
    """Where the stack is reached, as .env or the environment says."""
    listed = dict(line.split("=", 1) for line in (ROOT / ".env").read_text().splitlines() if re.match(r"\w+=", line))
    return f"http://127.0.0.1:{os.environ.get('TIDEGATE_EDGE_PORT') or listed['TIDEGATE_EDGE_PORT']}"


EDGE = edge()


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


def curl(path: str, *options: str) -> Answer:
    """One request to the edge."""
    done = subprocess.run(
        ["curl", "-sS", "--max-time", "20", "-w", "\n%{http_code} %{http_version}", *options, EDGE + path],
        capture_output=True,
        text=True,
        check=False,
    )
    must(done.returncode == 0, f"{path}: {done.stderr.strip()}")
    body, _, last = done.stdout.rpartition("\n")
    status, version = last.split()
    return Answer(int(status), version, body)


def post(path: str, body: dict[str, object]) -> Any:
    """POSTs JSON that must be accepted with 202; gives what is answered."""
    answer = curl(path, "-H", "Content-Type: application/json", "-d", json.dumps(body))
    must(answer.status == 202, f"POST {path} answered {answer.status}: {answer.body}")
    return answer.json()


@dataclass
class Event:
    id: str
    type: str
    data: str
    at: float


class Stream:
    """`curl -N` on a stream, its events as they come."""

    def __init__(self, path: str, *options: str) -> None:
        self.opened = time.monotonic()
        self.events: list[Event] = []
        self.process = subprocess.Popen(
            ["curl", "-sS", "-N", *options, EDGE + path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
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
def stream(query: str = "", *options: str) -> Iterator[Stream]:
    """A stream that has said `connected`."""
    opened = Stream("/api/sse" + query, *options)
    try:
        opened.expect("connected", seconds=10)
        yield opened
    finally:
        opened.close()


def name() -> str:
    return uuid.uuid4().hex[:12]


# Containers -----------------------------------------------------------------------------------------------------------


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    must(done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


def gateways() -> list[str]:
    return docker("compose", "ps", "-q", "gateway").split()


def held_by(container: str) -> int:
    """Streams that the gateway in `container` holds, by its own metrics."""
    program = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8000/metrics').read().decode())"
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


# Checks ---------------------------------------------------------------------------------------------------------------


def the_edge_serves_the_console() -> None:
    page = curl("/")
    must(page.status == 200 and "<html" in page.body and "Tidegate" in page.body, f"{page.status} {page.body[:200]}")
    script = re.search(r'src="(/?console/[^"]+\.js)"', page.body)
    must(script, "the page names no script of its own")
    assert script is not None
    must(curl("/" + script[1].lstrip("/")).status == 200, f"{script[1]} is not served")


def the_edge_sends_api_paths_to_publisher_api() -> None:
    answer = curl("/api/openapi.json")
    must(answer.status == 200 and answer.json()["openapi"].startswith("3."), f"{answer.status} {answer.body[:200]}")


def the_edge_keeps_health_and_metrics_inside() -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        must(curl(path).status == 404, f"{path} is served to the world")


def a_send_reaches_its_client_alone() -> None:
    one, other = name(), name()
    with stream(f"?client_id={one}") as first, stream(f"?client_id={other}") as second:
        sent = post("/api/sse/send", {"client_id": one, "event_type": "note", "data": {"text": "你好"}})
        post("/api/sse/send", {"client_id": other, "event_type": "end", "data": "x"})
        [event] = first.expect("note")
        must(json.loads(event.data) == {"text": "你好"}, f"data changed: {event.data}")
        must(event.id == sent["id"], f"the answer said id {sent['id']}, the stream {event.id}")
        second.expect("end")
        must(not second.of("note"), "another client got it too")


def a_broadcast_and_a_topic_reach_all_who_listen() -> None:
    with stream("?topic=prices.*") as first, stream("?topic=prices.gold") as second:
        post("/api/sse/broadcast", {"event_type": "news", "data": "to all"})
        post("/api/sse/send", {"topic": "prices.gold", "event_type": "price", "data": 1})
        for listener in (first, second):
            must(listener.expect("news")[0].data == "to all", "the broadcast changed")
            listener.expect("price")


def a_volatile_event_comes_without_an_id() -> None:
    client = name()
    with stream(f"?client_id={client}") as listener:
        post("/api/sse/send", {"client_id": client, "event_type": "tick", "data": "now", "durable": False})
        must(listener.expect("tick")[0].id == "", "a volatile event has an id")


def events_pass_the_edge_at_once() -> None:
    client = name()
    with stream(f"?client_id={client}") as listener:
        before = time.monotonic()
        post("/api/sse/send", {"client_id": client, "event_type": "note", "data": "x"})
        [event] = listener.expect("note")
        must(listener.open, "the stream ended")
        must(event.at - before < 1, f"it took {event.at - before:.1f} s")


def the_edge_speaks_http_2() -> None:
    must(curl("/", "--http2-prior-knowledge").version == "2", "not HTTP/2")
    client = name()
    with stream(f"?client_id={client}", "--http2-prior-knowledge") as listener:
        post("/api/sse/send", {"client_id": client, "event_type": "note", "data": "x"})
        listener.expect("note")


def a_client_that_leaves_is_forgotten_behind_the_edge() -> None:
    def held() -> int:
        return sum(held_by(container) for container in gateways())

    until(lambda: held() == 0, "no streams are left of earlier checks")
    with stream(), stream():
        must(held() == 2, f"two streams are open, the gateways hold {held()}")
    until(lambda: held() == 0, "the gateways know that both have gone")


def a_chat_streams_its_answer() -> None:
    client = name()
    with stream(f"?client_id={client}") as listener:
        asked = post("/api/ai/chat", {"prompt": "What is the sea?", "client_id": client, "max_tokens": 48})
        until(lambda: any(json.loads(e.data).get("done") for e in listener.of("ai_response")), "done", CHAT_SECONDS)
        events = listener.of("ai_response")
    parts = [json.loads(event.data) for event in events]
    must(all(part["job_id"] == asked["job_id"] for part in parts), "events of another job")
    must("".join(part["content"] for part in parts).strip(), "the answer is empty")
    must(len(parts) > 2, f"the answer came in {len(parts)} pieces")
    must(events[0].at < events[-1].at, "the answer came in one go")
    must(parts[-1]["finish_reason"] and parts[-1]["usage"], f"the last event lacks something: {parts[-1]}")
    must(curl(f"/api/ai/chat/{asked['job_id']}").status == 200, "the job's state is unknown")


def a_killed_gateway_loses_nothing() -> None:
    clients = [name() for _ in range(4)]
    with contextlib.ExitStack() as stack:
        streams = {client: stack.enter_context(stream(f"?client_id={client}")) for client in clients}
        victim, survivor = gateways()
        must(held_by(victim) == held_by(survivor) == 2, "the edge does not balance over both gateways")
        for client in clients:
            post("/api/sse/send", {"client_id": client, "event_type": "before", "data": "1"})
            streams[client].expect("before")
        with started_again(victim):
            docker("kill", victim)
            until(lambda: sum(s.open for s in streams.values()) == 2, "the streams of the killed gateway end")
            for client in clients:
                post("/api/sse/send", {"client_id": client, "event_type": "missed", "data": "2"})
            for client, listener in streams.items():
                if listener.open:
                    listener.expect("missed")
                else:
                    resumes(client, listener.last_id)


def resumes(client: str, last_id: str) -> None:
    """`client` comes back with `last_id` and gets what was missed once, nothing else, and then live events."""
    with stream(f"?client_id={client}", "-H", f"Last-Event-ID: {last_id}") as again:
        again.expect("missed")
        post("/api/sse/send", {"client_id": client, "event_type": "after", "data": "3"})
        again.expect("after")
        types = [event.type for event in again.events]
        must(types == ["connected", "missed", "after"], f"after the return came {types}")


def a_stopped_gateway_says_so_and_exits_with_0() -> None:
    client = name()
    with stream(f"?client_id={client}") as listener:
        post("/api/sse/send", {"client_id": client, "event_type": "before", "data": "1"})
        listener.expect("before")
        holder = next(container for container in gateways() if held_by(container))
        with started_again(holder):
            docker("stop", holder)
            must(state(holder, "ExitCode") == "0", f"exit code {state(holder, 'ExitCode')}")
            listener.expect("closing")
            until(lambda: not listener.open, "the stream ends")
            post("/api/sse/send", {"client_id": client, "event_type": "missed", "data": "2"})
            resumes(client, listener.last_id)


CHECKS: list[Callable[[], None]] = [
    the_edge_serves_the_console,
    the_edge_sends_api_paths_to_publisher_api,
    the_edge_keeps_health_and_metrics_inside,
    a_send_reaches_its_client_alone,
    a_broadcast_and_a_topic_reach_all_who_listen,
    a_volatile_event_comes_without_an_id,
    events_pass_the_edge_at_once,
    the_edge_speaks_http_2,
    a_client_that_leaves_is_forgotten_behind_the_edge,
    a_chat_streams_its_answer,
    a_killed_gateway_loses_nothing,
    a_stopped_gateway_says_so_and_exits_with_0,
]


def main() -> int:
    failed = 0
    for check in CHECKS:
        start = time.monotonic()
        fault = ""
        try:
            check()
        except Failed as error:
            fault = str(error)
        except Exception as error:
            fault = f"{type(error).__name__}: {error}"
        failed += bool(fault)
        took, label = f"{time.monotonic() - start:5.1f} s", check.__name__.replace("_", " ")
        print(f"{took}  failed  {label}\n         {fault}" if fault else f"{took}  passed  {label}", flush=True)
    print(f"{len(CHECKS) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
