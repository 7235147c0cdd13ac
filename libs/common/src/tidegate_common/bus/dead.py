"""Jobs that failed through no fault of their own, kept so that they can be listed and tried again."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import msgspec
from nats import errors as nats_errors
from nats.js.errors import Error as JetStreamError
from nats.js.errors import KeyNotFoundError
from nats.js.kv import KeyValue

from tidegate_common.bus import headers
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.origin import Origin
from tidegate_common.contract.jobs import DeadJob
from tidegate_common.errors import BrokerUnavailable, NotFound

PAGE = 64
"""Jobs that are read at once: of a megabyte each they are what the server sends in one answer."""

ANSWER_SECONDS = 5.0

_DEAD = msgspec.json.Decoder(DeadJob)


class _Kept(NamedTuple):
    sequence: int
    dead: DeadJob


class DeadJobs:
    """The KV bucket of dead jobs, by job id, in the order of their failing. All calls raise BrokerUnavailable."""

    def __init__(self, bus: Bus, bucket: KeyValue) -> None:
        self._bus = bus
        self._bucket = bucket
        self._stream = f"KV_{bus.subjects.dead_bucket}"

    @classmethod
    async def open(cls, bus: Bus) -> DeadJobs:
        return cls(bus, await bus.jetstream.key_value(bus.subjects.dead_bucket))

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
            # The message itself: the bucket's own removal would leave another one, which counts as a job that is kept.
            await self._bus.jetstream.purge_stream(
                self._stream, subject=f"$KV.{self._bus.subjects.dead_bucket}.{job_id}"
            )
        except (nats_errors.Error, JetStreamError, TimeoutError) as error:
            raise BrokerUnavailable("NATS did not remove the dead job") from error

    async def latest(self, most: int) -> tuple[list[DeadJob], int]:
        """The `most` that failed last, the newest first, and how many are kept in all."""
        try:
            state = (await self._bus.jetstream.stream_info(self._stream)).state
        except (nats_errors.Error, JetStreamError, TimeoutError) as error:
            raise BrokerUnavailable("NATS does not list the dead jobs") from error
        found: list[DeadJob] = []
        upto = state.last_seq
        while len(found) < most and state.messages and upto >= state.first_seq:
            page = await self._page(upto - PAGE + 1)
            found += (kept.dead for kept in reversed(page) if kept.sequence <= upto)
            upto -= PAGE
        return found[:most], state.messages

    async def _page(self, start: int) -> list[_Kept]:
        """The first jobs from sequence `start` on, in order, by direct batch get."""
        client = self._bus.client
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        found: list[_Kept] = []
        origin = Origin(self._stream)

        def receive(_: bytes, block: bytes, payload: bytes) -> None:
            place = origin.got(block)
            if place is not None:
                if payload:  # else the trace of a removal
                    found.append(_Kept(place.sequence, _DEAD.decode(payload)))
            elif not done.done():
                done.set_result(headers.status(block) or 0)

        if not self._bus.connected:
            raise BrokerUnavailable("NATS is away")
        ask = {"seq": max(start, 1), "next_by_subj": f"$KV.{self._bus.subjects.dead_bucket}.>", "batch": PAGE}
        inbox: str = client.new_inbox()
        sid = client.subscribe_direct(inbox, receive)
        try:
            await client.publish(f"$JS.API.DIRECT.GET.{self._stream}", msgspec.json.encode(ask), reply=inbox)
            async with asyncio.timeout(ANSWER_SECONDS):
                status = await done
        except (nats_errors.Error, TimeoutError) as error:
            raise BrokerUnavailable("NATS does not give the dead jobs") from error
        finally:
            client.unsubscribe_direct(sid)
        if status not in (204, 404):
            raise BrokerUnavailable(f"NATS does not give the dead jobs (status {status})")
        return found
