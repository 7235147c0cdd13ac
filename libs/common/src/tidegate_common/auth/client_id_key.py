"""The secret that clients' ids are bound with: made once, kept in NATS, read by every process that has to know ids.

It is none of the tokens' secrets: ids would end when those are rotated, and a set-up with public keys has none.
"""

from __future__ import annotations

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
        self._unknown = Trouble(log, "the secret of clients' ids is not known", "the secret of clients' ids is known")

    async def start(self, seconds: float = START_SECONDS) -> None:
        """Returns when it is known. Raises BrokerUnavailable after `seconds`."""

        async def read() -> None:
            try:
                await self.read()
            except BrokerUnavailable as error:
                self._unknown.note(error)
                raise

        await insist(read, seconds, START_AGAIN_SECONDS)
        self._unknown.over()
        self._bus.on_reconnect.append(self._read_again)

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

    async def _read_again(self) -> None:
        """After a reconnect the bucket may be another. If it can't be read, what was known holds."""
        try:
            await self.read()
        except BrokerUnavailable as error:
            log.info("the secret of clients' ids was not read again: %s", error)
