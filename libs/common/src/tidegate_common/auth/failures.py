"""Who fails to say who they are: counted, said now and then, and slowed down."""

from __future__ import annotations

import logging

from tidegate_common.auth.limits import RateLimit
from tidegate_common.auth.network import network
from tidegate_common.errors import AUTHENTICATION
from tidegate_common.telemetry.trouble import Trouble

log = logging.getLogger(__name__)

HONEST = frozenset({"missing", "expired", "early"})
"""What nobody tries in order to get in, and what costs no signature check: it takes nothing from an address. A thousand
clients behind one address may all have slept past their tokens' end."""


class Failures:
    """The failures of one process, with the limit of each address."""

    def __init__(self, limit: RateLimit) -> None:
        self._limit = limit
        self._troubles = {
            # Once a minute: the audit log has more.
            reason: Trouble(log, f"a request was refused ({reason}): {text}", level=logging.INFO)
            for reason, text in AUTHENTICATION.items()
        }

    def note(self, reason: str, address: str) -> None:
        """A request from `address` failed. Raises Limited if there were too many from there.

        It is called after the check, never before: a good token gets in, whoever else is behind the same address.
        """
        where = network(address)
        self._troubles[reason].note(fields={"address": where})
        if reason not in HONEST:
            self._limit.take(where)
