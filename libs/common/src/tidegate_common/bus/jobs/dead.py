"""Jobs that failed through no fault of their own, kept so that they can be listed and tried again."""

from __future__ import annotations

import asyncio
import logging
from typing import NamedTuple

import msgspec
from nats import errors as nats_errors
from nats.js.errors import Error as JetStreamError
from nats.js.errors import KeyNotFoundError
from nats.js.kv import KeyValue

from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.origin import Origin, Place
from tidegate_common.bus.wire import headers
from tidegate_common.contract.ids import check_job_id
from tidegate_common.contract.jobs import DeadJob
from tidegate_common.contract.soundness import dead_fault, read
from tidegate_common.errors import BrokerUnavailable, NotFound, Unreadable

log = logging.getLogger(__name__)

PAGE = 64
"""Jobs that are read at once: of a megabyte each they are what the server sends in one answer."""

ANSWER_SECONDS = 5.0

_DEAD = msgspec.json.Decoder(DeadJob)


class _Kept(NamedTuple):
    sequence: int
    dead: DeadJob | None
    """None for what can't be read."""


class DeadJobs:
    """The KV bucket of dead jobs, by job id, in the order of their failing. All calls raise BrokerUnavailable."""

    def __init__(self, bus: Bus) -> None:
        """The bucket need not be there yet."""
        self._bus = bus
        name = bus.subjects.dead_bucket
        self._stream = f"KV_{name}"
        self._bucket = KeyValue(name=name, stream=self._stream, pre=f"$KV.{name}.", js=bus.jetstream, direct=True)

    async def keep(self, dead: DeadJob) -> None:
        try:
            await self._bucket.put(dead.job.job_id, msgspec.json.encode(dead))
        except nats_errors.MaxPayloadError:  # it came into the queue without what is known of its end
            log.warning("job %s is too large to be kept among the dead", dead.job.job_id)
        except (nats_errors.Error, JetStreamError, TimeoutError) as error:
            raise BrokerUnavailable("NATS did not keep the dead job") from error

    async def get(self, job_id: str) -> DeadJob:
        """Raises NotFound; Unreadable, which is one, for what is kept there and is no dead job of ours."""
        try:
            value = (await self._bucket.get(check_job_id(job_id))).value or b""
        except KeyNotFoundError:
            raise NotFound(f"no dead job {job_id} is kept") from None
        except (nats_errors.Error, JetStreamError, TimeoutError) as error:
            raise BrokerUnavailable("NATS does not give the dead job") from error
        found = self._decoded(job_id, value)
        if found is None:
            raise Unreadable(f"what is kept of dead job {job_id} can't be read")
        return found

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
        """The `most` that failed last, the newest first, and how many are kept in all.

        What can't be read is left out, and of the number too as far as it was come across.
        """
        try:
            state = (await self._bus.jetstream.stream_info(self._stream)).state
        except (nats_errors.Error, JetStreamError, TimeoutError) as error:
            raise BrokerUnavailable("NATS does not list the dead jobs") from error
        found: list[DeadJob] = []
        unreadable, upto = 0, state.last_seq
        while len(found) < most and state.messages and upto >= state.first_seq:
            page = [kept.dead for kept in await self._page(upto - PAGE + 1) if kept.sequence <= upto]
            unreadable += page.count(None)
            found += (dead for dead in reversed(page) if dead is not None)
            upto -= PAGE
        return found[:most], max(0, state.messages - unreadable)

    def _decoded(self, job_id: str, value: bytes) -> DeadJob | None:
        try:
            return read(_DEAD, value, lambda dead: dead_fault(dead, job_id))
        except Unreadable as error:
            self._bus.foreign.note("dead", job_id, str(error))
            return None

    async def _page(self, start: int) -> list[_Kept]:
        """The first jobs from sequence `start` on, in order, by direct batch get."""
        client = self._bus.client
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        found: list[tuple[Place, bytes]] = []
        origin = Origin(self._stream)

        def receive(_: bytes, block: bytes, payload: bytes) -> None:
            place = origin.got(block)
            if place is not None:
                if payload:  # else the trace of a removal
                    found.append((place, payload))
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
        return [self._kept(place, payload) for place, payload in found]

    def _kept(self, place: Place, payload: bytes) -> _Kept:
        key = place.subject.decode(errors="replace").removeprefix(f"$KV.{self._bus.subjects.dead_bucket}.")
        return _Kept(place.sequence, self._decoded(key, payload))
