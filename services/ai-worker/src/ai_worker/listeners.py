"""Sees that nobody listens to a job any more, for jobs that are to end then."""

from __future__ import annotations

import asyncio

from tidegate_common.bus.requests.gateways import ASK_SECONDS, AllGateways
from tidegate_common.contract.jobs import Job
from tidegate_common.errors import BrokerUnavailable

LOOK_SECONDS = 1.0
"""Between two looks, at most."""

LOOKS_IN_GRACE = 10


async def all_gone(gateways: AllGateways, job: Job) -> None:
    """Returns when no gateway has had a connection that hears the job for its grace period.

    A gateway that does not answer counts as one that has, and so does one that has fallen silent without saying that
    it leaves, for as long as its clients may still be there: a doubt cancels nothing.
    """
    loop = asyncio.get_running_loop()
    since: float | None = None
    while True:
        try:
            present = await gateways.listeners(job.tail, ASK_SECONDS, job.job_id)
        except BrokerUnavailable:
            since = None
        else:
            now = loop.time()
            since = None if present.total or not present.complete else (now if since is None else since)
            if since is not None and now - since >= job.grace_seconds:
                return
        # Once nobody is there, looks are closer together: somebody who comes and goes between two of them was there.
        pause = job.grace_seconds / (2 if since is None else LOOKS_IN_GRACE)
        await asyncio.sleep(min(LOOK_SECONDS, max(0.05, pause)))
