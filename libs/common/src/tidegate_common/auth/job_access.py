"""Who may see a job, watch it, answer it and cancel it: one rule for its stream, its record and its end."""

from __future__ import annotations

from tidegate_common.auth.client_ids import ClientIds
from tidegate_common.bus.jobs.records import JobRecords, no_job
from tidegate_common.contract.jobs import JobState
from tidegate_common.contract.principal import ALL_JOBS, Principal
from tidegate_common.contract.subjects import decode_token
from tidegate_common.errors import NotFound, Unreadable


async def reachable(records: JobRecords, job_id: str, principal: Principal, client_ids: ClientIds) -> JobState:
    """The record of a job that `principal` may reach. Raises BrokerUnavailable, NotFound, and Unauthenticated.

    Of another's job, and of a record that can't be read and may be anybody's, they are told what they would be told if
    there were none. That takes as long, too: nothing more is read or waited for.
    """
    if principal.anonymous and not has_all(principal):
        raise principal.refuse("jobs")  # whoever brings nothing has no jobs, and is not told which there are
    try:
        state = await records.get(job_id)
    except Unreadable:
        if has_all(principal):
            raise
        raise NotFound(no_job(job_id)) from None
    if not may_reach(principal, state, client_ids):
        raise NotFound(no_job(job_id))
    return state


def may_reach(principal: Principal, state: JobState, client_ids: ClientIds) -> bool:
    """Whether `principal` is the job's owner, or whom it is addressed to, or is granted all jobs.

    Or whether it comes with a ticket for that job.
    """
    if principal.ticket is not None:
        return principal.ticket.job_id == state.job_id
    return has_all(principal) or principal.owns(state.owner) or is_own(principal, state.tail, client_ids)


def is_own(principal: Principal, tail: str, client_ids: ClientIds) -> bool:
    """Whether `tail` is the principal's own user or client, which its jobs may address, whatever it may publish."""
    kind, _, name = tail.partition(".")
    if kind == "client":
        return client_ids.owns(principal, decode_token(name))
    return bool(principal.user) and tail == principal.user


def has_all(principal: Principal) -> bool:
    """`jobs:*` may stand in either list: what it grants is to reach them."""
    return principal.subscribe.allows(ALL_JOBS) or principal.publish.allows(ALL_JOBS)
