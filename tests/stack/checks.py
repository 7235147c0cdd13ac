"""What must hold of the stack that compose.yaml starts, seen from outside: through the edge, with curl.

Needs Python and curl only. Each check says what it shows; all run, also after one that failed.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
import time
from collections.abc import Callable

from tests.stack.outside import (
    CHAT_SECONDS,
    Failed,
    Stream,
    curl,
    docker,
    gateways,
    held_by,
    must,
    name,
    post,
    started_again,
    state,
    stream,
    until,
)


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


def the_edge_passes_the_host_on() -> None:
    for host, status in (("localhost:1234", 200), ("127.0.0.1", 200), ("evil.example", 421)):
        for path in ("/", "/api/openapi.json", "/v1/models"):
            found = curl(path, "-H", f"Host: {host}").status
            must(found == status, f"{path} for {host}: {found} instead of {status}")


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


def a_job_has_a_stream_of_its_own_that_ends_and_is_not_opened_again() -> None:
    asked = post("/api/ai/chat", {"prompt": "What is the sea?", "max_tokens": 32})
    opened = Stream(asked["stream"])
    try:
        until(lambda: not opened.open, "the stream ends itself", CHAT_SECONDS)
    finally:
        opened.close()
    parts = [json.loads(event.data) for event in opened.of("ai_response")]
    must("".join(part["content"] for part in parts).strip(), "the answer is empty")
    must(parts[-1]["done"], f"the last event is another: {parts[-1]}")
    must(json.loads(opened.events[-1].data).get("reason") == "done", f"no farewell: {opened.events[-1]}")
    again = curl(asked["stream"], "-H", f"Last-Event-ID: {opened.last_id}")
    must(again.status == 204, f"who has all of it got {again.status}")
    document = curl(f"/api/ai/chat/{asked['job_id']}").json()
    must(document["answer"]["done"] and document["status"] == "done", f"the document is not whole: {document}")


def the_front_for_openais_clients_answers() -> None:
    models = curl("/v1/models")
    must(models.status == 200 and models.json()["data"], f"no models: {models.status} {models.body}")
    body = {"model": models.json()["data"][0]["id"], "messages": [{"role": "user", "content": "What is the sea?"}]}
    headers = ("-H", "Content-Type: application/json", "-H", "Authorization: Bearer any", "--max-time", "60")
    answer = curl("/v1/chat/completions", *headers, "-d", json.dumps({**body, "max_tokens": 16}))
    must(answer.status == 200, f"{answer.status}: {answer.body}")
    must(answer.json()["choices"][0]["message"]["content"].strip(), f"the answer is empty: {answer.body}")


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
    the_edge_passes_the_host_on,
    a_send_reaches_its_client_alone,
    a_broadcast_and_a_topic_reach_all_who_listen,
    a_volatile_event_comes_without_an_id,
    events_pass_the_edge_at_once,
    the_edge_speaks_http_2,
    a_client_that_leaves_is_forgotten_behind_the_edge,
    a_chat_streams_its_answer,
    a_job_has_a_stream_of_its_own_that_ends_and_is_not_opened_again,
    the_front_for_openais_clients_answers,
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
