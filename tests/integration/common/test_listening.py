"""`TIDEGATE_HOST` means the same for one process and for several on one port."""

import asyncio
import itertools
import socket
import sys
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.nats import nats_server
from tests.support.ports import free_port
from tests.support.processes import running, service
from tests.support.waiting import until
from tidegate_common.errors import ConfigError
from tidegate_common.runtime.listening import is_loopback, listening, plain_host

REACHED = [
    ("::", ["127.0.0.1", "[::1]"]),
    ("[::]", ["127.0.0.1", "[::1]"]),
    ("0.0.0.0", ["127.0.0.1"]),
    ("::1", ["[::1]"]),
    ("[::1]", ["[::1]"]),
    ("127.0.0.1", ["127.0.0.1"]),
    ("::ffff:127.0.0.1", ["127.0.0.1"]),
    ("localhost", ["127.0.0.1"]),
]


async def answers(address: str, port: int) -> bool:
    async with httpx.AsyncClient() as client:
        try:
            return (await client.get(f"http://{address}:{port}/healthz")).status_code == 200
        except httpx.TransportError:
            return False


async def test_no_answer_waits_for_an_acknowledgement_on_asyncio_s_own_loop() -> None:
    """Its connections had Nagle's algorithm, so that each answer in two pieces took 40 ms more."""
    (bound,) = listening("127.0.0.1", 0)
    delays: asyncio.Queue[int] = asyncio.Queue()

    def accepted(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        delays.put_nowait(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    async with await asyncio.start_server(accepted, sock=bound):
        _, writer = await asyncio.open_connection(*bound.getsockname())
        assert await delays.get() == 1
        writer.close()


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(("host", "reached"), REACHED)
async def test_a_host_is_the_same_addresses_however_many_workers_there_are(
    tmp_path: Path, host: str, reached: list[str], workers: int
) -> None:
    """`::` was IPv6 alone with one worker and both kinds with two; `[::1]` did not start at all."""
    port, own = free_port(), free_port(2)
    async with nats_server(tmp_path) as server:
        env = {
            "TIDEGATE_NATS_URL": server.url,
            "TIDEGATE_HOST": host,
            "TIDEGATE_AUTH": "open",
            "TIDEGATE_PORT": str(port),
            "TIDEGATE_WORKERS": str(workers),
            "TIDEGATE_DRAIN_SECONDS": "1",
            **({"TIDEGATE_WORKER_PORTS": str(own)} if workers > 1 else {}),
        }
        async with running(sys.executable, "-m", "gateway", env=env) as run:
            ports = [port, *range(own, own + workers)] if workers > 1 else [port]

            async def ready() -> bool:
                assert run.process.returncode is None, "\n".join(run.output)
                return all([await answers(reached[0], each) for each in ports])

            await until(ready, "all listen", 30)
            if host != "localhost":
                for each, address in itertools.product(ports, ["127.0.0.1", "[::1]"]):
                    assert await answers(address, each) == (address in reached), (each, address)
            assert await run.stop() == 0, "\n".join(run.output)


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("[::1", "no address and no host name"),
        ("127.0.0.1:8000", "no address and no host name"),
        ("[::1]:8000", "no address and no host name"),
        ("http://localhost", "no address and no host name"),
        ("1.2.3", "no address and no host name"),
        ("::g", "no address and no host name"),
        ("*", "no address and no host name"),
        ("nowhere.invalid", "is no address of this machine"),
        ("203.0.113.7", "cannot assign requested address"),
        ("2001:db8::1", "cannot assign requested address"),
    ],
)
async def test_a_host_that_can_not_be_served_is_said(host: str, said: str, workers: str) -> None:
    env = {"TIDEGATE_HOST": host, "TIDEGATE_AUTH": "open", "TIDEGATE_PORT": "1200", "TIDEGATE_WORKERS": workers}
    async with running(sys.executable, "-m", "gateway", env=env) as run:
        assert await run.process.wait() == 2
        await run.stop()
        assert len(run.output) == 1, run.output
        assert said in run.output[0]
        assert "TIDEGATE_HOST" in run.output[0]


@pytest.mark.parametrize(
    ("mine", "theirs", "free"),
    [
        ("127.0.0.1", "::", False),
        ("::1", "::", False),
        ("::", "127.0.0.1", False),
        ("0.0.0.0", "127.0.0.1", False),
        ("::1", "127.0.0.1", True),
        ("127.0.0.1", "::1", True),
    ],
)
def test_a_port_is_taken_where_one_of_its_addresses_is(mine: str, theirs: str, free: bool) -> None:
    port = free_port()
    held = listening(theirs, port)
    for each in held:
        each.listen()
    try:
        if free:
            held += listening(mine, port)
        else:
            with pytest.raises(ConfigError, match=f":{port} can't be listened on \\(address already in use\\)"):
                listening(mine, port)
    finally:
        for each in held:
            each.close()


@pytest.mark.parametrize("host", ["::", "localhost", "127.0.0.1"])
def test_a_free_port_is_the_same_for_all_addresses(host: str) -> None:
    bound = listening(host, 0)
    try:
        assert len({each.getsockname()[1] for each in bound}) == 1
        families = [each.family for each in bound]
        assert families == [socket.AF_INET6, socket.AF_INET] if host == "::" else socket.AF_INET in families
    finally:
        for each in bound:
            each.close()


async def test_of_two_that_start_at_once_on_one_port_one_says_that_it_is_taken(tmp_path: Path) -> None:
    """Both found it free before they asked for NATS; the second one ended with a stack."""
    async with nats_server(tmp_path) as server:
        port = free_port()
        env = {"TIDEGATE_NATS_URL": server.url, "TIDEGATE_PORT": str(port)}
        async with service("publisher_api", port, env), running(sys.executable, "-m", "gateway", env=env) as late:
            assert await late.process.wait() == 2
            await late.stop()
            taken = f"gateway: 127.0.0.1:{port} can't be listened on (address already in use)"
            assert late.output == [f"{taken}: set TIDEGATE_PORT or TIDEGATE_HOST"]


@given(st.ip_addresses())
def test_every_address_is_taken_with_and_without_brackets(address: object) -> None:
    text = str(address)
    assert plain_host(f"[{text}]") == plain_host(text)
    assert is_loopback(text) == (plain_host(text).startswith("127.") or plain_host(text) == "::1")


@given(st.text(max_size=30))
def test_no_text_is_more_than_a_host_by_mistake(text: str) -> None:
    try:
        host = plain_host(text)
    except ValueError:
        return
    assert host
    assert not set(host) & set(" /@[]*\\\n\0")
