"""Leaves single messages out of what NATS sends, so that the connection stays as it was and nobody is told.

What routes between NATS servers do when they break. A message is a line `HMSG <subject> <sid> [reply] <header bytes>
<all bytes>` or `MSG <subject> <sid> [reply] <bytes>`, so many bytes and a line's end; all else is single lines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

FOR_CLIENTS = b"tg.out."
"""Subjects of republished messages; what the stream is asked for comes on others."""


class Drops:
    """Which events, by their numbers, do not reach which of the gateways."""

    def __init__(self) -> None:
        self.done: Counter[int] = Counter()
        """Messages left out, by the event's number."""
        self._wanted: dict[int, set[int]] = {}
        self._sieves = 0

    def drop(self, number: int, gateways: set[int]) -> None:
        """All of the event's messages to `gateways` (by the order in which they connected) from now on."""
        self._wanted[number] = gateways

    def sieve(self) -> Callable[[bytes], bytes]:
        """For the next connection."""
        gateway, self._sieves = self._sieves, self._sieves + 1

        def unwanted(subject: bytes, payload: bytes) -> bool:
            if not subject.startswith(FOR_CLIENTS):
                return False
            number = int(payload.partition(b":")[0])
            found = gateway in self._wanted.get(number, ())
            self.done[number] += found
            return found

        return Sieve(unwanted)


class Sieve:
    """Takes a connection's bytes piece by piece. `unwanted` says of a subject and a payload that they are left out."""

    def __init__(self, unwanted: Callable[[bytes, bytes], bool]) -> None:
        self._unwanted = unwanted
        self._rest = b""

    def __call__(self, piece: bytes) -> bytes:
        data = self._rest + piece
        kept: list[bytes] = []
        position = 0
        while (end := data.find(b"\r\n", position)) >= 0:
            fields = data[position:end].split()
            start = stop = end + 2
            if fields and fields[0] in (b"HMSG", b"MSG"):
                stop += int(fields[-1]) + 2
                if stop > len(data):
                    break
                start += int(fields[-2]) if fields[0] == b"HMSG" else 0
            if start == stop or not self._unwanted(fields[1], data[start : stop - 2]):
                kept.append(data[position:stop])
            position = stop
        self._rest = data[position:]
        return b"".join(kept)
