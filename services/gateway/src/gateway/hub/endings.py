"""Every way in which a connection ends: its name is the metric's label and the `reason` that a client reads."""

from __future__ import annotations

from enum import Enum


class Ending(Enum):
    """Members hold the reason as metrics and clients see it, and the reason in words.

    REFUSED is neither's: what never began counts as refused, and not as ended.
    """

    CLIENT = ("client", "the client closed the connection, or it broke")
    DRAIN = ("drain", "the gateway is being stopped")
    IDLE = ("idle", "no event for a long time")
    MAX_AGE = ("max_age", "the connection has reached the age limit")
    STALLED = ("stalled", "the peer took nothing for too long: its network is gone, or it has stopped reading")
    SLOW = ("slow", "the client reads too slowly; what it missed is replayed when it comes back")
    KICKED = ("kicked", "the connection was ended by the application")
    DONE = ("done", "the job whose stream it was has ended")
    REFUSED = ("refused", "no stream was made of it: the caller has got an error instead")
    FEED = ("feed", "what was missed could not be read from the stream")

    def __init__(self, reason: str, text: str) -> None:
        self.reason = reason
        self.text = text
