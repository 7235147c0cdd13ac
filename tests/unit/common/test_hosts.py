"""Which hosts a request may name, over generated forms of them."""

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_common.errors import InvalidHost, WrongHost
from tidegate_common.runtime.hosts import Hosts, split_target

HOSTS = Hosts(["Example.COM.", "gateway", "tide_gate"])


class Form(NamedTuple):
    """A host in one of its spellings, and what it has to give."""

    host: str
    error: type[Exception] | None


@st.composite
def forms(draw: st.DrawFn) -> Form:
    error: type[Exception] | None
    kind = draw(st.sampled_from(["ours", "address", "six", "foreign", "no host"]))
    if kind == "ours":
        host, error = draw(st.sampled_from(["localhost", "example.com", "gateway", "tide_gate"])), None
    elif kind == "address":
        host, error = str(draw(st.ip_addresses(v=4))), None
    elif kind == "six":
        address = draw(st.ip_addresses(v=6))
        zone = draw(st.sampled_from(["", "%25eth0"]))
        host, error = f"[{draw(st.sampled_from([str(address), address.exploded]))}{zone}]", None
    elif kind == "foreign":
        label = draw(st.text("abcdefghij", min_size=3, max_size=8))
        wrap = draw(
            st.sampled_from(["{}.example", "{}.localhost", "localhost.{}", "example.com.{}", "127.0.0.1.{}", "x{}"])
        )
        host, error = wrap.format(label), WrongHost
    else:
        host, error = (
            draw(st.sampled_from(["", "[]", "[::1", "::1", "[localhost]", "a b", "a/b", "ä", "a,b@c"])),
            InvalidHost,
        )
    if kind in ("ours", "foreign"):
        host = "".join(draw(st.sampled_from([letter, letter.upper()])) for letter in host)
    if kind in ("ours", "address", "foreign"):
        host += draw(st.sampled_from(["", "."]))
    if error is not InvalidHost and draw(st.integers(0, 5)) == 0:
        host, error = draw(st.sampled_from(["user@", "user:pw@", "localhost@"])) + host, InvalidHost
    port = draw(
        st.sampled_from(["", ":", ":0", ":80", ":8001", ":65536", ":99999999999", ":x", ":-1", ":80:80", ": 80"])
    )
    if host and port in (":x", ":-1", ":80:80", ": 80"):
        error = InvalidHost
    return Form(host + port, error)


@given(forms(), st.booleans())
def test_a_host_is_ours_an_address_or_refused(form: Form, absolute: bool) -> None:
    """In an absolute-form target the same forms count, whatever the header says."""
    values, authority = ([b"elsewhere.example"], form.host.encode()) if absolute else ([form.host.encode()], None)
    if form.error is None:
        HOSTS.check(values, "1.1", "/api/sse", authority)
    else:
        with pytest.raises(form.error):
            HOSTS.check(values, "1.1", "/api/sse", authority)
    HOSTS.check(values, "1.1", "/healthz", authority)
    if not absolute:
        assert HOSTS.passes([(b"accept", b"x"), (b"host", values[0])]) == (form.error is None)


@given(st.lists(forms(), min_size=2, max_size=3), st.sampled_from(["1.0", "1.1"]), st.sampled_from(["/", "/readyz"]))
def test_several_hosts_are_never_taken(several: list[Form], version: str, path: str) -> None:
    values = [form.host.encode() for form in several]
    with pytest.raises(InvalidHost, match="several"):
        HOSTS.check(values, version, path)
    assert not HOSTS.passes([(b"host", value) for value in values])


def test_only_old_http_may_leave_the_host_out() -> None:
    HOSTS.check([], "1.0", "/")
    for version in ("1.1", "2.0", "0.9"):
        with pytest.raises(InvalidHost, match="needs a Host"):
            HOSTS.check([], version, "/")


@given(st.binary(max_size=60))
def test_no_bytes_are_taken_for_a_host_by_mistake(raw: bytes) -> None:
    try:
        HOSTS.check([raw], "1.1", "/")
    except (InvalidHost, WrongHost):
        return
    text = raw.decode("ascii").lower()
    name = text if text.startswith("[") else text.partition(":")[0].removesuffix(".")
    assert name.startswith("[") or name in ("localhost", "example.com", "gateway", "tide_gate") or name.count(".") == 3


@pytest.mark.parametrize(
    ("target", "authority", "path"),
    [
        (b"/a?b=http://c/d", None, b"/a?b=http://c/d"),
        (b"//a/b", None, b"//a/b"),
        (b"*", None, b"*"),
        (b"http://a:1/b?c", b"a:1", b"/b?c"),
        (b"HTTPS://u:p@a", b"u:p@a", b"/"),
        (b"http://a?b", b"a", b"/?b"),
        (b"http:///b", b"", b"/b"),
    ],
)
def test_the_authority_of_a_target(target: bytes, authority: bytes | None, path: bytes) -> None:
    assert split_target(target) == (authority, path)
