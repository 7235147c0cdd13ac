"""Where a secret may show up that is to show up nowhere, and what of one gives it away."""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import quote

import nats
from nats.aio.msg import Msg

ENOUGH = 20
"""So many characters of a secret's own part are too many, also if the rest was cut off."""


class Secrets:
    """Secrets by name, each in all forms that it may come in."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        self._forms = {name: _forms(text) for name, text in secrets.items()}

    def found_in(self, text: bytes) -> Iterator[tuple[str, bytes]]:
        """Names of secrets that `text` has, with what stands around them there."""
        for name, forms in self._forms.items():
            place = next((at for at in map(text.find, forms) if at >= 0), None)
            if place is not None:
                yield name, text[max(0, place - 80) : place + 40]


def _forms(secret: str) -> set[bytes]:
    """The parts of `secret` that are its own, as they are, percent-encoded, and within base64 of anything."""
    parts = secret.split(".")
    own = parts[1:] if len(parts) == 3 else [secret]  # of a JWT not the head, which many share
    random = [re.sub("^tgk_[a-z]+_|^tgt_", "", part) for part in own]
    cut = {part[:ENOUGH] for part in random if len(part) >= ENOUGH}
    return {form for part in cut for form in (part.encode(), quote(part, safe="").encode(), *_in_base64(part))}


def _in_base64(text: str) -> Iterable[bytes]:
    """What all base64 of something that holds `text` has, whatever stands before and behind it."""
    for before in range(3):
        whole = base64.b64encode(b"\0" * before + text.encode())
        inner = whole[4 if before else 0 : -4]
        yield inner
        yield inner.replace(b"+", b"-").replace(b"/", b"_")


@asynccontextmanager
async def wiretap(url: str) -> AsyncIterator[list[bytes]]:
    """All that goes over NATS meanwhile: subjects, headers and payloads, questions and answers."""
    heard: list[bytes] = []

    async def hear(message: Msg) -> None:
        headers = "\n".join(f"{name}: {value}" for name, value in (message.headers or {}).items())
        heard.append(f"{message.subject} {message.reply}\n{headers}\n".encode() + message.data)

    client = await nats.connect(url, pending_size=64 << 20)
    try:
        await client.subscribe(">", cb=hear, pending_msgs_limit=-1, pending_bytes_limit=-1)
        await client.flush()
        yield heard
        await client.flush()
    finally:
        await client.close()
