"""Certificates for a server and a client on loopback, and the authority that signed them, made by openssl."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NamedTuple


class Certificates(NamedTuple):
    """PEM files."""

    ca: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path

    def of_server(self, more: str = "") -> str:
        """The `tls` block of nats-server's configuration; `more` is added to it."""
        return f'tls {{ cert_file: "{self.server}", key_file: "{self.server_key}", ca_file: "{self.ca}", {more} }}'


def certificates(folder: Path) -> Certificates:
    """New ones, in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    _openssl(folder, "req", "-x509", *key, "-subj", "/CN=test ca", "-keyout", "ca.key", "-out", "ca.pem")
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "basicConstraints=critical,CA:FALSE")
    for name in ("server", "client"):
        names = ("-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1")
        _openssl(folder, "req", "-x509", *key, *signed, *names, "-keyout", f"{name}.key", "-out", f"{name}.pem")
    return Certificates(*(folder / file for file in ("ca.pem", "server.pem", "server.key", "client.pem", "client.key")))


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(("openssl", *arguments), cwd=folder, check=True, capture_output=True)
