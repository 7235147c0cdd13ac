"""No token, key, ticket or secret shows up where others read: after a run of everything, all of that is searched."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from tests.support.gateway import open_stream
from tests.support.http import exchange
from tests.support.identity import bearer, token
from tests.support.leaks import Secrets, wiretap
from tests.support.otlp import Collector, collector, traced
from tests.support.stack import Stack, stack
from tests.support.waiting import until

SIGNS = "distinctive-signing-" + secrets.token_hex(16)
OLD = "distinctive-rotated-" + secrets.token_hex(16)
COOKIE = "tidegate-session"
KEY = f"tgk_shop_{secrets.token_urlsafe(32)}"
LATE_KEY = f"tgk_late_{secrets.token_urlsafe(32)}"
KEYS = f"""
[[key]]
id = "shop"
sha256 = "{hashlib.sha256(KEY.encode()).hexdigest()}"
publish = ["user:*", "client:*", "topic:>", "broadcast"]
subscribe = ["topic:>", "jobs:*"]
admin = ["presence", "kick", "dead", "revoke", "events", "ops", "metrics"]
jobs = {{}}

[[key]]
id = "late"
sha256 = "{hashlib.sha256(LATE_KEY.encode()).hexdigest()}"
publish = ["broadcast"]
expires = 2020-01-01T00:00:00Z
"""
GRANTS: dict[str, Any] = {"subscribe": ["topic:prices.*", "broadcast"], "publish": ["topic:prices.*"], "jobs": {}}


MISPLACED = {"token", "key", "forged token", "unknown key", "ticket"}
"""These are sent where no secret belongs, too."""


def unsigned(sub: str) -> str:
    """A token with `alg: none`."""
    parts = ({"alg": "none"}, {"sub": sub, "aud": "tidegate", "exp": 4_000_000_000, "iat": 1})
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    return ".".join([*encoded, secrets.token_urlsafe(32)])


GOOD = {
    "token": token("ann", secret=SIGNS, **GRANTS),
    "token of an old secret": token("bob", secret=OLD, **GRANTS),
    "key": KEY,
}
BAD = {
    "expired token": token("eve", secret=SIGNS, seconds=-100, iat=1, **GRANTS),
    "forged token": token("eve", secret="some other secret, of 32 bytes or more", **GRANTS),
    "token for others": token("eve", secret=SIGNS, aud="elsewhere"),
    "token of no algorithm": unsigned("eve"),
    "token without an end": token("eve", secret=SIGNS, exp="never"),
    "expired key": LATE_KEY,
    "unknown key": f"tgk_none_{secrets.token_urlsafe(32)}",
    "unknown ticket": f"tgt_{secrets.token_urlsafe(32)}",
    "password": secrets.token_urlsafe(24),
}


class Scene(NamedTuple):
    """The stack, what it says to others, and a client of all of it."""

    stack: Stack
    client: httpx.AsyncClient
    collected: Collector
    wire: list[bytes]
    tickets: list[str]
    answers: list[bytes]
    """Heads and bodies of all answers, but for those that are there to hand out a secret."""

    @property
    def services(self) -> list[str]:
        return [*self.stack.gateways, self.stack.publisher, self.stack.worker]

    async def ask(self, method: str, url: str, **what: object) -> httpx.Response:
        answer = await self.client.request(method, url, **what)  # type: ignore[arg-type]
        assert answer.status_code != 500, (method, url, answer.text)
        self.answers.append(str(answer.headers.multi_items()).encode() + answer.content)
        return answer


@asynccontextmanager
async def everything(data: Path) -> AsyncIterator[Scene]:
    """All services as processes, traced and at their loudest; everyone is asked."""
    (data / "auth_secret").write_text(f"{SIGNS},{OLD}\n")
    (data / "api_keys.toml").write_text(KEYS)
    async with AsyncExitStack() as exits:
        collected = await exits.enter_async_context(collector())
        settings = {
            **traced(collected.endpoint),
            "TIDEGATE_LOG_LEVEL": "DEBUG",
            "TIDEGATE_AUTH": "token",
            "TIDEGATE_AUTH_SECRET_FILE": str(data / "auth_secret"),
            "TIDEGATE_API_KEYS_FILE": str(data / "api_keys.toml"),
            "TIDEGATE_AUTH_COOKIE": COOKIE,
            "TIDEGATE_LIMIT_AUTH_FAILURES": "1000/100000",
        }
        running = await exits.enter_async_context(stack(data, settings))
        wire = await exits.enter_async_context(wiretap(running.nats.url))
        client = await exits.enter_async_context(httpx.AsyncClient(timeout=30))
        yield Scene(running, client, collected, wire, [], [])


async def use_everything(scene: Scene) -> None:
    """What each may do with a good token, key, ticket or cookie."""
    gateway, api = scene.stack.gateways[0], scene.stack.publisher
    mine, key = bearer(GOOD["token"]), bearer(KEY)
    site = {"cookie": f"{COOKIE}={GOOD['token of an old secret']}", "sec-fetch-site": "same-origin"}
    async with (
        open_stream(gateway, {"user_id": "ann", "topic": "prices.eur"}, mine) as first,
        open_stream(gateway, headers=mine, body={"topic": ["prices.*"]}) as second,
        open_stream(gateway, {"user_id": "bob"}, site) as third,
    ):
        made = await scene.client.post(f"{api}/api/auth/tickets", json={"topic": "prices.eur"}, headers=mine)
        assert made.status_code in (200, 201), made.text
        scene.tickets.append(made.json()["ticket"])
        async with open_stream(gateway, {"ticket": scene.tickets[0]}) as fourth:
            streams = [first, second, third, fourth]
            for stream in streams:
                await stream.connected()
            for body in ({"topic": "prices.eur"}, {"user_id": "bob"}):
                event = {**body, "event_type": "note", "data": "x"}
                assert (await scene.ask("POST", f"{api}/api/sse/send", json=event, headers=key)).status_code == 202
            for stream in streams:
                await stream.next("note")
        async with open_stream(gateway, {"ticket": scene.tickets[0]}) as again:  # as EventSource comes back
            await again.connected()
    for headers in (mine, key):
        chat = {"prompt": "hello", "max_tokens": 8}
        job = (await scene.ask("POST", f"{api}/api/ai/chat", json=chat, headers=headers)).json()
        async with open_stream(gateway, headers=headers, path=job["stream"]) as watching:
            await until(lambda watching=watching: watching.ended, "the answer ends")
        await scene.ask("GET", f"{api}/api/ai/chat/{job['job_id']}", headers=headers)
        completion = {"model": "scripted", "messages": [{"role": "user", "content": "hello"}]}
        await scene.ask("POST", f"{gateway}/v1/chat/completions", json=completion, headers=headers)
    await scene.ask("POST", f"{api}/api/ai/chat", json={"prompt": "[fail] x", "client_id": "a"}, headers=key)
    lines = b'{"broadcast":true,"event_type":"n","data":1}\n{"user_id":"ann","event_type":"n","data":2}\n'
    batch = {**key, "content-type": "application/x-ndjson"}
    await scene.ask("POST", f"{api}/api/sse/batch", content=lines, headers=batch)
    for method, path, told in ADMIN:
        answer = await scene.ask(method, f"{api}{path}", json=told, headers=key)
        assert answer.is_success, (method, path, answer.text)


ADMIN: list[tuple[str, str, object]] = [
    ("GET", "/api/presence/users/ann", None),
    ("DELETE", "/api/presence/users/ann", None),
    ("GET", "/api/ai/dead", None),
    ("POST", "/api/auth/revocations", {"sub": "mallory"}),
    ("POST", "/api/auth/revocations", {"key": "late"}),
    ("GET", "/api/auth/revocations", None),
]
BODIES: list[tuple[str, str]] = [
    ("/api/sse", "{%s: 1}"),
    ("/api/sse/send", '{"topic": "prices.eur", "event_type": "n", "data": 1, "token": %s}'),
    ("/api/sse/send", '{"topic": "a", "event_type": "n", "data": 1, "ttl": %s}'),
    ("/api/sse/send", "%s"),
    ("/api/sse/broadcast", "{%s"),
    ("/api/ai/chat", '{"prompt": "x", "max_tokens": %s}'),
    ("/api/ai/jobs", '{"kind": "none", "params": %s}'),
    ("/api/auth/tickets", '{"topic": %s, "ticket": %s}'),
    ("/api/auth/revocations", '{"sub": "a", "token": %s}'),
    ("/v1/chat/completions", '{"model": %s, "messages": [{"role": %s, "content": "x"}]}'),
    ("/v1/chat/completions", '{"model": "scripted", "messages": [], "api_key": %s}'),
]
PATHS = [
    "/api/sse/jobs/",
    "/api/ai/jobs/",
    "/api/ai/chat/",
    "/api/ai/dead/",
    "/api/presence/topics/",
    "/api/auth/revocations/",
    "/v1/models/",
    "/console/",
    "/metrics/",
    "/nothing/",
]
LINES = ["GET /{0} HTTP/1.1\r\nHost: {0}", "{0} / HTTP/1.1\r\nHost: x", "GET / {0}\r\nHost: x"]
QUERIES = ["ticket=", "token=", "access_token=", "client_id=", "topic=", "last_event_id=", ""]
FIELDS = [
    "idempotency-key",
    "last-event-id",
    "content-type",
    "content-encoding",
    "accept",
    "referer",
    "x-forwarded-for",
    "x-api-key",
    "user-agent",
    "traceparent",
    "origin",
]


def brought(secret: str) -> Iterator[list[tuple[str, str]]]:
    """Headers that bring `secret`, well or badly."""
    yield [("authorization", f"Bearer {secret}")]
    yield [("authorization", secret)]
    yield [("authorization", f"Bearer {secret} more")]
    yield [("authorization", "Basic " + base64.b64encode(f"ann:{secret}".encode()).decode())]
    yield [("authorization", f"Bearer {secret}"), ("authorization", f"Bearer {secret}")]
    yield [("cookie", f"{COOKIE}={secret}")]
    yield [("cookie", f"other={secret}; {COOKIE}={secret}"), ("sec-fetch-site", "same-origin")]
    yield [(name, secret) for name in FIELDS if name not in ("content-type", "content-encoding", "user-agent")]


async def bring(scene: Scene, secret: str) -> None:
    """`secret` where such belong, to all services."""
    event = {"topic": "prices.eur", "event_type": "n", "data": 1}
    for url in scene.services:
        for headers in brought(secret):
            for path in ("/api/sse/jobs/none", "/api/ai/dead", "/metrics", "/v1/models"):
                await scene.ask("GET", url + path, headers=headers)
            await scene.ask("POST", f"{url}/api/sse/send", json=event, headers=headers)
        await scene.ask("GET", f"{url}/api/sse/jobs/none?ticket={secret}")


async def misplace(scene: Scene, secret: str) -> None:
    """`secret` where none belongs, in requests that nearly all are refused."""
    good = bearer(KEY)
    for url in scene.services:
        for path in PATHS:
            await scene.ask("GET", f"{url}{path}{secret}", headers=good)
        for query in QUERIES:
            for path in ("/api/sse/jobs/none", "/api/ai/dead", "/v1/models", "/metrics"):
                await scene.ask("GET", f"{url}{path}?{query}{secret}", headers=good)
        for path, form in BODIES:
            text = form.replace("%s", json.dumps(secret))
            typed = {**good, "content-type": "application/json"}
            await scene.ask("POST", url + path, content=text, headers=typed)
        for field in FIELDS:
            fields: dict[str, str] = {"content-type": "application/json", **good, field: secret}
            await scene.ask("POST", f"{url}/api/sse/broadcast", content=b"{}", headers=fields)
            await scene.ask("GET", f"{url}/v1/models", headers=fields)
        for line in LINES:
            request = f"{line.format(secret)}\r\nConnection: close\r\n\r\n".encode()
            scene.answers.append(await exchange(int(url.rpartition(":")[2]), request))
    for query in ("token=", "client_id=", "topic="):
        answer = await scene.ask("GET", f"{scene.stack.gateways[0]}/api/sse?{query}{secret}")
        assert answer.status_code == 401, answer.text


async def test_no_secret_is_in_a_log_a_span_a_metric_a_problem_or_on_nats(tmp_path: Path) -> None:
    async with everything(tmp_path) as scene:
        await use_everything(scene)
        brought_in = {**GOOD, **BAD, "ticket": scene.tickets[0]}
        for secret in brought_in.values():
            await bring(scene, secret)
        wire = list(scene.wire)
        for name in MISPLACED:  # a name is a name on NATS, whatever somebody takes for one
            await misplace(scene, brought_in[name])
        metrics = [(await scene.ask("GET", f"{url}/metrics", headers=bearer(KEY))).content for url in scene.services]
        assert all(b"tidegate_" in text for text in metrics)
    # Services that have stopped have sent their last spans, and NATS has written all that it keeps.
    stored = [file.read_bytes() for file in (tmp_path / "nats").rglob("*") if file.is_file()]
    outputs = {**scene.stack.processes, "nats": scene.stack.nats.run}
    logs = {name: "\n".join(run.output).encode() for name, run in outputs.items()}
    places = {
        **{f"log of {name}": [text] for name, text in logs.items()},
        "spans": scene.collected.bodies,
        "metrics": metrics,
        "answers": scene.answers,
        "NATS": wire,
        "streams": stored,
    }
    every = Secrets({**brought_in, "secret": SIGNS, "old secret": OLD})
    assert all(any(texts) for texts in places.values()), "there is something to search everywhere"
    found = [
        f"{place} has the {name}: {context!r}"
        for place, texts in places.items()
        for text in texts
        for name, context in every.found_in(text)
    ]
    assert not found, f"{len(found)} times: " + "\n".join(sorted(set(found)))


async def test_no_label_of_a_metric_has_a_name_of_a_callers(tmp_path: Path) -> None:
    """Whoever asks chooses names of topics, clients, models, kinds: each would be a series, and tell of them."""
    granted: dict[str, Any] = {
        "subscribe": ["topic:label-topic.>"],
        "publish": ["topic:label-topic.>"],
        "client": "label-client",
    }
    mine = bearer(token("label-user", secret=SIGNS, jti="label-jti", jobs={"models": ["label-model"]}, **granted))
    event = {"event_type": "label-event", "data": 1}
    completion = {"model": "label-model", "user": "label-someone", "messages": [{"role": "user", "content": "hello"}]}
    async with everything(tmp_path) as scene:
        gateway, api = scene.stack.gateways[0], scene.stack.publisher
        async with open_stream(gateway, {"topic": "label-topic.a"}, mine) as stream:
            await stream.connected()
            for headers in (mine, bearer(KEY)):
                sent = await scene.ask(
                    "POST", f"{api}/api/sse/send", json={**event, "topic": "label-topic.a"}, headers=headers
                )
                assert sent.status_code == 202
                await stream.next("label-event")
                assert (
                    await scene.ask("POST", f"{gateway}/v1/chat/completions", json=completion, headers=headers)
                ).is_success
                chat = {"prompt": "hello", "model": "label-model"}
                job = (await scene.ask("POST", f"{api}/api/ai/chat", json=chat, headers=headers)).json()
                async with open_stream(gateway, headers=headers, path=job["stream"]) as watching:
                    await until(lambda watching=watching: watching.ended, "the answer ends")
                kind = {"kind": "label-kind", "client_id": "label-client"}
                assert (await scene.ask("POST", f"{api}/api/ai/jobs", json=kind, headers=headers)).status_code == 202
        for url in scene.services:
            for refused in (
                "/api/sse?topic=label-other",
                "/v1/models/label-model",
                "/label-path",
                "/api/ai/dead/label-job",
            ):
                await scene.ask("GET", f"{url}{refused}", headers=mine)
            await scene.ask("LABEL-METHOD", f"{url}/metrics", headers=mine)
            await scene.ask("GET", f"{url}/metrics", headers={**mine, "host": "label-host.example"})
        told = [(await scene.ask("GET", f"{url}/metrics", headers=bearer(KEY))).text for url in scene.services]
    lines = [line for text in told for line in text.splitlines() if not line.startswith("#")]
    assert any("tidegate_jobs" in line or "tidegate_ai" in line for line in lines)
    assert [line for line in lines if "label" in line.lower() or "shop" in line] == []
