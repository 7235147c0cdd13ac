"""Publishing many events at once: line by line an event or an error, sent in the order of the lines (but for what a
leader of the stream loses when it goes, bus/events/writer.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import msgspec

from publisher_api.bodies import LINE, line_target_of
from publisher_api.events.sender import EventSender, OutgoingEvent, Sent
from tidegate_common.contract.principal import Principal
from tidegate_common.errors import BrokerUnavailable, TidegateError
from tidegate_common.runtime.body import decode

WINDOW = 256
"""Lines of a batch that are on their way at once."""


class LineOutcome(msgspec.Struct, frozen=True):
    """What became of one line: how it was sent, or its error."""

    line: int
    sent: Sent | None
    error: TidegateError | None
    target: str = ""
    """Whom it addressed, as grants are written; empty if that is not known."""


class BatchSender:
    """Sends the events of a batch."""

    def __init__(self, sender: EventSender) -> None:
        self._sender = sender

    async def send(
        self,
        principal: Principal,
        lines: Iterable[bytes],
        key: str | None = None,
        take: Callable[[], None] = lambda: None,
    ) -> list[LineOutcome]:
        """Publishes each line that is not empty, in their order, WINDOW at a time.

        One that can't be read, or that `principal` may not send, stops no other. `take` is called before each is read,
        and raises Limited for one that is over a limit: those that come later may find room again.

        Once NATS is away, the lines of later windows are refused without a try.
        """
        results: list[LineOutcome] = []
        away: BrokerUnavailable | None = None
        for window in _windows(lines):
            if away is not None:
                results += [LineOutcome(number, None, away) for number, _ in window]
                continue
            done = await self._window(principal, window, key, take)
            results += done
            away = next((found.error for found in done if isinstance(found.error, BrokerUnavailable)), None)
        return results

    async def _window(
        self, principal: Principal, window: list[tuple[int, bytes]], key: str | None, take: Callable[[], None]
    ) -> list[LineOutcome]:
        read = [self._read(principal, number, line, key, take) for number, line in window]
        sent = iter(await self._sender.send_all([each for each in read if isinstance(each, OutgoingEvent)]))
        results = [next(sent) if isinstance(each, OutgoingEvent) else each for each in read]
        return [
            _result(number, outgoing, found) for (number, _), outgoing, found in zip(window, read, results, strict=True)
        ]

    def _read(
        self, principal: Principal, number: int, line: bytes, key: str | None, take: Callable[[], None]
    ) -> OutgoingEvent | TidegateError:
        try:
            take()
            published = decode(LINE, line)
            line_key = None if key is None else f"{key} {number}"  # no key of a send: those have no spaces
            return self._sender.outgoing(principal, line_target_of(published), published, line_key)
        except TidegateError as error:
            return error


def _result(number: int, outgoing: OutgoingEvent | TidegateError, found: Sent | TidegateError) -> LineOutcome:
    target = outgoing.target.grant if isinstance(outgoing, OutgoingEvent) else ""
    sent, error = (found, None) if isinstance(found, Sent) else (None, found)
    return LineOutcome(number, sent, error, target)


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
