"""The token that each attempt sends: the application gives it, as often as it is asked."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

import httpx

from tidegate.asking import ask
from tidegate.events import Problem, Stopped

Token = str | Callable[[], str | Awaitable[str | None] | None]

KEYS_SECONDS = 2.0
"""How long a gateway is given to fetch a key that it does not know: an identity provider has a new one."""
_TEXT = re.compile(r"[\x21-\x7e]+")


class Credentials:
    """What the application gave as `token`: a text, or a function that makes one."""

    def __init__(self, given: Token | None) -> None:
        self._given = given
        self._used = ""
        self._next: str | None = None
        self._asked_again = False

    @property
    def can_renew(self) -> bool:
        """Whether another token may come of asking again."""
        return callable(self._given)

    async def sign(self, fields: httpx.Headers, seconds: float) -> httpx.Auth | None:
        """Puts the next attempt's token into `fields`. Gives what keeps httpx from putting another in its place.

        Raises NotGiven, Stopped, and what the caller's function raises.
        """
        if self._given is None:
            return None
        token, self._next = self._next, None
        self._used = await self._ask(seconds) if token is None else token
        if not self._used:
            return None
        if "Authorization" in fields:
            raise Stopped("the headers can't be sent: token and headers both give Authorization")
        fields["Authorization"] = f"Bearer {self._used}"
        return httpx.Auth()

    async def renew(self, seconds: float) -> bool:
        """Whether there is another token than the one in use: the next attempt sends it. Raises as `sign` does."""
        token = await self._ask(seconds)
        if not token or token == self._used:
            return False
        self._next = token
        return True

    def accepted(self) -> None:
        """The gateway took the token."""
        self._asked_again = False

    def once_more(self, problem: Problem) -> float | None:
        """After how many seconds a refused client asks for a token once more; None if it does not."""
        if problem.status != 401 or not self.can_renew or self._asked_again:
            return None
        seconds = {"expired": 0.0, "kid": KEYS_SECONDS}.get(problem.reason)
        self._asked_again = seconds is not None
        return seconds

    async def _ask(self, seconds: float) -> str:
        token = await ask(self._given, seconds, "token") if callable(self._given) else self._given
        if token is None or token == "":
            return ""
        if not isinstance(token, str) or not _TEXT.fullmatch(token.strip()):
            raise Stopped("the token can't be sent: it has to be a text without blanks, of ASCII alone")
        return token.strip()  # such as the line end of its file
