"""What `make run` plans and shows; that it runs is in tests/e2e/test_run.py."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.running.development import Development
from scripts.running.plan import ROOT, Fault, Part, check_ports, locked, plan
from scripts.running.screen import Screen, compact, serious
from tests.support.ports import free_port


def a_part(name: str, port: int) -> Part:
    return Part(name, (), {}, "127.0.0.1", port, f"TIDEGATE_{name.upper()}_PORT", 1)


def test_nats_starts_first_and_the_gateway_last() -> None:
    made = plan({})
    assert [(part.name, part.port) for part in made.parts] == [
        ("nats", 4222),
        ("ai-worker", 8002),
        ("publisher-api", 8001),
        ("gateway", 8000),
    ]
    assert made.part("gateway").command == (sys.executable, "-m", "gateway")


def test_the_parts_are_told_where_the_others_are() -> None:
    made = plan({"TIDEGATE_NATS_PORT": "5222", "TIDEGATE_GATEWAY_PORT": "9000", "TIDEGATE_PUBLISHER_PORT": "9001"})
    gateway, publisher = made.part("gateway").env, made.part("publisher-api").env
    assert gateway["TIDEGATE_NATS_URL"] == publisher["TIDEGATE_NATS_URL"] == "nats://127.0.0.1:5222"
    assert gateway["TIDEGATE_PORT"] == "9000"
    assert gateway["TIDEGATE_PUBLISHER_URL"] == "http://127.0.0.1:9001"
    assert publisher["TIDEGATE_CORS_ORIGINS"] == "http://127.0.0.1:9000,http://localhost:9000"


def test_what_the_user_set_stays() -> None:
    given = {
        "TIDEGATE_CORS_ORIGINS": "*",
        "TIDEGATE_PUBLISHER_URL": "https://example.com",
        "TIDEGATE_DRAIN_SECONDS": "7",
        "TIDEGATE_AI_BACKEND": "scripted",
    }
    made = plan(given)
    assert made.part("publisher-api").env["TIDEGATE_CORS_ORIGINS"] == "*"
    assert made.part("gateway").env["TIDEGATE_PUBLISHER_URL"] == "https://example.com"
    assert made.part("ai-worker").env["TIDEGATE_AI_BACKEND"] == "scripted"
    assert made.part("gateway").stop_seconds == 12


def test_an_address_of_nats_in_a_file_is_refused() -> None:
    """A server was started, and each service then ended over two addresses."""
    with pytest.raises(Fault, match="set TIDEGATE_NATS_URL") as found:
        plan({"TIDEGATE_NATS_URL_FILE": "/run/nats/url"})
    assert found.value.code == 2


def test_with_a_nats_url_no_server_is_started() -> None:
    made = plan({"TIDEGATE_NATS_URL": "nats://user:secret@[::1]:5000, other"})
    assert [part.name for part in made.parts] == ["ai-worker", "publisher-api", "gateway"]
    assert made.nats_servers == [("::1", 5000), ("other", 4222)]


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("TIDEGATE_GATEWAY_PORT", "http"),
        ("TIDEGATE_WORKER_PORT", "0"),
        ("TIDEGATE_NATS_PORT", "65536"),
        ("TIDEGATE_PUBLISHER_PORT", "-1"),
        ("TIDEGATE_DRAIN_SECONDS", "soon"),
        ("TIDEGATE_READY_SECONDS", "-1"),
        ("TIDEGATE_NATS_URL", "nats://host:port"),
    ],
)
def test_a_value_that_can_not_be_is_refused_by_the_variables_name(variable: str, text: str) -> None:
    with pytest.raises(Fault, match=variable) as caught:
        plan({variable: text})
    assert caught.value.code == 2


def test_a_port_in_use_is_refused_by_the_variables_name() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(Fault, match="TIDEGATE_B_PORT") as caught:
            check_ports([a_part("a", free_port()), a_part("b", other.getsockname()[1])])
    assert caught.value.code == 2


def test_a_port_given_twice_is_refused() -> None:
    port = free_port()
    with pytest.raises(Fault, match=r"both a and b: set TIDEGATE_B_PORT"):
        check_ports([a_part("a", port), a_part("b", port)])


def test_one_data_folder_is_used_by_one_run_at_a_time(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(Fault, match="TIDEGATE_DATA_DIR"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_a_data_folder_that_can_not_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Fault, match="TIDEGATE_DATA_DIR"), locked(tmp_path / "file" / "data"):
        pass


def test_json_log_lines_are_shown_as_time_level_message() -> None:
    line = {
        "timestamp": "2026-01-02T03:04:05.678901+00:00",
        "level": "INFO",
        "message": "started",
        "service": "gateway",
    }
    assert compact(json.dumps(line)) == "03:04:05 INFO    started"


def test_the_stack_of_an_error_stays_visible() -> None:
    line = {"timestamp": "2026-01-02T03:04:05+00:00", "level": "ERROR", "message": "broke", "exc_info": "Traceback: x"}
    assert compact(json.dumps(line)) == "03:04:05 ERROR   broke\nTraceback: x"


@pytest.mark.parametrize("line", ["plain words", "", "{broken", "[1, 2]", '{"no": "message"}', "12"])
def test_other_lines_are_shown_as_they_are(line: str) -> None:
    assert compact(line) == line


def test_lines_of_nats_server_are_shown_alike() -> None:
    assert compact("[77] 2026/01/02 03:04:05.678901 [WRN] slow disk") == "03:04:05 WRN     slow disk"


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ('{"level": "WARNING", "message": "m"}', True),
        ('{"level": "INFO", "message": "m"}', False),
        ("[7] 2026/01/02 03:04:05.6 [ERR] m", True),
        ("[7] 2026/01/02 03:04:05.6 [INF] m", False),
        ("WARNING", False),
        ("[]", False),
    ],
)
def test_warnings_are_told_from_the_rest(line: str, shown: bool) -> None:
    assert serious(line) is shown


def test_without_a_terminal_lines_are_prefixed_and_nothing_else() -> None:
    out = io.StringIO()
    Screen(out, terminal=False).log("gateway", '{"message": "m"}')
    assert out.getvalue() == 'gateway       | {"message": "m"}\n'


def test_on_a_terminal_the_prefix_is_coloured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    out = io.StringIO()
    Screen(out, terminal=True).log("gateway", "x")
    assert out.getvalue() == "\x1b[32mgateway      \x1b[0m | x\n"


@pytest.mark.parametrize("given", ["TIDEGATE_AUTH_SECRET_FILE", "TIDEGATE_AUTH_KEYS", "TIDEGATE_AUTH_JWKS_URL"])
def test_a_secret_is_made_for_tokens_alone_and_not_beside_the_users_own(tmp_path: Path, given: str) -> None:
    data = {"TIDEGATE_DATA_DIR": str(tmp_path)}
    made = plan({**data, "TIDEGATE_AUTH": "token"})
    assert made.secret == tmp_path / "auth.secret"
    assert {part.env.get("TIDEGATE_AUTH_SECRET_FILE") for part in made.parts if part.name != "nats"} == {
        str(made.secret)
    }
    assert plan(data).secret is None
    assert plan({**data, "TIDEGATE_AUTH": "open"}).secret is None
    assert plan({**data, "TIDEGATE_AUTH": "token", given: "theirs"}).secret is None


def test_make_passes_the_mode_on_if_it_was_told_so_itself() -> None:
    make = ["make", "--dry-run", "--no-print-directory", "run"]
    environ = {"PATH": os.environ["PATH"], "AUTH": "of another program's"}

    def recipe(*more: str) -> str:
        done = subprocess.run([*make, *more], cwd=ROOT, env=environ, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()[-1]

    assert "TIDEGATE_AUTH=token" in recipe("AUTH=token")
    assert "TIDEGATE_AUTH" not in recipe()


def test_the_printed_token_is_one_that_services_allow(tmp_path: Path) -> None:
    environ = {"TIDEGATE_AUTH_SECRET": "a secret of 32 bytes or more: it is long"}
    assert [
        made.hours
        for more in ({}, {"TIDEGATE_AUTH_MAX_TOKEN_SECONDS": "1800"})
        if (made := Development.of({**environ, **more})) is not None
    ] == [12, 0.5]
    (tmp_path / "auth.secret").write_text("the secret of an earlier run, 32 bytes or more")
    elsewhere = {"TIDEGATE_AUTH_JWKS_URL": "https://id.example/keys", "TIDEGATE_DATA_DIR": str(tmp_path)}
    assert Development.of(elsewhere) is None
