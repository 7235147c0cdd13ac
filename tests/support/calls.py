"""Every call of every service, with the right that it needs: what the routing tables are held against."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from starlette.routing import BaseRoute, Mount, Route

OPEN = "nothing"
ANY = "any token"
NONE: Mapping[str, Any] = {}


class Call(NamedTuple):
    """One call. `claims` are those that a token needs for it, beside any good token."""

    route: str
    """As `<method> <template>`."""
    needs: str
    """A right, as a refusal names it; or OPEN, or ANY."""
    claims: Mapping[str, Any] = NONE
    path: str = ""
    """Where it is made, if the template has something to fill in."""
    json: Any = None
    lines: str = ""
    """A body of NDJSON."""
    refused: int = 403
    """The status for a good token without the right."""

    @property
    def method(self) -> str:
        return self.route.partition(" ")[0]

    @property
    def target(self) -> str:
        return self.path or self.route.partition(" ")[2]


THEIRS = "0123456789abcdef0123456789abcdef"
"""A job of ann's."""
EVENT = {"event_type": "note", "data": 1}
CHAT = {"model": "small", "messages": [{"role": "user", "content": "hi"}]}
JOBS: dict[str, Any] = {"jobs": {}}
ALL_JOBS = {"subscribe": ["jobs:*"]}


PRESENCE = "/api/presence"


def admin(name: str) -> dict[str, Any]:
    return {"admin": [name]}


HEALTH = [
    Call("GET /healthz", OPEN),
    Call("GET /readyz", OPEN),
    Call("GET /metrics", "admin metrics", admin("metrics")),
]
GATEWAY = [
    *HEALTH,
    Call("GET /", OPEN),
    Call("GET /openapi.json", OPEN),
    Call("GET /console/{path}", OPEN, path="/console/console.js"),
    Call("GET /console/client/{path}", OPEN, path="/console/client/index.js"),
    Call("GET /api/sse", ANY),
    Call("GET /api/sse", "subscribe topic:a.b", {"subscribe": ["topic:a.*"]}, path="/api/sse?topic=a.b"),
    Call("GET /api/sse", "subscribe user:bob", {"subscribe": ["user:bob"]}, path="/api/sse?user_id=bob"),
    Call("POST /api/sse", ANY, json={}),
    Call("POST /api/sse", "subscribe topic:a.b", {"subscribe": ["topic:a.b"]}, json={"topic": ["a.b"]}),
    Call("GET /api/sse/jobs/{job_id}", "jobs:*", ALL_JOBS, path=f"/api/sse/jobs/{THEIRS}", refused=404),
    Call("POST /v1/chat/completions", "jobs", JOBS, json=CHAT),
    Call("GET /v1/models", "jobs", JOBS),
    Call("GET /v1/models/{model:path}", "jobs", JOBS, path="/v1/models/small"),
]
PUBLISHER = [
    *HEALTH,
    *(
        Call(f"GET {prefix}{path}", OPEN)
        for prefix in ("", "/api")
        for path in ("/openapi.json", "/docs", "/docs/start.js")
    ),
    *(
        Call(f"GET {prefix}/docs/static/{{path}}", OPEN, path=f"{prefix}/docs/static/swagger-ui.css")
        for prefix in ("", "/api")
    ),
    Call("POST /api/sse/send", "publish user:bob", {"publish": ["user:bob"]}, json={**EVENT, "user_id": "bob"}),
    Call("POST /api/sse/broadcast", "publish broadcast", {"publish": ["broadcast"]}, json=EVENT),
    # The batch itself needs none: each of its lines does.
    Call("POST /api/sse/batch", ANY, lines='{"topic":"a","event_type":"n","data":1}\n'),
    *(
        Call(
            f"{method} /api/presence/{kind}/{{name:path}}",
            f"admin {right}",
            admin(right),
            path=f"/api/presence/{kind}/a",
        )
        for kind, rights in (
            ("clients", {"GET": "presence", "DELETE": "kick"}),
            ("users", {"GET": "presence", "DELETE": "kick"}),
            ("topics", {"GET": "presence"}),
        )
        for method, right in rights.items()
    ),
    Call("POST /api/ai/chat", "jobs", JOBS, json={"prompt": "hi"}),
    Call("POST /api/ai/jobs", "jobs", JOBS, json={"kind": "chat"}),
    Call("POST /api/ai/jobs", "publish topic:a", {**JOBS, "publish": ["topic:a"]}, json={"kind": "x", "topic": "a"}),
    *(
        Call(f"{method} /api/ai/{kind}/{{job_id}}", "jobs:*", ALL_JOBS, path=f"/api/ai/{kind}/{THEIRS}", refused=404)
        for kind in ("chat", "jobs")
        for method in ("GET", "DELETE")
    ),
    Call("GET /api/ai/dead", "admin dead", admin("dead")),
    Call("GET /api/ai/dead/{job_id}", "admin dead", admin("dead"), path=f"/api/ai/dead/{THEIRS}"),
    Call("POST /api/ai/dead/{job_id}/retry", "admin dead", admin("dead"), path=f"/api/ai/dead/{THEIRS}/retry", json={}),
    Call("DELETE /api/ai/dead/{job_id}", "admin dead", admin("dead"), path=f"/api/ai/dead/{THEIRS}"),
    Call("POST /api/auth/tickets", ANY, json={}),
    Call("POST /api/auth/tickets", "subscribe topic:a", {"subscribe": ["topic:a"]}, json={"topic": "a"}),
    Call("POST /api/auth/tickets", "jobs:*", ALL_JOBS, json={"job_id": THEIRS}, refused=404),
    Call("POST /api/auth/revocations", "admin revoke", admin("revoke"), json={"key": "shop"}),
    Call("GET /api/auth/revocations", "admin revoke", admin("revoke")),
    Call("DELETE /api/auth/revocations", "admin revoke", admin("revoke"), path="/api/auth/revocations?key=shop"),
]


def routes_of(routes: Iterable[BaseRoute], prefix: str = "") -> Iterator[str]:
    """All that `routes` answer, as `<method> <template>`. HEAD and OPTIONS go with the others."""
    for route in routes:
        if isinstance(route, Mount):
            inner = getattr(route.app, "routes", None)
            if inner is None:
                yield f"GET {prefix}{route.path}/{{path}}"  # files
            else:
                yield from routes_of(inner, prefix + route.path)
        else:
            assert isinstance(route, Route), f"what rights does {route} need?"
            for method in sorted(route.methods or {"every method"}):
                if method not in ("HEAD", "OPTIONS"):
                    yield f"{method} {prefix}{route.path}"
