"""What a NATS server allows one connection, beside what it tells by itself: found out by what it refused."""

from __future__ import annotations

SPARE_SUBSCRIPTIONS = 16
"""Kept free for what a process can't do without: answers, control subjects, the queue's inboxes."""

NO_MORE = "NATS allows this process no more subscriptions (its max_subscriptions)"

NO_LIMIT = 1 << 62


class ConnectionLimits:
    """Of the connection that there is, or was last."""

    def __init__(self) -> None:
        self.subscriptions = NO_LIMIT
        """How many the server takes; known once it has refused one."""
        self.line = NO_LIMIT
        """Of a line's bytes, those of a message's head too. It stays: a line that was too long is so elsewhere."""
        self._longest = 0
        self._found = False

    def sent(self, size: int) -> None:
        """A line of so many bytes has been sent."""
        if size > self._longest:
            self._longest = size

    def line_refused(self) -> None:
        """Some line was too long. The longest one was, whichever the server has stumbled over."""
        self.line = min(self.line, self._longest - 1)

    def found(self, subscriptions: int) -> None:
        """The server takes so many; that is why the connection is given up for another, for which it holds, too."""
        self.subscriptions = max(0, subscriptions)
        self._found = True

    def opened(self) -> None:
        """Another connection: its server may allow more."""
        if not self._found:
            self.subscriptions = NO_LIMIT
        self._found = False
        self._longest = 0

    def refusal(self, size: int, there: int, *, spare: bool) -> str:
        """Why one more subscription, of a line of `size` bytes beside `there` others, is refused; empty: it is not.

        `spare` ones leave room for others.
        """
        if size > self.line:
            return "NATS takes no name of so many characters (its max_control_line)"
        if there >= self.subscriptions - (SPARE_SUBSCRIPTIONS if spare else 0):
            return NO_MORE
        return ""
