"""The first words of a connection: the server's INFO, TLS if it is wanted, and the CONNECT that answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlparse

from nats.aio.client import PROTOCOL, Srv, __lang__, __version__
from nats.aio.transport import TcpTransport

from tidegate_common.bus.wire.addresses import Address, Tls
from tidegate_common.bus.wire.key_file import KeyFile
from tidegate_common.bus.wire.server_errors import MAY_WANT_TLS, NOT_FIRST, ConnectFailed, ServerError

INFO_SECONDS = 3
TLS_SECONDS = 3
BUFFER_BYTES = 32_768


async def greet(transport: TcpTransport, address: Address, tls: Callable[[], Tls], name: str) -> dict[str, Any]:
    """Reads what the server says of itself and, if one side wants it, begins TLS with a server called `name`.

    `tls` is called only if TLS is spoken: to read the certificates of all authorities takes 20 ms. An address with
    `tls://` is never spoken to in the clear: its password would be. Raises ConnectFailed, ServerError, ssl.SSLError,
    OSError, TimeoutError.
    """
    first = address.tls and tls().first
    if first:
        await transport.connect_tls(name, tls().context, BUFFER_BYTES, TLS_SECONDS)
    try:
        async with asyncio.timeout(INFO_SECONDS):
            line = await transport.readline()
    except TimeoutError:
        if first:  # it spoke before the handshake, in the clear: that is lost
            raise ConnectFailed(NOT_FIRST, refuses=True) from None
        raise
    if line.startswith(b"-ERR"):
        raise ServerError.of(line)
    if not line:
        raise ConnectFailed("it closed the connection before it said anything" + ("" if first else MAY_WANT_TLS))
    try:
        info = json.loads(line[5:]) if line.startswith(b"INFO ") else None
    except ValueError:
        info = None
    if not isinstance(info, dict):
        raise ConnectFailed("what answers there is no NATS server")
    required, offered = bool(info.get("tls_required")), bool(info.get("tls_available"))
    if not first:
        if required or (offered and address.tls):
            await transport.connect_tls(name, tls().context, BUFFER_BYTES, TLS_SECONDS)
        elif address.tls:
            raise ConnectFailed("the server has no TLS, which tls:// in TIDEGATE_NATS_URL asks for", refuses=True)
    return info


def connect_line(info: dict[str, Any], address: Address, key: KeyFile | None, name: str | None) -> bytes:
    """The CONNECT command, with `key` or what `address` says. It is the only place where a password goes.

    Raises ConnectFailed if the key can't be used.
    """
    try:
        shown = address.credentials() if key is None else key.credentials(info.get("nonce"))
    except ValueError as error:
        raise ConnectFailed(str(error), refuses=True) from None
    headers = bool(info.get("headers"))
    told = {
        "verbose": False,
        "pedantic": False,
        "lang": __lang__,
        "version": __version__,
        "protocol": PROTOCOL,
        "headers": headers,
        "no_responders": headers,
        "echo": True,
        **({"name": name} if name else {}),
        **shown,
    }
    return b"CONNECT %b\r\n" % json.dumps(told).encode()


def discovered(info: dict[str, Any], current: Srv | None) -> list[Srv]:
    """The other servers of the cluster that `info` names."""
    found = []
    for netloc in info.get("connect_urls") or ():
        try:
            uri = urlparse(f"nats://{netloc}")
            if not uri.hostname or not uri.port:
                continue
        except ValueError:
            continue
        server = Srv(uri, discovered=True)
        # By its own name it has a certificate of its own; one that is told of by its number is known by this one's.
        if current is not None and _is_number(uri.hostname):
            name = current.tls_name or current.uri.hostname
            server.tls_name = None if _is_number(name) else name
        found.append(server)
    return found


def _is_number(host: str | None) -> bool:
    try:
        ip_address(host or "")
    except ValueError:
        return False
    return True
