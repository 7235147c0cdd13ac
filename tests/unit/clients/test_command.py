"""The command `tidegate`, run as a process: what it prints, writes and refuses."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey

from tidegate_common.auth.api_keys import parse
from tidegate_common.contract.principal import ADMIN

SECRET = "a secret of the command: 32 bytes or more"
COMMAND = Path(sys.executable).with_name("tidegate")


def tidegate(
    *arguments: str, env: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """The command run with `env` beside PATH and HOME alone."""
    base = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [COMMAND, *arguments], env={**base, **(env or {})}, cwd=cwd, capture_output=True, text=True, timeout=30
    )


def claims(token: str) -> dict[str, Any]:
    """What a token holds, without a look at its signature."""
    part = token.strip().split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


def made(*arguments: str, **env: str) -> dict[str, Any]:
    """The claims of the token that is made."""
    done = tidegate("token", *arguments, env={"TIDEGATE_AUTH_SECRET": SECRET, **env})
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+\n", done.stdout), "the token stands alone, so that $(…) can take it"
    return claims(done.stdout)


def test_a_token_has_the_rights_that_were_named_and_no_other() -> None:
    now = time.time()
    found = made(
        *("ann", "--subscribe", "topic:prices.*", "--subscribe", "broadcast", "--publish", "user:bob"),
        *("--kinds", "chat, echo", "--models", "small", "--max-tokens", "512", "--admin", "kick", "--client", "laptop"),
    )
    assert found["sub"] == "ann"
    assert found["aud"] == "tidegate"
    assert "iss" not in found
    assert now - 1 <= found["iat"] <= now + 5
    assert found["exp"] - found["iat"] == 8 * 3600
    assert found["tidegate"] == {
        "subscribe": ["topic:prices.*", "broadcast"],
        "publish": ["user:bob"],
        "admin": ["kick"],
        "jobs": {"kinds": ["chat", "echo"], "models": ["small"], "max_tokens": 512},
        "client": "laptop",
    }


def test_a_token_without_options_has_no_rights() -> None:
    assert made("ann")["tidegate"] == {}


def test_jobs_alone_are_jobs_without_a_limit() -> None:
    assert made("ann", "--jobs")["tidegate"] == {"jobs": {}}


def test_all_is_every_right_there_is() -> None:
    found = made("ann", "--all")["tidegate"]
    assert set(found["admin"]) == ADMIN
    assert {"topic:>", "broadcast"} <= set(found["subscribe"]) & set(found["publish"])
    assert found["jobs"] == {}


def test_issuer_and_audience_are_those_of_the_services() -> None:
    found = made("ann", TIDEGATE_AUTH_ISSUER="https://id.example", TIDEGATE_AUTH_AUDIENCE="shop")
    assert (found["iss"], found["aud"]) == ("https://id.example", "shop")


@pytest.mark.parametrize(("option", "seconds"), [(("--hours", "0.5"), 1800), (("--seconds", "90"), 90)])
def test_a_token_lives_as_long_as_is_said(option: tuple[str, str], seconds: int) -> None:
    found = made("ann", *option)
    assert found["exp"] - found["iat"] == seconds


def test_a_token_lives_no_longer_than_services_allow_unless_that_is_said() -> None:
    shorter = made("ann", TIDEGATE_AUTH_MAX_TOKEN_SECONDS="600")
    assert shorter["exp"] - shorter["iat"] == 600
    longer = made("ann", "--hours", "2", TIDEGATE_AUTH_MAX_TOKEN_SECONDS="600")
    assert longer["exp"] - longer["iat"] == 7200


def test_a_token_that_services_refuse_for_its_long_life_is_made_with_a_warning() -> None:
    done = tidegate("token", "ann", "--hours", "48", env={"TIDEGATE_AUTH_SECRET": SECRET})
    assert done.returncode == 0
    assert "TIDEGATE_AUTH_MAX_TOKEN_SECONDS" in done.stderr


def test_the_first_of_several_secrets_signs_wherever_it_stands(tmp_path: Path) -> None:
    (tmp_path / "s").write_text(f"{SECRET}\n")
    (tmp_path / "own" / ".data").mkdir(parents=True)
    (tmp_path / "own" / ".data" / "auth.secret").write_text(f"{SECRET}\n")
    (tmp_path / "none").mkdir()
    other = "another secret of 32 bytes or more as well"
    ways: list[tuple[tuple[str, ...], dict[str, str], str]] = [
        ((), {"TIDEGATE_AUTH_SECRET": f"{SECRET}, {other}"}, "none"),
        ((), {"TIDEGATE_AUTH_SECRET_FILE": str(tmp_path / "s")}, "none"),
        (("--secret-file", str(tmp_path / "s")), {"TIDEGATE_AUTH_SECRET": other}, "none"),
        ((), {}, "own"),
        ((), {"TIDEGATE_DATA_DIR": str(tmp_path / "own" / ".data")}, "none"),
    ]
    for options, env, folder in ways:
        done = tidegate("token", "ann", *options, cwd=tmp_path / folder, env=env)
        assert done.returncode == 0, done.stderr
        assert jwt.decode(done.stdout.strip(), OctKey.import_key(SECRET)).claims["sub"] == "ann"


@pytest.mark.parametrize(
    ("arguments", "env", "says"),
    [
        (("token", "ann"), {}, "set TIDEGATE_AUTH_SECRET, or start `make run AUTH=token`"),
        (("token", "ann"), {"TIDEGATE_AUTH_SECRET": "short"}, "TIDEGATE_AUTH_SECRET: a secret has 32 bytes or more"),
        (("token", "ann", "--secret-file", "nowhere"), {}, "nowhere can't be read: No such file"),
        (
            ("token", "ann"),
            {"TIDEGATE_AUTH_SECRET": SECRET, "TIDEGATE_AUTH_MAX_TOKEN_SECONDS": "day"},
            "'day' is no number",
        ),
        (("token", "ann"), {"TIDEGATE_AUTH_SECRET": SECRET, "TIDEGATE_AUTH_SECRET_FILE": "s"}, "one of them, not both"),
        (("token", ""), {}, "argument SUB: 1 to 200 bytes"),
        (("token", "ann", "--subscribe", "prices.*"), {}, "argument --subscribe: 'prices.*' is no grant: user:ID"),
        (("token", "ann", "--publish", "topic:"), {}, "argument --publish"),
        (("token", "ann", "--admin", "root"), {}, "argument --admin: invalid choice: 'root'"),
        (("token", "ann", "--hours", "0"), {}, "argument --hours: '0' is no number above 0"),
        (("token", "ann", "--max-tokens", "-1"), {}, "argument --max-tokens"),
        (("token", "ann", "--tokens-per-day", "9"), {}, "--tokens-per-day wants --max-tokens too"),
        (("token", "ann", "--all", "--jobs"), {}, "--all is every right, without a limit: leave out jobs"),
        (("keys", "add", "shop"), {}, "the following arguments are required: --file"),
        (("keys", "add", "Shop", "--file", "k"), {}, "argument ID: 'Shop' is no id"),
        (("keys", "add", "s", "--file", "k", "--expires", "soon"), {}, "argument --expires: 'soon' is no date"),
        (("keys", "add", "s", "--file", "k", "--expires", "2020-01-01"), {}, "2020-01-01 has been already"),
        (("keys", "add", "s", "--file", "k", "--limit", "publishes=9"), {}, "argument --limit"),
        (("keys", "add", "s", "--file", "k.json"), {}, "only TOML is written here"),
        ((), {}, "the following arguments are required: COMMAND"),
    ],
)
def test_what_can_not_be_used_is_named_and_nothing_is_made(
    tmp_path: Path, arguments: tuple[str, ...], env: dict[str, str], says: str
) -> None:
    done = tidegate(*arguments, cwd=tmp_path, env=env)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_key_is_printed_once_and_the_file_holds_its_hash_and_rights(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    done = tidegate(
        *("keys", "add", "shop-2", "--file", str(file), "--publish", "user:*", "--publish", "topic:orders.>"),
        *("--models", "small", "--admin", "presence", "--metrics", "--limit", "publishes=100/200"),
        *("--expires", "2100-01-31"),
    )
    assert done.returncode == 0, done.stderr
    key = done.stdout.strip()
    assert re.fullmatch(r"tgk_shop-2_[A-Za-z0-9_-]{43}", key)
    assert key not in file.read_text()
    [entry] = tomllib.loads(file.read_text())["key"]
    assert entry.pop("expires").isoformat() == "2100-01-31T00:00:00+00:00"
    assert entry == {
        "id": "shop-2",
        "sha256": hashlib.sha256(key.encode()).hexdigest(),
        "publish": ["user:*", "topic:orders.>"],
        "jobs": {"models": ["small"]},
        "admin": ["presence"],
        "metrics": True,
        "limits": {"publishes": "100/200"},
    }
    assert file.stat().st_mode & 0o777 == 0o600


COMMENTED = """\
# Who may publish.
[[key]]
id = "shop" # Bob's
sha256 = "00"
publish = ["user:*"]

