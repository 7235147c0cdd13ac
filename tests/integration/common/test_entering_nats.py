"""How NATS is entered: what is wrong with a password or with TLS is said as what it is, and no secret is said."""

import asyncio
import logging
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.bus import SUBJECTS
from tests.support.certificates import Certificates, certificates
from tests.support.gateway import running_gateway
from tests.support.nats import nats_server
from tests.support.ports import free_port
from tests.support.processes import running, service
from tests.support.scripted_nats import scripted_nats
from tests.support.waiting import until
from tidegate_common.bus.connection import connect
from tidegate_common.bus.wire import addresses
from tidegate_common.bus.wire.addresses import tls_of
from tidegate_common.errors import BrokerUnavailable

SECRET = "p@ss/w:rd#?%"


def users(password: str) -> str:
    return f'authorization {{ user: ann, password: "{password}" }}'


async def refused(url: str, seconds: float = 1.5, **options: Any) -> str:
    """What is said of a connection that can't be had."""
    with pytest.raises(BrokerUnavailable) as found:
        async with connect(url, SUBJECTS, "test", connect_seconds=seconds, **options):
            pass
    return str(found.value)


def trusting(made: Certificates, *, client: bool = False, first: bool = False) -> Any:
    files = (str(made.client), str(made.client_key)) if client else ("", "")
    return tls_of(str(made.ca), *files, first=first)


