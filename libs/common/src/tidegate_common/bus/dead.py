"""Jobs that failed through no fault of their own, kept so that they can be listed and tried again."""

from __future__ import annotations

import msgspec
from nats import errors as nats_errors
from nats.js.errors import Error as JetStreamError
from nats.js.errors import KeyNotFoundError, NoKeysError
from nats.js.kv import KeyValue

from tidegate_common.bus.connection import Bus
from tidegate_common.contract.jobs import DeadJob
from tidegate_common.errors import BrokerUnavailable, NotFound

_DEAD = msgspec.json.Decoder(DeadJob)


class DeadJobs:
    """The KV bucket of dead jobs, by job id. All calls raise BrokerUnavailable."""

    def __init__(self, bucket: KeyValue) -> None:
        self._bucket = bucket

    @classmethod
    async def open(cls, bus: Bus) -> DeadJobs:
        return cls(await bus.jetstream.key_value(bus.subjects.dead_bucket))

    async def keep(self, dead: DeadJob) -> None:
        try:
            await self._bucket.put(dead.job.job_id, msgspec.json.encode(dead))
        except (nats_errors.Error, JetStreamError, TimeoutError) as error:
            raise BrokerUnavailable("NATS did not keep the dead job") from error

    async def get(self, job_id: str) -> DeadJob:
        """Raises NotFound."""
        try:
            return _DEAD.decode((await self._bucket.get(job_id)).value or b"{}")
        except KeyNotFoundError:
            raise NotFound(f"no dead job {job_id} is kept") from None
        except (nats_errors.Error, JetStreamError, TimeoutError) as error:
            raise BrokerUnavailable("NATS does not give the dead job") from error

    async def remove(self, job_id: str) -> None:
        """Does nothing where there is none."""
        try:
            await self._bucket.purge(job_id)
        except (nats_errors.Error, JetStreamError, TimeoutError) as error:
            raise BrokerUnavailable("NATS did not remove the dead job") from error

    async def latest(self, most: int) -> tuple[list[DeadJob], int]:
        """The `most` that failed last, the newest first, and how many are kept in all."""
        try:
            keys = await self._bucket.keys()
        except NoKeysError:
            return [], 0
        except (nats_errors.Error, JetStreamError, TimeoutError) as error:
            raise BrokerUnavailable("NATS does not list the dead jobs") from error
        found = []
        for key in keys:
            try:
                found.append(await self.get(key))
            except NotFound:
                continue  # removed meanwhile
        found.sort(key=lambda dead: dead.failed, reverse=True)
        return found[:most], len(found)
