"""Where NATS is, and how it is entered: read from TIDEGATE_NATS_URL. A password is in no text that is made here."""

from __future__ import annotations

import ssl
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

SCHEMES = ("nats", "tls")
DEFAULT_PORT = 4222


class Address(NamedTuple):
    """One server. Without a password, a `user` is a token."""

    host: str
    port: int
    tls: bool = False
    user: str | None = None
    password: str | None = None

    @property
    def netloc(self) -> str:
        """`host:port`, with brackets if they are needed: for a URL, and to be shown."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def credentials(self) -> dict[str, str]:
        """What the CONNECT command says of who this is."""
        if self.user is None:
            return {}
        return {"auth_token": self.user} if self.password is None else {"user": self.user, "pass": self.password}


class Tls(NamedTuple):
    """How TLS is spoken: with `context`, and `first`, before the server says anything (its `handshake_first`)."""

    context: ssl.SSLContext
    first: bool = False


def read(urls: str) -> list[Address]:
    """The servers of a comma list of URLs. Raises ValueError, whose text says which one and never repeats it."""
    found = [_address(number, url.strip()) for number, url in enumerate(urls.split(","), 1) if url.strip()]
    if not found:
        raise ValueError("at least one address, as in nats://127.0.0.1:4222")
    return found


def _address(number: int, url: str) -> Address:
    allowed = (
        f"address {number} is none: nats:// or tls://, then host or user:password@host, and a port, as in "
        "nats://ann:secret@nats.example:4222 (in a name or password %2C stands for a comma, %2F for /, %40 for @)"
    )
    try:
        parts = urlsplit(url if "://" in url else f"nats://{url}")
        host, port, user, password = parts.hostname, parts.port, parts.username, parts.password
    except ValueError:
        host = None
    if not host or parts.scheme not in SCHEMES or parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError(allowed) from None
    return Address(
        host,
        port or DEFAULT_PORT,
        parts.scheme == "tls",
        None if not user else unquote(user),
        None if password is None else unquote(password),
    )


def tls_of(ca_file: str, cert_file: str, key_file: str, *, first: bool) -> Tls:
    """Raises ValueError if a file can't be used."""
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise ValueError(f"TIDEGATE_NATS_CA_FILE: {ca_file} can't be used ({error.strerror or error})") from None
    if cert_file:
        try:
            context.load_cert_chain(cert_file, key_file or None, password=_no_password)
        except (OSError, ssl.SSLError) as error:
            raise ValueError(
                f"TIDEGATE_NATS_CERT_FILE: {cert_file} and its key can't be used ({error.strerror or error})"
            ) from None
    return Tls(context, first)


def _no_password() -> str:
    """OpenSSL would ask for a key's password at the terminal."""
    return ""
