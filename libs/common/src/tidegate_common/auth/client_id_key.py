"""The secret that clients' ids are bound with: made once, kept in NATS, read by every process that has to know ids.

It is none of the tokens' secrets: ids would end when those are rotated, and a set-up with public keys has none.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets

from tidegate_common.auth.client_ids import ClientIds
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.requests.bucket import Bucket
from tidegate_common.bus.requests.retry import insist
from tidegate_common.errors import BrokerUnavailable
from tidegate_common.telemetry.trouble import Trouble

log = logging.getLogger(__name__)

ENTRY = "client_ids"
"""The bucket's key that has it."""

KEY_BYTES = 32

START_SECONDS = 60.0
"""How long a starting process waits for it."""

START_AGAIN_SECONDS = 0.5


class ClientIdKey:
    """Gives `client_ids` their secret."""

    def __init__(self, bus: Bus, client_ids: ClientIds, *, makes: bool) -> None:
        """`makes`: whether this process makes what is missing, as publisher-api alone does."""
        self._bus = bus
        self._bucket = Bucket(bus, bus.subjects.auth_bucket)
        self._client_ids = client_ids
        self._makes = makes
        self._looking: asyncio.Task[None] | None = None
        self._unknown = Trouble(log, "the secret of clients' ids can't be read", "the secret of clients' ids is known")

    async def start(self, seconds: float = START_SECONDS) -> None:
        """Returns when it is known. Raises BrokerUnavailable after `seconds`."""
        await self._insist(seconds)
        self._bus.on_reconnect.append(self.look_again)

    async def aclose(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    async def read(self) -> None:
        """Takes it from the bucket, or makes it there. Raises BrokerUnavailable."""
        entry = await self._bucket.get(ENTRY)
        if entry is not None and entry.value is not None:
            self._client_ids.key = entry.value
            return
        if not self._makes:
            raise BrokerUnavailable("publisher-api has not made it yet")
        # A bucket that was lost gets the one that clients' ids are bound with.
        key = self._client_ids.key or secrets.token_bytes(KEY_BYTES)
        if not await self._bucket.create(ENTRY, key):
            raise BrokerUnavailable("another publisher-api is making it")
        self._client_ids.key = key

    async def _insist(self, seconds: float) -> None:
        async def read() -> None:
            try:
                await self.read()
            except BrokerUnavailable as error:
                self._unknown.note(error)
                raise

        await insist(read, seconds, START_AGAIN_SECONDS)
        self._unknown.over()

    async def look_again(self) -> None:
        """The bucket may be another now, or be missing. Until it is read, what was known holds."""
        await self.aclose()
        self._looking = asyncio.create_task(self._look())

    async def _look(self) -> None:
        with contextlib.suppress(BrokerUnavailable):  # it is said, and the next reconnect looks again
            await self._insist(START_SECONDS)
