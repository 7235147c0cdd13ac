"""What keeps a connection to NATS from coming about, said when it is new, and whether it is time to give up."""

from __future__ import annotations

import logging
import re
import time

from tidegate_common.bus.wire.server_errors import ServerError
from tidegate_common.contract.subjects import without_name
from tidegate_common.telemetry.trouble import Trouble

log = logging.getLogger(__name__)

_QUOTED = re.compile(r'"([^"]*)"')
"""Where the server's texts have a subject."""

PATIENT_SHARE = 0.5
"""Refusals that are further apart than this part of the patience are no series."""


class ConnectionLog:
    """Counts refusals: if NATS is there and says no, trying again for ever helps nobody."""

    def __init__(self, refused_seconds: float) -> None:
        self._patience = refused_seconds
        self._away = Trouble(log, "no connection to NATS")
        self._heard = Trouble(log, "NATS says")
        self._since: float | None = None
        """When the present series of refusals began."""
        self._latest = 0.0
        self.last = ""
        """What was in the way, of a refusal the last; empty for nothing."""
        self.refused = False
        """Whether that was a refusal."""

    def add(self, server: str, error: Exception) -> bool:
        """One more failure. Gives whether NATS has refused this process for too long."""
        refuses = bool(getattr(error, "refuses", False))
        if refuses or not self.refused:
            self.last, self.refused = str(error), refuses
        self._away.note(f"{server}: {error}")
        if not refuses:
            return False
        now = time.monotonic()
        if self._since is None or now - self._latest > self._patience * PATIENT_SHARE:
            self._since = now
        self._latest = now
        return now - self._since >= self._patience

    def clear(self) -> None:
        """There is a connection."""
        self._away.over()
        self._since, self.last, self.refused = None, "", False

    def said(self, error: ServerError) -> None:
        """The server said something and went on."""
        text = str(error).removeprefix("NATS says: ")
        self._heard.note(_QUOTED.sub(lambda found: f'"{without_name(found[1])}"', text))

    async def unforeseen(self, error: Exception) -> None:
        """An error that nats-py tells of: its subscriptions' handlers, mostly.

        What fails to connect is in `add`; what can't be written to a connection is a loss, which is said.
        """
        if not hasattr(error, "refuses") and not isinstance(error, ConnectionError):
            log.warning("NATS client: %s", error or type(error).__name__, exc_info=error)
