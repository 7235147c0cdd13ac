"""One process's connection to NATS."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from nats import errors as nats_errors
from nats.js import JetStreamContext

from tidegate_common.bus.requests.inbox import Inbox, T
from tidegate_common.bus.requests.jetstream import JetStreamApi
from tidegate_common.bus.unusable import Foreign
from tidegate_common.bus.wire import addresses
from tidegate_common.bus.wire.addresses import Address, Tls
from tidegate_common.bus.wire.client import BusClient
from tidegate_common.bus.wire.connection_log import ConnectionLog
from tidegate_common.bus.wire.key_file import KeyFile
from tidegate_common.contract.subjects import Subjects
from tidegate_common.errors import BrokerRefused, BrokerUnavailable, ConfigError, NotSent

log = logging.getLogger(__name__)

CONNECT_SECONDS = 10.0
"""How long a starting process waits for NATS before it gives up."""

ANSWER_SECONDS = 5.0
"""How long anybody waits for an answer at most."""

REFUSED_SECONDS = 60.0
"""A process that NATS refuses for so long, and nothing else, ends."""

INBOXES = {"gateway": "_INBOX_gateway", "publisher-api": "_INBOX_publisher", "ai-worker": "_INBOX_worker"}
"""By service, the first token of the subjects that answers to its questions come to.

NATS can then let each service listen to its own answers alone (deploy/nats.conf): one token for all would let a worker
read what a gateway is answered.
"""


class Bus:
    """A connection that comes back by itself, and the subjects of its namespace."""

    def __init__(self, client: BusClient, subjects: Subjects) -> None:
        self.client = client
        self.subjects = subjects
        self.jetstream: JetStreamContext = client.jetstream(timeout=5)
        self.foreign = Foreign()
        self._inboxes: list[Inbox[Any]] = []
        self.inbox = self.new_inbox(bytes, ANSWER_SECONDS)
        """For all questions but those of who reads answers in their own way."""
        self.api = JetStreamApi(self)
        # Those who listen depend on no order among them: a question that is under way has failed before any is called.
        self.on_disconnect: list[Callable[[], None]] = []
        """Called each time the connection is lost, before any message of the next one can come."""
        self.on_reconnect: list[Callable[[], Awaitable[None]]] = []
        """Called each time the connection is back and its subscriptions are in force again, one after the other."""
        self.losses = 0
        """Connections lost so far."""
        self.refused: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Has a result, why, once NATS has refused this process for too long: no connection is tried for any more."""

        client.owner = self

    @property
    def connected(self) -> bool:
        return bool(self.client.is_connected)

    def new_inbox(self, read: Callable[[bytes], T], wait_seconds: float) -> Inbox[T]:
        """As `inbox`, for answers of its own."""
        inbox = Inbox(self.client, read, wait_seconds)
        self._inboxes.append(inbox)
        return inbox

    async def ask(self, subject: str, payload: bytes = b"", seconds: float = ANSWER_SECONDS) -> bytes:
        """The answer of whoever listens on `subject`; empty if nobody does, or nobody answers within `seconds`.

        Raises BrokerUnavailable if NATS is away, or goes away meanwhile; TooLarge.
        """
        if not self.connected:
            raise NotSent("NATS is away")
        losses = self.losses
        try:
            async with asyncio.timeout(seconds):
                answer = await self.inbox.ask(subject, payload)
        except TimeoutError:
            answer = None
        if answer is None and losses != self.losses:
            raise BrokerUnavailable("NATS went away before it answered")
        return answer or b""

    async def round_trip(self, timeout: float = 2.0) -> None:
        """Asks the server for a sign of life. Raises BrokerUnavailable."""
        try:
            if not self.connected:
                raise BrokerUnavailable("NATS is away")
            self.client.ask_for_denied()
            async with asyncio.timeout(timeout):
                await self.client.flush()
        except (nats_errors.Error, TimeoutError, OSError) as error:
            raise BrokerUnavailable("NATS does not answer") from error
        for subject in self.client.denied:
            raise BrokerUnavailable(f"NATS does not allow this process to listen to {subject}")

    def check_refused(self) -> None:
        """Raises BrokerRefused once NATS has refused this process for too long."""
        if self.refused.done():
            raise BrokerRefused(f"NATS has refused this process for too long: {self.refused.result()}")

    def lost(self, error: Exception) -> None:
        """Called by the client, before anything of the next connection can come."""
        self.losses += 1
        for inbox in self._inboxes:  # first: what listeners begin anew waits for the next connection
            inbox.cut_off()
        log.warning("NATS connection lost: %s", error)
        for listener in self.on_disconnect:
            try:
                listener()
            except Exception:  # others have to know all the same
                log.exception("the loss of NATS could not be handled")

    def refuse(self, reason: str) -> None:
        """Called by the client: NATS has refused this process for too long."""
        if not self.refused.done():
            log.error("NATS refuses this process, which ends now", extra={"reason": reason})
            self.refused.set_result(reason)

    async def back(self) -> None:
        """Called by the client, when all subscriptions are in force on the next connection."""
        url = self.client.connected_url
        log.info("NATS connection is back", extra={"server": url.netloc if url is not None else ""})
        for listener in self.on_reconnect:
            try:
                await listener()
            except Exception:
                log.exception("the return of NATS could not be handled")


@asynccontextmanager
async def connect(
    urls: str,
    subjects: Subjects,
    name: str,
    *,
    tls: Tls | None = None,
    key: KeyFile | None = None,
    connect_seconds: float = CONNECT_SECONDS,
    refused_seconds: float = REFUSED_SECONDS,
) -> AsyncIterator[Bus]:
    """A connection to one of `urls` (comma list), closed at the end. `name` is the service's.

    With `key`, that is shown to NATS, and no password.

    Raises BrokerUnavailable if none can be had within `connect_seconds`, ConfigError if `urls` can't be read.
    """
    try:
        servers = addresses.read(urls)
    except ValueError as error:
        raise ConfigError([f"TIDEGATE_NATS_URL: {error}"]) from None
    client = BusClient(ConnectionLog(refused_seconds))
    await _open(client, servers, tls, key, name, connect_seconds)
    bus = Bus(client, subjects)  # not before: a first try that fails makes nats-py forget all subscriptions
    try:
        yield bus
    finally:
        await client.close()


async def _open(
    client: BusClient,
    servers: Sequence[Address],
    tls: Tls | None,
    key: KeyFile | None,
    name: str,
    seconds: float,
) -> None:
    """Raises BrokerUnavailable."""
    failures = client.log
    try:
        async with asyncio.timeout(seconds):
            await client.open_first(
                list(servers),
                tls,
                key,
                name=name,
                inbox_prefix=INBOXES.get(name, "_INBOX"),
                error_cb=failures.unforeseen,
                max_reconnect_attempts=-1,
                reconnect_time_wait=1,
                connect_timeout=3,
                ping_interval=10,
                max_outstanding_pings=2,
            )
    except (nats_errors.Error, TimeoutError, OSError, ValueError) as error:
        shown = ", ".join(server.netloc for server in servers)
        if failures.refused:
            raise BrokerUnavailable(f"NATS can't be used at {shown}: {failures.last}") from error
        reason = f" ({failures.last})" if failures.last else ""
        raise BrokerUnavailable(
            f"no NATS server answers at {shown}{reason}: start one, or set TIDEGATE_NATS_URL"
        ) from error
