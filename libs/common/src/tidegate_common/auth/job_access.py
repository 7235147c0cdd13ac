"""Who may see a job, watch it, answer it and cancel it: one rule for its stream, its record and its end."""

from __future__ import annotations

from tidegate_common.auth.client_ids import ClientIds
from tidegate_common.contract.jobs import JobState
from tidegate_common.contract.principal import ALL_JOBS, Principal
from tidegate_common.contract.subjects import decode_token, user_tail


def may_reach(principal: Principal, state: JobState, client_ids: ClientIds) -> bool:
    """Whether `principal` is the job's owner, or whom it is addressed to, or is granted all jobs.

    Anybody else is told what they would be told if there were no such job.
    """
    if principal.subscribe.allows(ALL_JOBS) or principal.owns(state.owner):
        return True
    kind, _, name = state.tail.partition(".")
    if kind == "client":
        return client_ids.owns(principal, decode_token(name))
    return bool(principal.subject) and state.tail == user_tail(principal.subject)
