"""NATS entered with a key in place of a password: nkeys, and JWTs of an operator. What is wrong is said, no seed is."""

import sys
from pathlib import Path

import pytest

from tests.support.bus import SUBJECTS
from tests.support.nats import nats_server
from tests.support.nats_keys import ACCOUNT, USER, new_key, operation
from tests.support.ports import free_port
from tests.support.processes import running, service
from tests.support.waiting import until
from tidegate_common.bus.connection import connect
from tidegate_common.bus.streams.definitions import StreamLimits, ensure_streams
from tidegate_common.bus.wire.key_file import KeyFile
from tidegate_common.errors import BrokerUnavailable

CREDS, NKEY = "TIDEGATE_NATS_CREDS_FILE", "TIDEGATE_NATS_NKEY_FILE"


def written(folder: Path, text: str) -> str:
    file = folder / "key"
    file.write_text(text)
    return str(file)


async def refused(url: str, key: KeyFile | None) -> str:
    with pytest.raises(BrokerUnavailable) as found:
        async with connect(url, SUBJECTS, "test", key=key, connect_seconds=1.5):
            pass
    return str(found.value)


async def test_an_nkey_enters_and_another_is_said_to_be_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    known, other = new_key(USER), new_key(USER)
    config = f"authorization {{ users: [ {{ nkey: {known.public} }} ] }}"
    async with nats_server(tmp_path / "nats", config=config) as nats:
        key = KeyFile(NKEY, written(tmp_path, known.seed + "\n"), jwt=False)
        async with connect(nats.url, SUBJECTS, "test", key=key) as bus:
            await ensure_streams(bus, StreamLimits(), update=True)
            written(tmp_path, other.seed)
            said = await refused(nats.url, key)
        assert "NATS refuses the key of TIDEGATE_NATS_NKEY_FILE" in said
        assert "NATS refuses user and password" in await refused(nats.url, None)
    assert known.seed not in caplog.text + said
    assert other.seed not in caplog.text + said


async def test_a_jwt_enters_and_one_that_is_over_is_said_to_be_that(tmp_path: Path) -> None:
    made = operation()
    async with nats_server(tmp_path / "nats", config=made.config) as nats:
        key = KeyFile(CREDS, written(tmp_path, made.creds()), jwt=True)
        async with connect(nats.url, SUBJECTS, "test", key=key) as bus:
            await ensure_streams(bus, StreamLimits(), update=True)
        written(tmp_path, made.creds(seconds=-60))
        assert "NATS refuses the key of TIDEGATE_NATS_CREDS_FILE" in await refused(nats.url, key)


async def test_a_jwt_that_is_renewed_in_its_file_goes_on_and_the_end_of_the_old_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """NATS ends the connection of a user whose JWT is over: the file has to be read again."""
    made = operation()
    async with nats_server(tmp_path / "nats", config=made.config) as nats:
        key = KeyFile(CREDS, written(tmp_path, made.creds(seconds=2)), jwt=True)
        async with connect(nats.url, SUBJECTS, "test", key=key) as bus:
            written(tmp_path, made.creds())
            await until(lambda: bus.losses == 1 and bus.connected, "another connection, with the new JWT", 10)
            await bus.round_trip()
    assert "user authentication expired" in caplog.text.lower()
    assert "TIDEGATE_NATS_CREDS_FILE needs a newer one" in caplog.text


async def test_a_service_enters_by_its_setting(tmp_path: Path) -> None:
    made = operation()
    async with nats_server(tmp_path / "nats", config=made.config) as nats:
        env = {"TIDEGATE_NATS_URL": nats.url, CREDS: written(tmp_path, made.creds())}
        async with service("publisher_api", free_port(), env) as run:
            assert not run.said("BEGIN")


def changed(seed: str) -> str:
    """Not at its end: the last character has bits that mean nothing."""
    return seed[:10] + ("A" if seed[10] != "A" else "B") + seed[11:]


@pytest.mark.parametrize(
    ("variable", "text", "said"),
    [
        (NKEY, None, "can't be read (No such file or directory)"),
        (NKEY, "no seed\n", "has to hold a user's seed (SU…)"),
        (NKEY, changed(new_key(USER).seed), "is not that of a user's key"),
        (NKEY, new_key(ACCOUNT).seed, "has to hold a user's seed (SU…)"),
        (CREDS, new_key(USER).seed, "has to hold a user's JWT and its seed (SU…)"),
    ],
    ids=["missing", "nothing", "misread", "account", "seed alone"],
)
async def test_a_file_that_can_not_be_used_ends_the_start_with_exit_code_2(
    tmp_path: Path, variable: str, text: str | None, said: str
) -> None:
    path = str(tmp_path / "nowhere") if text is None else written(tmp_path, text)
    async with running(sys.executable, "-m", "gateway", env={variable: path}) as run:
        assert await run.process.wait() == 2
        await until(lambda: run.said(f"{variable}: ") and run.said(said), "it is said")
        assert text is None or not run.said(text.strip()), run.output


async def test_a_password_beside_a_key_is_refused(tmp_path: Path) -> None:
    env = {NKEY: written(tmp_path, new_key(USER).seed), "TIDEGATE_NATS_URL": "nats://ann:secret@127.0.0.1"}
    async with running(sys.executable, "-m", "gateway", env=env) as run:
        assert await run.process.wait() == 2
        await until(lambda: run.said("have no user or password"), "it is said")
        assert not run.said("secret")
