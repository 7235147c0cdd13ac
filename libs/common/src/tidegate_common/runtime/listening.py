"""The sockets that a process listens on: the same for one process and for several on one port."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import re
import socket

from tidegate_common.errors import ConfigError

_ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT)
"""How the system says that it has no such address, or no such kind of address."""

_TRIES = 8
"""How often a free port is looked for if two addresses are to have the same one."""

_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?\.?")


def plain_host(host: str) -> str:
    """`host` as sockets take it: without the brackets of an URL, and an IPv4 address that is written as an IPv6 one
    as what it is. Raises ValueError if it is no address and can be no name.
    """
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        if bare != host or not _NAME.fullmatch(host) or re.fullmatch(r"[0-9.]*", host):
            raise ValueError(f"{host} is no address and no host name (127.0.0.1, ::1, localhost)") from None
        return host
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    try:
        return ipaddress.ip_address(plain_host(host)).is_loopback
    except ValueError:
        return host.lower().removesuffix(".") == "localhost"


def in_url(host: str, port: int) -> str:
    """`host` and `port` as they are written in an address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def listening(host: str, port: int, *, shared: bool = False, variable: str = "TIDEGATE_PORT") -> list[socket.socket]:
    """Bound sockets, one for each address of `host`. Raises ConfigError, which names the port's `variable`.

    `::` is every address, of IPv4 too, by a socket of each kind: with one for both, IPv4 clients would have addresses
    (`::ffff:192.0.2.1`) that no network in the settings matches. A name is all of its addresses that this machine has.
    A `shared` port is one that other processes of the same user may bind, too (SO_REUSEPORT): the kernel spreads
    connections over them.
    """
    addresses = _addresses(host, port)
    tries = _TRIES if port == 0 and len(addresses) > 1 else 1
    while True:
        tries -= 1
        try:
            return _bind(addresses, port, shared)
        except OSError as error:
            if tries and error.errno == errno.EADDRINUSE:
                continue
            raise ConfigError([cannot_listen(in_url(host, port), error, variable)]) from None


def cannot_listen(where: str, error: OSError, variable: str = "TIDEGATE_PORT") -> str:
    """What to do about an address that can't be had."""
    reason = (error.strerror or str(error)).lower()
    return f"{where} can't be listened on ({reason}): set {variable} or TIDEGATE_HOST"


def _addresses(host: str, port: int) -> list[str]:
    try:
        host = plain_host(host)
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (ValueError, OSError, UnicodeError) as error:
        reason = error.strerror.lower() if isinstance(error, socket.gaierror) and error.strerror else str(error)
        raise ConfigError([f"TIDEGATE_HOST: {host} is no address of this machine ({reason})"]) from None
    addresses = list(dict.fromkeys(_with_zone(entry[4]) for entry in found))
    return ["::", "0.0.0.0"] if addresses == ["::"] else addresses


def _with_zone(address: tuple[object, ...]) -> str:
    """A link-local address is one of its interface only."""
    zone = f"%{address[3]}" if len(address) == 4 and address[3] and "%" not in str(address[0]) else ""
    return f"{address[0]}{zone}"


def _bind(addresses: list[str], port: int, shared: bool) -> list[socket.socket]:
    bound: list[socket.socket] = []
    missing: OSError | None = None
    with contextlib.ExitStack() as stack:
        for address in addresses:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            # asyncio's own loop spares a connection Nagle's delay (40 ms) only if the protocol is named.
            made = stack.enter_context(socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP))
            try:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if shared:
                    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                if made.family == socket.AF_INET6:
                    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                made.bind(socket.getaddrinfo(address, port, made.family, socket.SOCK_STREAM)[0][4])
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise
                missing = missing or error
                continue
            bound.append(made)
            port = port or made.getsockname()[1]
        if not bound and missing is not None:
            raise missing
        stack.pop_all()
    return bound
