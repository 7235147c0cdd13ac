"""Every way in which a connection ends: its name is the metric's label and the `reason` that a client reads."""

from __future__ import annotations

import random
from enum import Enum

from gateway import frame


class Back(Enum):
    """What a client is told about coming back: whether to, and the milliseconds of its `retry:`, from and to."""

    SOON = (True, 1_000, 3_000)
    NOT_FOR_HOURS = (False, 6 * 3_600_000, 12 * 3_600_000)
    """EventSource does not know `"reconnect": false`, and comes back after any end: `retry:` alone holds it off.

    Less than 2^31 milliseconds (24 days), past which JavaScript's timers fire at once.
    """
    FOR_204 = (False, 1_000, 3_000)
    """An answer of 204 is what ends an EventSource. It gets that when it comes back, so that is to be soon."""

    def __init__(self, reconnect: bool, least: int, most: int) -> None:
        self.reconnect = reconnect
        self.least = least
        self.most = most

    def milliseconds(self) -> int:
        """Another time for each client: EventSource has no jitter of its own."""
        return random.randint(self.least, self.most)


class Ending(Enum):
    """Members hold the reason as metrics and clients see it, the reason in words, and when the client is to come back.

    REFUSED is neither's: what never began counts as refused, and not as ended.
    """

    CLIENT = ("client", "the client closed the connection, or it broke")
    DRAIN = ("drain", "the gateway is being stopped")
    IDLE = ("idle", "no event for a long time")
    MAX_AGE = ("max_age", "the connection has reached the age limit")
    STALLED = ("stalled", "the peer took nothing for too long: its network is gone, or it has stopped reading")
    SLOW = ("slow", "the client reads too slowly; what it missed is replayed when it comes back")
    KICKED = ("kicked", "the connection was ended by the application", Back.NOT_FOR_HOURS)
    REPLACED = ("replaced", "another connection has come with its ticket", Back.NOT_FOR_HOURS)
    """A browser that comes back while its old connection is held still replaces that one, and is the only one. But of
    two that share a ticket the former must not come back by itself, or they would replace each other for ever.
    """
    TOKEN_EXPIRED = ("token_expired", "the token is good no more: come back with another one")
    REVOKED = ("revoked", "the token, the key or a right that it had was taken away", Back.NOT_FOR_HOURS)
    DONE = ("done", "the job whose stream it was has ended", Back.FOR_204)
    REFUSED = ("refused", "no stream was made of it: the caller has got an error instead")
    FEED = ("feed", "what was missed can't be read from the stream, or the stream is another: come back")

    def __init__(self, reason: str, text: str, back: Back = Back.SOON) -> None:
        self.reason = reason
        self.text = text
        self.back = back

    def farewell(self) -> bytes:
        """The last chunk of a stream that the gateway ends so."""
        return frame.chunk(frame.closing(self.reason, self.back.milliseconds(), self.back.reconnect))
