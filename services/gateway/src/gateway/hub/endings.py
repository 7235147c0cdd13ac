"""Every way in which a connection ends: its name is the metric's label and the `reason` that a client reads."""

from __future__ import annotations

from enum import Enum


class Ending(Enum):
    """(name, for people, whether the client does well to come back)"""

    CLIENT = ("client", "the client closed the connection, or it broke", True)
    DRAIN = ("drain", "the gateway is being stopped", True)
    IDLE = ("idle", "no event for a long time", True)
    MAX_AGE = ("max_age", "the connection has reached the age limit", True)
    SLOW = ("slow", "the client reads too slowly; what it missed is replayed when it comes back", True)
    FEED = ("feed", "what was missed could not be read from the stream", True)

    def __init__(self, reason: str, text: str, reconnect: bool) -> None:
        self.reason = reason
        self.text = text
        self.reconnect = reconnect
