"""The keys of an identity provider (JWKS), fetched in the background: no request waits for them.

httpx2 fetches them: there is one deadline for all of it, and nothing is left behind when it is cancelled, as a thread
with a blocking client would be. It is imported only where a JWKS is set. Its client is made once: to read the
authorities' certificates takes 45 ms, in which no stream is served.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tidegate_common.auth.keyset import MOST_BYTES, UnusableKey, VerifyingKey, read_jwks
from tidegate_common.telemetry.trouble import Trouble

if TYPE_CHECKING:
    import httpx2

log = logging.getLogger(__name__)

EVERY_SECONDS = 300.0
LEAST_SECONDS = 30.0
"""Between two fetches, whoever asks for keys that are not there."""
FIRST_SECONDS = 2.0
"""Until it is tried again at first; the double each time, as long as there is no set at all."""
MOST_AGE_SECONDS = 86_400.0
"""How long the last good set counts."""
FETCH_SECONDS = 5.0
"""What one fetch may take, from the look-up of the name to the last byte."""


ASKED = {"Accept": "application/json", "Accept-Encoding": "identity"}


class UnusableJwks(Exception):
    """The set can't be had; says why."""


class Jwks:
    """The last good set at `url`. `use` is called with its keys when they change, and with none when it is too old."""

    def __init__(
        self,
        url: str,
        use: Callable[[list[VerifyingKey]], None],
        clock: Callable[[], float] = time.monotonic,
        every_seconds: float = EVERY_SECONDS,
        least_seconds: float = LEAST_SECONDS,
        fetch_seconds: float = FETCH_SECONDS,
    ) -> None:
        self._url = url
        self._use = use
        self._clock = clock
        self._every = every_seconds
        self._least = least_seconds
        self._fetch_seconds = fetch_seconds
        self._wanted = asyncio.Event()
        self._tried = float("-inf")
        self._good: float | None = None
        """When there was a good set; None if there is none that counts."""
        self._identities: frozenset[tuple[str, str]] = frozenset()
        self._trouble = Trouble(
            log,
            "the JWKS (TIDEGATE_AUTH_JWKS_URL) can't be fetched; the last good set counts for 24 hours, and without "
            "one tokens of its keys are refused",
            "the JWKS is fetched again",
        )
        self.had_one = False
        """Whether there was ever a good set. That it is too old is no reason to send traffic elsewhere: nobody
        has a newer one."""
        self._client: httpx2.AsyncClient | None = None
        self._body = b""

    @property
    def age(self) -> float:
        """Seconds since the last good set was fetched; -1 if there is none."""
        return -1.0 if self._good is None else self._clock() - self._good

    def want(self) -> None:
        """A token names a key that is not there: it may be a new one."""
        self._wanted.set()

    async def start(self) -> None:
        """Fetches the set for the first time. If it is away, the process starts all the same."""
        import httpx2  # only where a JWKS is set: it takes 1.5 MB

        # A proxy of the environment sees nothing of https, and has no business with an address of this machine.
        proxied = self._url.startswith("https:")
        self._client = httpx2.AsyncClient(follow_redirects=False, timeout=self._fetch_seconds, trust_env=proxied)
        await self.refresh()

    async def run(self) -> None:
        """Keeps up until it is cancelled."""
        pause = FIRST_SECONDS
        while True:
            if not self._trouble.lasting:
                pause = self._every * random.uniform(0.9, 1.0)
            await self._wait(pause)
            try:
                await self.refresh()
            except Exception as error:  # it has to go on: the keys would be those of this moment for a day
                self._trouble.note(type(error).__name__, error)
            pause = min(2 * pause, self._least)

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def _wait(self, pause: float) -> None:
        """For `pause`; less if a key is wanted, and the last fetch is long enough ago."""
        try:
            async with asyncio.timeout(pause):
                await self._wanted.wait()
                await asyncio.sleep(self._tried + self._least - self._clock())
        except TimeoutError:
            pass

    async def refresh(self) -> None:
        """Fetches the set once. What goes wrong is said."""
        self._wanted.clear()
        self._tried = self._clock()
        try:
            body = await self._fetch()
            if body != self._body:  # else it is not read again: many keys would take milliseconds
                self._take(read_jwks(body))
                self._body = body
        except (UnusableJwks, UnusableKey) as error:
            self._trouble.note(error)
            if self.age > MOST_AGE_SECONDS:
                self._good, self._body = None, b""
                self._take([])
        else:
            self._good = self._clock()
            self.had_one = True
            self._trouble.over()

    def _take(self, keys: list[VerifyingKey]) -> None:
        identities = frozenset(key.identity for key in keys)
        if identities != self._identities:
            self._use(keys)
            self._identities = identities
            log.info("the JWKS is used as it is now; keys that tokens may be signed with: %d", len(keys))

    async def _fetch(self) -> bytes:
        """The body at the address. Raises UnusableJwks."""
        import httpx2

        assert self._client is not None, "start comes first"
        asked = self._client.stream("GET", self._url, headers=ASKED)
        try:
            async with asyncio.timeout(self._fetch_seconds), asked as response:
                if response.status_code != 200:
                    raise UnusableJwks(f"it answered {response.status_code}")
                body = bytearray()
                async for piece in response.aiter_raw():
                    body += piece
                    if len(body) > MOST_BYTES:
                        raise UnusableJwks(f"it is over {MOST_BYTES} bytes")
                return bytes(body)
        except TimeoutError:
            raise UnusableJwks(f"it took more than {self._fetch_seconds:g} s") from None
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise UnusableJwks(f"{type(error).__name__}: {error}") from None


def check_address(url: str) -> None:
    """Raises ValueError if no set may be fetched from `url`."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError("it is no URL") from None
    if not host or parts.username is not None or parts.fragment:
        raise ValueError("a host, and neither a user nor a fragment, as in https://id.example/jwks.json")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback_address(host)):
        raise ValueError("https alone: whoever changes the keys on their way can be anybody (http is for 127.0.0.1)")


def is_loopback_address(host: str) -> bool:
    """Whether `host` is an address of this machine alone; a name is none, whatever it leads to."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
