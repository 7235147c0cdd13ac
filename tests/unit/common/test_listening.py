"""The sockets of `TIDEGATE_HOST`: the same addresses for one process and for several on one port."""

import asyncio
import socket
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.ports import free_port
from tidegate_common.errors import ConfigError
from tidegate_common.runtime.listening import is_loopback, listening, plain_host


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(
    ("host", "reached"),
    [
        ("::", {"127.0.0.1", "::1"}),
        ("[::]", {"127.0.0.1", "::1"}),
        ("0.0.0.0", {"127.0.0.1"}),
        ("::1", {"::1"}),
        ("[::1]", {"::1"}),
        ("127.0.0.1", {"127.0.0.1"}),
        ("::ffff:127.0.0.1", {"127.0.0.1"}),
    ],
)
def test_a_host_is_the_same_addresses_whether_a_port_is_shared_or_not(
    host: str, reached: set[str], shared: bool
) -> None:
    """`::` was IPv6 alone with one worker and both kinds with two; `[::1]` did not start at all."""
    with ExitStack() as stack:
        bound = [stack.enter_context(each) for each in listening(host, 0, shared=shared)]
        for each in bound:
            each.listen()
        port = bound[0].getsockname()[1]
        assert {address for address in ("127.0.0.1", "::1") if connects(address, port)} == reached


def test_a_name_is_its_addresses() -> None:
    with ExitStack() as stack:
        bound = [stack.enter_context(each) for each in listening("localhost", 0)]
        for each in bound:
            each.listen()
        assert connects("127.0.0.1", bound[0].getsockname()[1])


def connects(address: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as client:
        return client.connect_ex((address, port)) == 0


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
def test_a_host_that_can_not_be_served_is_said(host: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        listening(host, 1200)
    (fault,) = error.value.faults
    assert said in fault
    assert "TIDEGATE_HOST" in fault


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
