"""The file of keys is read again and again, off every request's path, and counts once it is good and at rest.

It is small, so it is compared as a whole: times and inodes would have to be right for a file that is written in place,
one that is renamed to its name, and a link that Kubernetes turns.
"""

from __future__ import annotations

import asyncio
import logging

from tidegate_common.auth.api_keys import ApiKeys, UnusableKeys, parse, read
from tidegate_common.telemetry.trouble import Trouble

log = logging.getLogger(__name__)

EVERY_SECONDS = 1.0


class KeysFile:
    """Keeps `keys` as the file at `path` says."""

    def __init__(self, path: str, every_seconds: float = EVERY_SECONDS) -> None:
        """Raises UnusableKeys."""
        self._path = path
        self._every = every_seconds
        self._used = read(path)
        self.keys = ApiKeys(parse(self._used))
        self._last = self._used
        self._trouble = Trouble(
            log,
            "the file of API keys (TIDEGATE_API_KEYS_FILE) can't be used, and the keys that it had before stay good",
            "the file of API keys is good again",
        )

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(self._every)
            try:
                self.look(await asyncio.to_thread(read, self._path))
            except UnusableKeys as error:
                self._trouble.note(error)
            except Exception as error:  # it has to go on: a key that is taken away would be good for ever
                self._trouble.note(type(error).__name__, error)

    def look(self, found: bytes) -> None:
        """Uses what was `found` twice in a row. What is half written can be read as a file with fewer keys."""
        at_rest, self._last = found == self._last, found
        if not at_rest:
            return
        if found != self._used:
            self.keys.use(parse(found))
            self._used = found
            log.info("the file of API keys has changed and is used as it is now")
        self._trouble.over()
