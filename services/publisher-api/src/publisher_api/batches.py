"""Publishing many events at once: line by line an event or an error, stored in the order of the lines (but for what a
leader of the stream loses when it goes, bus/storing.py)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

import msgspec

from publisher_api.publishing import Outgoing, Sending, Sent
from publisher_api.requests import LINE, line_tail_of
from tidegate_common.bus.publishing import Durable, Publisher
from tidegate_common.contract.events import Receipt
from tidegate_common.errors import BrokerUnavailable, TidegateError
from tidegate_common.runtime.body import decode
from tidegate_common.telemetry.propagation import inject, left_out

WINDOW = 256
"""Lines of a batch that are on their way at once."""


class LineResult(msgspec.Struct, frozen=True):
    """What became of one line: how it was sent, or its error."""

    line: int
    sent: Sent | None
    error: TidegateError | None


class Batches:
    """Sends the events of a batch."""

    def __init__(self, publisher: Publisher, sending: Sending) -> None:
        self._publisher = publisher
        self._sending = sending

    async def send(self, lines: Iterable[bytes], key: str | None = None) -> list[LineResult]:
        """Publishes each line that is not empty, in their order, WINDOW at a time; one bad line stops no other.

        Once NATS is away, the lines of later windows are refused without a try.
        """
        results: list[LineResult] = []
        away: BrokerUnavailable | None = None
        for window in _windows(lines):
            if away is not None:
                results += [LineResult(number, None, away) for number, _ in window]
                continue
            done = await self._window(window, key)
            results += done
            away = next((found.error for found in done if isinstance(found.error, BrokerUnavailable)), None)
        return results

    async def _window(self, window: list[tuple[int, bytes]], key: str | None) -> list[LineResult]:
        read = [self._read(number, line, key) for number, line in window]
        good = [each for each in read if isinstance(each, Outgoing)]
        # A line costs 18 µs so, and 46 as a send of its own, which needs a task.
        together = left_out() and all(each.published.durable and not each.published.receipt for each in good)
        sent = iter(await (self._stored(good) if together else asyncio.gather(*map(self._sent, good))))
        results = [next(sent) if isinstance(each, Outgoing) else each for each in read]
        return [_result(number, found) for (number, _), found in zip(window, results, strict=True)]

    def _read(self, number: int, line: bytes, key: str | None) -> Outgoing | TidegateError:
        try:
            published = decode(LINE, line)
            line_key = None if key is None else f"{key}:{number}"
            return self._sending.outgoing(line_tail_of(published), published, line_key)
        except TidegateError as error:
            return error

    async def _stored(self, lines: list[Outgoing]) -> list[Sent | TidegateError]:
        """Lines that want nothing but to be stored, in a trace that is recorded nowhere."""
        headers: dict[str, str] = {}
        inject(headers)
        events = [Durable(each.tail, each.event, each.message_id, each.published.ttl) for each in lines]
        stored = await self._publisher.durable_all(events, headers=headers)
        return [Sent(each) if isinstance(each, Receipt) else each for each in stored]

    async def _sent(self, line: Outgoing) -> Sent | TidegateError:
        try:
            return await self._sending.send(line)
        except TidegateError as error:
            return error


def _result(number: int, found: Sent | TidegateError) -> LineResult:
    return LineResult(number, found, None) if isinstance(found, Sent) else LineResult(number, None, found)


def _windows(lines: Iterable[bytes]) -> Iterator[list[tuple[int, bytes]]]:
    """(line number from 1, line) of the lines that are not empty, WINDOW at a time."""
    window: list[tuple[int, bytes]] = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            window.append((number, line))
        if len(window) == WINDOW:
            yield window
            window = []
    if window:
        yield window
