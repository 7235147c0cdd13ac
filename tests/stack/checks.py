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

from tests.stack.addresses import DISGUISED, KEPT_INSIDE, PASSED
from tests.stack.identity import KEY, bearer, everyone_is_asked, token
from tests.stack.outside import (
    CHAT_SECONDS,
    EDGE,
    SERVICES,
    Failed,
    Stream,
    as_json,
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


def the_edge_passes_what_browsers_need() -> None:
    for path in PASSED:
        must("not-passed" not in curl(path).body, f"{path} does not pass")
    answer = curl("/api/ai/jobs/none")
    must(answer.status == 404 and answer.json()["type"].endswith(":not-found"), f"not publisher-api's: {answer.body}")


def the_edge_passes_nothing_else() -> None:
    for path in (*KEPT_INSIDE, *DISGUISED):
        for method in ("GET", "POST", "DELETE"):
            answer = curl(path, "-X", method, *(as_json({}) if method == "POST" else ()))
            must(answer.status == 404 and "not-passed" in answer.body, f"{method} {path}: {answer}")
    for target in ("http://localhost/metrics", "http://localhost/api/sse/broadcast", "*"):
        answer = curl("/", "--request-target", target)
        must(answer.status == 404 and "not-passed" in answer.body, f"GET {target}: {answer}")


def services_have_all_of_the_api_on_a_port_of_their_own() -> None:
    answer = curl("/api/openapi.json", at=SERVICES)
    must(answer.status == 200 and answer.json()["openapi"].startswith("3."), f"{answer.status} {answer.body[:200]}")
    must(curl("/api/ai/dead", at=SERVICES).status == 200, "the dead jobs are not there")
    must(curl("/api/presence/clients/none", at=SERVICES).json()["connections"] == 0, "nobody is counted")
    for path in ("/healthz", "/readyz", "/metrics"):
        must(curl(path, at=SERVICES).status == 404, f"{path} is served")


def the_edge_passes_the_host_on() -> None:
    for host, ours in (("localhost:1234", True), ("127.0.0.1", True), ("evil.example", False)):
        for path in ("/", "/api/ai/jobs/none", "/v1/models"):
            found = curl(path, "-H", f"Host: {host}").status
            must((found != 421) is ours, f"{path} for {host}: {found}")


def a_page_of_another_site_changes_nothing() -> None:
    said: list[str] = []  # a bearer token is not what a browser sends by itself
    for origin in ("https://evil.example", "null"):
        options = ["-H", f"Origin: {origin}", *as_json({"client_id": "a", "event_type": "n", "data": 1})]
        answer = curl("/api/sse/send", *options, said=said)
        must(answer.status == 403, f"a page of {origin} got {answer}")


def what_is_answered_is_what_it_says_it_is() -> None:
    for path in ("/", "/metrics", "/v1/models", "/api/ai/jobs/none"):
        head = curl(path, "-I", "-X", "GET").body.lower()
        for field in ("x-content-type-options: nosniff", "referrer-policy: no-referrer"):
            must(head.count(field) == 1, f"{path} lacks {field}: {head}")
        must("\nserver:" not in head, f"{path} says what serves it: {head}")


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
        post("/api/sse/broadcast", {"event_type": "news", "data": "to all"}, at=SERVICES)
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
    answer = curl("/v1/chat/completions", "--max-time", "60", *as_json({**body, "max_tokens": 16}))
    must(answer.status == 200, f"{answer.status}: {answer.body}")
    must(answer.json()["choices"][0]["message"]["content"].strip(), f"the answer is empty: {answer.body}")


# What NATS says to whoever comes without a password, asked from within a gateway's container.
ASK_NATS = """import socket
nats = socket.create_connection(("nats", 4222), 5)
nats.sendall(b"CONNECT {}\\r\\nPING\\r\\n")
nats.settimeout(5)
while said := nats.recv(65536):
    print(said.decode())
"""


def nats_takes_no_one_without_a_password() -> None:
    said = docker("compose", "exec", "-T", "gateway", "python", "-c", ASK_NATS)
    must("Authorization Violation" in said and "PONG" not in said, said)


def no_service_finds_anothers_password() -> None:
    for service, user in (("gateway", "gateway"), ("publisher-api", "publisher"), ("ai-worker", "worker")):
        found = docker("compose", "exec", "-T", service, "cat", "/run/nats/url")
        must(re.fullmatch(rf"nats://{user}:p[0-9a-f]{{48}}@nats:4222", found), f"{service}: another address")
        told = docker("inspect", *docker("compose", "ps", "-q", service).split())
        must(found.split("@")[0] not in told, f"the container of {service} shows its password")


def no_service_lacks_a_right_on_nats() -> None:
    said = [
        line
        for line in docker("compose", "logs", "nats").splitlines()
        if re.search("(Publish|Subscription) Viol", line)
    ]
    must(not said, "\n".join(said))


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


def nobody_gets_in_without_a_token() -> None:
    """As the edge passes it on, and at the port for services."""
    send = as_json({"user_id": "ann", "event_type": "n", "data": 1})
    none: list[str] = []
    asked = [(path, none) for path in ("/api/sse", "/api/sse/jobs/none", "/api/ai/jobs/none", "/v1/models")]
    asked += [(path, send) for path in ("/api/sse/send", "/api/ai/chat", "/api/auth/tickets", "/api/sse")]
    for at in (EDGE, SERVICES):
        for path, options in asked:
            answer = curl(path, *options, at=at, said=[])
            must(answer.status == 401, f"{path} without a token: {answer}")
            bad = curl(path, *options, at=at, said=bearer(token("ann")[:-4] + "AAAA"))
            must(bad.status == 401, f"{path} with a token that is not ours: {bad}")
    must(curl("/api/sse/broadcast", *send, at=SERVICES, said=[]).status == 401, "anybody may broadcast")
    must(curl("/", said=[]).status == 200, "the console is not there")


def a_user_hears_what_the_token_grants() -> None:
    ann, other = name(), name()
    said = bearer(token(ann, subscribe=["topic:prices.*"]))
    must(curl("/api/sse?topic=news", said=said).status == 403, "a topic that is not granted")
    must(curl(f"/api/sse?user_id={other}", said=said).status == 403, "another user")
    key = bearer(KEY)
    with stream(f"?topic=prices.gold&user_id={ann}", said=said) as listener:
        for target in ({"user_id": other}, {"topic": "news"}, {"user_id": ann}, {"topic": "prices.gold"}):
            body = as_json({**target, "event_type": "note", "data": next(iter(target))})
            must(curl("/api/sse/send", *body, at=SERVICES, said=key).status == 202, "the key may publish")
        found = [event.data for event in listener.expect("note", 2)]
        must(found == ["user_id", "topic"], f"it heard {found}")
        must(curl("/api/sse/send", *body, said=said).status == 403, "a user publishes without the right")


def a_ticket_opens_a_stream_and_shows_up_in_no_log() -> None:
    ann = name()
    said = bearer(token(ann))
    made = curl("/api/auth/tickets", *as_json({"user_id": ann}), said=said)
    must(made.status in (200, 201), f"no ticket: {made}")
    ticket = made.json()["ticket"]
    with stream(f"?ticket={ticket}", said=[]) as listener:
        body = as_json({"user_id": ann, "event_type": "note", "data": "x"})
        must(curl("/api/sse/send", *body, at=SERVICES, said=bearer(KEY)).status == 202, "the key may publish")
        listener.expect("note")
    must(curl("/api/sse?ticket=unheard-of", said=[]).status == 401, "any ticket will do")
    logs = docker("compose", "logs", "--no-color")
    must('"uri":"/api/sse"' in logs, "the edge has no access log")
    for secret in (ticket, said[1].rpartition(" ")[2], KEY, "unheard-of"):
        must(secret not in logs, f"a log holds {secret}")


CHECKS: list[Callable[[], None]] = [
    the_edge_serves_the_console,
    the_edge_passes_what_browsers_need,
    the_edge_passes_nothing_else,
    services_have_all_of_the_api_on_a_port_of_their_own,
    the_edge_passes_the_host_on,
    a_page_of_another_site_changes_nothing,
    what_is_answered_is_what_it_says_it_is,
    a_send_reaches_its_client_alone,
    a_broadcast_and_a_topic_reach_all_who_listen,
    a_volatile_event_comes_without_an_id,
    events_pass_the_edge_at_once,
    the_edge_speaks_http_2,
    a_client_that_leaves_is_forgotten_behind_the_edge,
    a_chat_streams_its_answer,
    a_job_has_a_stream_of_its_own_that_ends_and_is_not_opened_again,
    the_front_for_openais_clients_answers,
]

NATS_CHECKS = [
    nats_takes_no_one_without_a_password,
    no_service_finds_anothers_password,
    no_service_lacks_a_right_on_nats,
]

OPEN_CHECKS = [*CHECKS, a_killed_gateway_loses_nothing, a_stopped_gateway_says_so_and_exits_with_0, *NATS_CHECKS]
TOKEN_CHECKS = [
    *CHECKS,
    nobody_gets_in_without_a_token,
    a_user_hears_what_the_token_grants,
    a_ticket_opens_a_stream_and_shows_up_in_no_log,
    no_service_lacks_a_right_on_nats,
]


def main() -> int:
    """Runs all checks, then again with everyone asked who they are; gives the exit code."""
    failed = sum(not passes(check) for check in OPEN_CHECKS)
    print("everyone is asked who they are (TIDEGATE_AUTH=token)", flush=True)
    with everyone_is_asked():
        failed += sum(not passes(check) for check in TOKEN_CHECKS)
    print(f"{len(OPEN_CHECKS) + len(TOKEN_CHECKS) - failed} passed, {failed} failed")
    return 1 if failed else 0


def passes(check: Callable[[], None]) -> bool:
    """Runs it, says how it went."""
    start = time.monotonic()
    fault = ""
    try:
        check()
    except Failed as error:
        fault = str(error)
    except Exception as error:
        fault = f"{type(error).__name__}: {error}"
    took, label = f"{time.monotonic() - start:5.1f} s", check.__name__.replace("_", " ")
    print(f"{took}  failed  {label}\n         {fault}" if fault else f"{took}  passed  {label}", flush=True)
    return not fault


if __name__ == "__main__":
    sys.exit(main())