# The old one.
[[key]]
id = "old"
sha256 = "11"
"""


def test_what_others_have_written_in_the_file_stays_and_so_do_its_mode_and_place(tmp_path: Path) -> None:
    file, link = tmp_path / "real.toml", tmp_path / "keys.toml"
    file.write_text(COMMENTED)
    file.chmod(0o640)
    link.symlink_to(file)
    env = {"TIDEGATE_API_KEYS_FILE": str(link)}
    assert tidegate("keys", "add", "cms", "--publish", "broadcast", env=env).returncode == 0
    assert tidegate("keys", "revoke", "old", env=env).returncode == 0
    text = file.read_text()
    assert text.startswith(COMMENTED.partition("\n# The old one.")[0])
    assert [entry["id"] for entry in tomllib.loads(text)["key"]] == ["shop", "cms"]
    assert link.is_symlink()
    assert file.stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keys.toml", "real.toml"]


@pytest.mark.parametrize("text", ["", "# Ours.\n", "key = []\n"], ids=["made here", "a comment", "none"])
def test_a_file_whose_last_key_was_revoked_takes_another(tmp_path: Path, text: str) -> None:
    file = tmp_path / "keys.toml"
    if text:
        file.write_text(text)
    env = {"TIDEGATE_API_KEYS_FILE": str(file)}
    for _ in range(2):
        assert tidegate("keys", "add", "shop", env=env).returncode == 0
        assert [entry.id for entry, _ in parse(file.read_bytes()).values()] == ["shop"]
        assert tidegate("keys", "revoke", "shop", env=env).returncode == 0
        assert parse(file.read_bytes()) == {}, "services can read it"
        assert tidegate("keys", "list", env=env).returncode == 0


def test_a_key_is_rotated_in_two_steps_and_keeps_its_rights(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(COMMENTED)
    done = tidegate("keys", "rotate", "shop", "--file", str(file))
    assert done.returncode == 0, done.stderr
    new = hashlib.sha256(done.stdout.strip().encode()).hexdigest()
    assert re.fullmatch(r"tgk_shop_[A-Za-z0-9_-]{43}\n", done.stdout)
    assert tomllib.loads(file.read_text())["key"][0] == {"id": "shop", "sha256": ["00", new], "publish": ["user:*"]}
    assert "keys=2  publish=user:*" in tidegate("keys", "list", "--file", str(file)).stdout
    done = tidegate("keys", "rotate", "shop", "--finish", "--file", str(file))
    assert (done.returncode, done.stdout) == (0, "")
    assert file.read_text() == COMMENTED.replace('"00"', f'"{new}"')


def test_the_list_says_what_each_key_may_do_and_no_hash(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(COMMENTED + 'jobs = { models = ["small"], max_tokens = 5 }\nexpires = 2100-01-31\n')
    done = tidegate("keys", "list", "--file", str(file))
    assert done.returncode == 0
    assert [line.split(maxsplit=1) for line in done.stdout.splitlines()] == [
        ["shop", "publish=user:*"],
        ["old", "jobs={models=small max_tokens=5}  expires=2100-01-31"],
    ]


@pytest.mark.parametrize(
    ("verb", "text", "says"),
    [
        (("add", "shop"), COMMENTED, "has a key shop already: choose another id, or rotate or revoke that one"),
        (("rotate", "cms"), COMMENTED, "has no key cms; it has shop, old"),
        (("rotate", "shop", "--finish"), COMMENTED, "it has one key alone"),
        (("rotate", "old"), COMMENTED.replace('"11"', '["11", "12"]'), "it has two keys already: finish that first"),
        (("revoke", "cms"), COMMENTED, "has no key cms; it has shop, old"),
        (("revoke", "cms"), "", "has no key cms; it has no keys"),
        (("list",), "[[key", "is no TOML"),
        (("add", "cms"), "key = 5", "keys are tables that begin with [[key]]"),
    ],
)
def test_what_can_not_be_done_leaves_the_file_as_it_was(
    tmp_path: Path, verb: tuple[str, ...], text: str, says: str
) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(text)
    done = tidegate("keys", *verb, "--file", str(file))
    assert done.returncode == 1
    assert says in done.stderr
    assert done.stdout == ""
    assert file.read_text() == text
    assert list(tmp_path.iterdir()) == [file]


def test_a_key_of_a_file_that_can_not_be_written_is_not_shown(tmp_path: Path) -> None:
    done = tidegate("keys", "add", "shop", "--file", str(tmp_path / "nowhere" / "keys.toml"))
    assert done.returncode == 1
    assert "nowhere can't be opened: No such file" in done.stderr
    assert done.stdout == ""


def test_keys_that_are_added_at_once_are_all_there(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    adding = [threading.Thread(target=tidegate, args=("keys", "add", f"k{n}", "--file", str(file))) for n in range(6)]
    for thread in adding:
        thread.start()
    for thread in adding:
        thread.join()
    assert sorted(entry["id"] for entry in tomllib.loads(file.read_text())["key"]) == [f"k{n}" for n in range(6)]


def test_a_secret_is_long_enough_and_another_each_time() -> None:
    first, second = (tidegate("secret").stdout for _ in range(2))
    assert first != second
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}\n", first)
    assert tidegate("token", "ann", env={"TIDEGATE_AUTH_SECRET": first.strip()}).returncode == 0


def test_the_module_is_the_command_too() -> None:
    done = subprocess.run([sys.executable, "-m", "tidegate", "secret"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0
    assert len(done.stdout) == 44


@pytest.mark.parametrize("missing", ["joserfc", "tomlkit"])
def test_without_what_the_command_needs_the_client_works_and_the_command_says_what_to_install(missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; import tidegate; print('here'); import tidegate.command.main"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (1, "here\n")
    assert done.stderr == f"tidegate: {missing} is missing: pip install 'tidegate[command]'\n"