async def test_a_percent_encoded_password_enters_and_a_wrong_one_is_said_to_be_that(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The password was sent as it stood in the address: `p%40ss` never entered, and `p@ss` was none."""
    async with nats_server(tmp_path, config=users(SECRET)) as nats:
        place = nats.url.removeprefix("nats://")
        async with connect(f"nats://ann:{quote(SECRET, safe='')}@{place}", SUBJECTS, "test") as bus:
            await bus.round_trip()
        said = await refused(f"nats://ann:not-{quote(SECRET, safe='')}@{place}")
        assert "NATS refuses user and password" in said
        assert "127.0.0.1" in said
        without = await refused(f"nats://{place}")
        assert "NATS refuses user and password" in without
    everything = said + without + caplog.text
    assert SECRET not in everything
    assert quote(SECRET, safe="") not in everything
    assert caplog.text.count("no connection to NATS") == 2, "each once, however often it was tried"


async def test_a_token_enters(tmp_path: Path) -> None:
    async with nats_server(tmp_path, config='authorization { token: "a b" }') as nats:
        async with connect(nats.url.replace("//", "//a%20b@"), SUBJECTS, "test") as bus:
            await bus.round_trip()


@pytest.mark.parametrize(
    "url", [f"nats://ann:{SECRET}@host:4222", "nats://u:a,b@host", "http://host", "nats://", "nats://host:port", ","]
)
def test_an_address_that_is_none_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(ValueError, match="address") as found:
        addresses.read(url)
    assert SECRET not in str(found.value)
    assert "a,b" not in str(found.value)


@given(st.text(min_size=1), st.text(min_size=1))
def test_any_user_and_password_come_out_as_they_were_encoded(user: str, password: str) -> None:
    try:
        url = f"tls://{quote(user, safe='')}:{quote(password, safe='')}@[::1]:4223"
    except UnicodeEncodeError:
        return
    (found,) = addresses.read(f"{url}, ")
    assert found == addresses.Address("::1", 4223, True, user, password)
    assert found.netloc == "[::1]:4223"


async def test_tls_is_spoken_with_the_own_authority_and_an_unknown_one_is_said_to_be_that(tmp_path: Path) -> None:
    made = certificates(tmp_path / "certificates")
    async with nats_server(tmp_path, config=made.of_server()) as nats:
        for scheme in ("tls://", "nats://"):  # a server that wants TLS gets it, whatever the address says
            url = nats.url.replace("nats://", scheme)
            async with connect(url, SUBJECTS, "test", tls=trusting(made)) as bus:
                await bus.round_trip()
            assert "certificate is not trusted" in await refused(url)


async def test_a_certificate_of_the_client_is_asked_for_by_its_name(tmp_path: Path) -> None:
    made = certificates(tmp_path / "certificates")
    async with nats_server(tmp_path, config=made.of_server("verify: true")) as nats:
        url = nats.url.replace("nats://", "tls://")
        async with connect(url, SUBJECTS, "test", tls=trusting(made, client=True)) as bus:
            await bus.round_trip()
        assert "TIDEGATE_NATS_CERT_FILE" in await refused(url, tls=trusting(made))


@pytest.mark.parametrize("real", [True, False])
async def test_a_server_without_tls_gets_no_password_from_an_address_with_tls(tmp_path: Path, real: bool) -> None:
    """The connection was made silently in the clear, the password with it."""
    if real:
        async with nats_server(tmp_path) as nats:
            assert "has no TLS" in await refused(nats.url.replace("nats://", "tls://"))
        return
    async with scripted_nats() as scripted:
        assert "has no TLS" in await refused(scripted.url.replace("nats://", "tls://ann:secret@"))
        assert scripted.connections > 0
        assert scripted.connects == []


async def test_a_handshake_before_all_else_is_said_to_be_wanted_and_can_be_had(tmp_path: Path) -> None:
    made = certificates(tmp_path / "certificates")
    async with nats_server(tmp_path, config=made.of_server("handshake_first: true")) as nats:
        url = nats.url.replace("nats://", "tls://")
        async with connect(url, SUBJECTS, "test", tls=trusting(made, first=True)) as bus:
            await bus.round_trip()
        assert "TIDEGATE_NATS_TLS_FIRST=true" in await refused(url, 5, tls=trusting(made))
    async with nats_server(tmp_path, config=made.of_server()) as usual:
        said = await refused(usual.url.replace("nats://", "tls://"), 5, tls=trusting(made, first=True))
        assert "unset TIDEGATE_NATS_TLS_FIRST" in said


async def test_tls_outlives_reconnects_and_what_is_wrong_then_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = certificates(tmp_path / "certificates")
    other = certificates(tmp_path / "other")
    got: list[bytes] = []
    async with nats_server(tmp_path, config=made.of_server()) as nats:
        async with connect(nats.url, SUBJECTS, "test", tls=trusting(made)) as bus:
            bus.client.subscribe_direct("news", lambda _, __, payload: got.append(payload))
            await bus.round_trip()
            await nats.run.stop()
            async with nats_server(tmp_path, nats.port, config=other.of_server()):
                await until(lambda: "certificate is not trusted" in caplog.text, "it is said")
                await asyncio.sleep(0)
            assert not bus.connected
            async with nats_server(tmp_path, nats.port, config=made.of_server()):
                await until(lambda: bus.connected, "it is back", 20)
                bus.client.publish_direct("news", b"again")
                await until(lambda: got == [b"again"], "it hears again")
    said = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    assert sum("certificate is not trusted" in each for each in said) == 1, said


@pytest.mark.parametrize("module", ["gateway", "publisher_api", "ai_worker"])
async def test_a_process_that_nats_refuses_for_long_is_not_alive_and_ends(tmp_path: Path, module: str) -> None:
    """The password was changed, and the process has the old one: started again it may get the new one."""
    async with nats_server(tmp_path, config=users("old")) as nats:
        port = free_port()
        env = {
            "TIDEGATE_NATS_URL": nats.url.replace("//", "//ann:old@"),
            "TIDEGATE_NATS_REFUSED_SECONDS": "2",
            "TIDEGATE_DRAIN_SECONDS": "3",
            "TIDEGATE_AI_BACKEND": "scripted",
        }
        async with service(module, port, env) as run, httpx.AsyncClient() as client:
            assert (await client.get(f"http://127.0.0.1:{port}/healthz")).status_code == 200
            await nats.reload(users("new"))
            async with asyncio.timeout(30):
                code = await run.process.wait()
            assert code == 3, run.output
            assert run.count("NATS has refused this process for too long") == 1, run.output
            assert run.count("no connection to NATS") == 1, run.output
            assert not run.said("ann:old")


async def test_a_process_that_is_about_to_end_says_that_it_is_not_alive(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as nats, running_gateway(nats.url) as running, httpx.AsyncClient() as client:
        running.bus.refused.set_result("a wrong password")
        answer = await client.get(f"{running.url}/healthz")
        assert (answer.status_code, answer.json()["status"]) == (503, "ending")
        assert "a wrong password" in answer.json()["fault"]


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("TIDEGATE_NATS_URL", f"nats://ann:{SECRET}@host", "TIDEGATE_NATS_URL: address 1 is none"),
        ("TIDEGATE_NATS_CA_FILE", "/nowhere.pem", "TIDEGATE_NATS_CA_FILE: /nowhere.pem can't be used"),
        ("TIDEGATE_NATS_CERT_FILE", "/nowhere.pem", "TIDEGATE_NATS_CERT_FILE: /nowhere.pem and its key"),
    ],
)
async def test_what_can_not_be_used_ends_the_start_with_exit_code_2(variable: str, value: str, said: str) -> None:
    async with running(sys.executable, "-m", "gateway", env={variable: value}) as run:
        assert await run.process.wait() == 2
        await until(lambda: run.said(said), "it is said")
        assert not run.said(SECRET)
