"""What one connection to NATS listens to, and what becomes of a subscription that the server does not take."""

from __future__ import annotations

import asyncio
from typing import Any

from nats.aio.client import PING_PROTO, Client
from nats.protocol import command

from tidegate_common.bus.wire.limits import SPARE_SUBSCRIPTIONS, ConnectionLimits
from tidegate_common.bus.wire.server_errors import ConnectFailed, ServerError


class Interest(Client):
    """nats-py's client, which knows what its server allows. Whoever has a subscription is told if it is refused."""

    def __init__(self) -> None:
        super().__init__()
        self.limits = ConnectionLimits()
        self.denied: dict[str, str] = {}
        """By subject: subscriptions that this process can't do without and the server does not allow."""
        self.unwritable: set[str] = set()
        """Subjects that the server has not let this process write to, on this connection."""
        self._refused_now = 0
        """Subscriptions that the server has refused on this connection."""
        self._writes: list[asyncio.Future[None]] = []
        """What is being written, and what is to be after it."""
        self._counting: ServerError | None = None
        """What it has refused the first of them with, while it is being found out how many it takes."""

    @property
    def refusing(self) -> bool:
        """Whether the server has refused subscriptions, and which they were shows on the next connection."""
        return self._counting is not None

    def _restoring(self) -> list[int]:
        """The subscriptions in the order in which they are asked for: those first that nothing works without."""
        return sorted(self._subs, key=self._is_needed, reverse=True)  # stable: the older ones come first

    def _is_needed(self, sid: int) -> bool:
        return getattr(self._subs[sid], "refused", None) is None

    def _subs_of(self, sids: list[int]) -> list[bytes]:
        lines = []
        for sid in sids:
            found = self._subs[sid]
            lines.append(command.sub_cmd(found._subject, found._queue, sid))
            self.limits.sent(len(lines[-1]))
            if found._max_msgs:
                lines.append(command.unsub_cmd(sid, max(1, found._max_msgs - found._received)))
        return lines

    def _beyond(self, restored: list[int], needed: int) -> list[int]:
        """The subscriptions that have to go, since the server takes fewer. Raises ConnectFailed: it takes too few.

        It refuses each that is one too many, in the order of the asking, so what it takes is known from their number.
        """
        if not self._refused_now:
            return []
        most = self.limits.subscriptions = len(restored) - self._refused_now
        if needed > most:
            raise ConnectFailed(f"NATS allows a connection {most} subscriptions, this needs {needed}", refuses=True)
        return restored[max(needed, most - SPARE_SUBSCRIPTIONS) :]

    def _refuse(self, sid: int, reason: str) -> None:
        """A subscription is no more; whoever has it is told, from the event loop."""
        subscription: Any = self._subs.pop(sid, None)
        if subscription is not None:
            self._enqueue(command.unsub_cmd(sid, 0))
            asyncio.get_running_loop().call_soon(subscription.refused, subscription._subject, reason)

    def _count_refused(self, error: ServerError) -> None:
        """The server has refused a subscription, and does not say which: it says so once for each that it refuses.

        So after all that were sent by now it is known how many it takes. Which of them it has not taken shows on the
        next connection, where it is asked for all in an order that tells.
        """
        there, self._counting = len(self._subs), error
        answered: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def counted(_: asyncio.Future[bool]) -> None:
            if not answered.cancelled() and answered.exception() is None:
                self.limits.found(there - self._refused_now)
                self._lose(error)

        answered.add_done_callback(counted)
        self._pongs.append(answered)
        self._enqueue(PING_PROTO)

    def _deny(self, subject: str, reason: str) -> None:
        for sid, subscription in list(self._subs.items()):
            if subscription._subject == subject:
                if self._is_needed(sid):
                    self.denied[subject] = reason
                else:
                    self._refuse(sid, reason)

    def ask_for_denied(self) -> None:
        """Subscribes again to what was not allowed: it may be by now, which the server tells nobody.

        What is refused again is in `denied` before the answer to a PING that is sent after this.
        """
        if self.denied:
            again = [sid for sid, each in self._subs.items() if each._subject in self.denied and self._is_needed(sid)]
            self.denied.clear()
            for line in self._subs_of(again):
                self._enqueue(line)

    def _drop_long_lines(self) -> None:
        for sid, each in list(self._subs.items()):
            size = len(command.sub_cmd(each._subject, each._queue, sid))
            reason = self.limits.refusal(size, 0, spare=False)
            if reason and not self._is_needed(sid):
                self._refuse(sid, reason)

    def _enqueue(self, line: bytes, at_once: bool = True) -> None:
        """Sends `line`, after all that was sent before; while there is no connection it is dropped."""
        if not self.is_connected:
            return
        self._pending.append(line)
        self._pending_data_size += len(line)
        if at_once:
            self._write_soon()

    def _write_soon(self) -> asyncio.Future[None]:
        """Has what waits written; done when it is. Whoever comes meanwhile shares it, so it must not be cancelled."""
        assert self._flush_queue is not None, "there is a connection"
        if self._flush_queue.empty():
            self._writes = [*self._writes[-1:], asyncio.get_running_loop().create_future()]
            self._flush_queue.put_nowait(self._writes[-1])
        return self._writes[-1]

    async def _flush_pending(self, force_flush: bool = False) -> None:
        """As nats-py's, where whoever waits (`force_flush`) would do so until there is another connection.

        Raises ConnectionReconnectingError if this one is lost.
        """
        if self.is_connected:
            writing = self._write_soon()
            if force_flush:
                await asyncio.wait([writing])
                writing.result()

    def _lose(self, error: Exception) -> None:
        """Gives the connection up for another."""
        raise NotImplementedError
