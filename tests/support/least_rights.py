"""NATS with deploy/nats.conf's users, for the whole suite: TIDEGATE_TEST_NATS=least.

Every server has the users of that file then, beside what its test configures, and each service comes as its own. Tests
themselves come as the operator, who may do everything. Not so: servers without JetStream, and those whose test gives
them users, accounts or a JetStream of its own (`_OWN`), since it is about those.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

CONFIG = Path(__file__).resolve().parents[2] / "deploy" / "nats.conf"

ON = os.environ.get("TIDEGATE_TEST_NATS") == "least"

USERS = {
    "gateway": "gateway",
    "publisher-api": "publisher",
    "publisher_api": "publisher",
    "ai-worker": "worker",
    "ai_worker": "worker",
}
"""By service, and by its module."""


DEFAULT = 'default_permissions: { publish: { deny: ">" }, subscribe: { deny: ">" } }'
_OWN = re.compile(r"authorization|accounts|operator|jetstream")
_OURS = re.compile(r"//\w+:\w+-of-tests@")
_NOBODY = re.compile(r"//(?=[^@,]*(?:,|$))")


def password(user: str) -> str:
    return f"{user}-of-tests"


def passwords() -> dict[str, str]:
    """The environment of such a server."""
    names = {*USERS.values(), "operator", "system"}
    return {f"NATS_{name.upper()}_PASSWORD": password(name) for name in names}


def holds_for(config: str) -> bool:
    """Whether a server with `config` has the users of that file too."""
    return ON and _OWN.search(config) is None


def configuration(
    data: Path, port: int, monitor_port: int = 0, host: str = "127.0.0.1", *, any_subject: bool = True
) -> str:
    """deploy/nats.conf, for a server of tests: whoever brings no password is the operator.

    With `any_subject` the operator may send what no rights of NATS match, not even `>`: subjects that are none.
    """
    text = CONFIG.read_text()
    ours = {
        "listen: 0.0.0.0:4222": f'listen: "{host}:{port}"',
        "http: 127.0.0.1:8222": f'http: "127.0.0.1:{monitor_port}"' if monitor_port else "",
        "store_dir: /data": f'store_dir: "{data}"',
        "authorization {": "no_auth_user: operator\nauthorization {",
    }
    if any_subject:
        ours[DEFAULT] = ours[', permissions: { publish: ">", subscribe: ">" }'] = ""
    for line, other in ours.items():
        assert text.count(line) == 1, line
        text = text.replace(line, other)
    return text


def as_service(urls: str, service: str) -> str:
    """The addresses as `service` is given them. A server without users does not mind; users of others stay."""
    bare = _OURS.sub("//", urls)
    return as_user(bare, USERS[service]) if ON or bare != urls else urls


def as_service_in(env: Mapping[str, str], service: str) -> dict[str, str]:
    """As `as_service`, in a process's environment. One that enters with a key has no password."""
    if env.keys() & {"TIDEGATE_NATS_CREDS_FILE", "TIDEGATE_NATS_NKEY_FILE"}:
        return dict(env)
    return {**env, "TIDEGATE_NATS_URL": as_service(env.get("TIDEGATE_NATS_URL", ""), service)}


def as_user(urls: str, user: str) -> str:
    """The addresses that have no user yet as those of `user`."""
    return _NOBODY.sub(f"//{user}:{password(user)}@", urls)


def check(output: list[str]) -> None:
    """Raises AssertionError if a server with that output has refused a right."""
    found = [line for line in output if "Violation" in line]
    assert not found, "\n".join(found)
