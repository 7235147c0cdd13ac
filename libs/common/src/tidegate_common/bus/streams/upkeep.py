"""The streams as one process finds them: waited for at the start, looked at ever after.

publisher-api alone makes what is missing and changes what differs: no other service needs a right to. What differs, has
no leader or lacks a copy is said once, when it begins and when it is over, and readiness is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.refusals import Refusals
from tidegate_common.bus.jobs.priority import LEVELS
from tidegate_common.bus.jobs.queue_info import consumer_of
from tidegate_common.bus.requests.jetstream import STREAM_NOT_FOUND, JetStreamError
from tidegate_common.bus.streams.definitions import (
    REPLICAS,
    StreamDiffers,
    StreamLimits,
    change,
    configs,
    found,
    identity_streams,
    job_streams,
    made,
)
from tidegate_common.bus.streams.differences import Difference, differences
from tidegate_common.bus.streams.leaders import Leaders, leader_of
from tidegate_common.contract.events import TTL
from tidegate_common.errors import BrokerUnavailable, NotSent, TidegateError
from tidegate_common.telemetry.trouble import Trouble

log = logging.getLogger(__name__)

EVERY_SECONDS = 5.0
"""Between two looks: a stream that was deleted is back after so long."""

START_SECONDS = 60.0
"""How long a starting process waits for JetStream, its streams and their leaders before it gives up."""

START_AGAIN_SECONDS = 0.5

CHANGE_AGAIN_SECONDS = 60.0
"""Between two tries of the same change."""

PROBE_SECONDS = 1.0
"""How long a readiness probe waits for a stream's leader."""


LEAST_PAYLOAD = 16_384
"""Bytes that NATS has to take in one message: 4,096 of headers, and an event of the 2,000 characters that a worker
joins, of which each may take six in JSON. Whatever else is too large is refused one by one, with its own limit."""

PROBE = "probe"
"""The tail of what is stored to see whether anything is: nobody listens to it, and it is gone after a second."""


class Lack(NamedTuple):
    """What a process needs of NATS and does not have."""

    stream: str
    reason: str
    passing: bool
    """Whether it is waited out: an election. Requests need not go elsewhere."""
    needed: bool
    """Whether this process is of no use without it."""


class NotMade(BrokerUnavailable):
    """Streams are missing that another service has to make."""


class Upkeep:
    """One process's care for the streams."""

    def __init__(
        self,
        bus: Bus,
        limits: StreamLimits,
        leaders: Leaders,
        *,
        keeps: bool,
        all_needed: bool,
        refusals: Refusals | None = None,
    ) -> None:
        """`keeps`: whether it makes what is missing and changes what differs, as one service alone does. `all_needed`:
        whether it can't do without those of jobs either.

        `refusals` are those of the process's own publishes, if readiness is to say that they are refused.
        """
        self._refusals = refusals
        self._bus = bus
        self._leaders = leaders
        self._api = bus.api
        self._keeps = keeps
        self._configs = {config["name"]: config for config in configs(bus.subjects, limits)}
        self._needed = set(self._configs) - (set() if all_needed else job_streams(bus.subjects))
        self._due = set(self._configs) if keeps else set[str]()
        """Streams that have not been given yet what the settings say is kept."""
        self.on_remade: list[Callable[[], Awaitable[None]]] = []
        """Called when a stream is missing, and when there is another in its place."""
        self._lives: dict[str, str] = {}
        """When each stream was made that was seen last; empty: it was missing."""
        self._tried: dict[tuple[str, str], tuple[tuple[str, ...], float]] = {}
        """What was to be changed last, and when: a server may refuse it, or somebody change it back."""
        self._awaited = set[str]()
        """Streams that another service has to make, as they were when that was said."""
        self._strangers: list[str] = []
        """Consumers of the job queue that are not Tidegate's."""
        self._said: dict[tuple[str, str], str] = {}
        """What was said last, by stream and matter: each look finds it again."""
        self._unready = Trouble(log, "waiting for NATS to be ready", "NATS is ready")
        # No warning: at a start of all services at once it is as it should be, and readiness names what lasts.
        self._unmade = Trouble(
            log, "waiting for publisher-api to make the stream", "all streams are there", level=logging.INFO
        )
        self._blind = Trouble(log, "the streams could not be looked after", "the streams are looked after again")

    async def start(self, seconds: float = START_SECONDS) -> None:
        """Returns when the streams are there and have leaders. Raises BrokerUnavailable after `seconds`.

        If a stream differs, the process starts, and is not ready.
        """
        too_small = self._too_small()
        if too_small:
            raise BrokerUnavailable(too_small)
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            try:
                self._check_made(await self.look())
                for stream in self._needed:
                    self._check_leader(stream, await self._api.call(f"STREAM.INFO.{stream}"))
                self._unready.over()
                return
            except BrokerUnavailable as error:
                if self._hopeless(error) or asyncio.get_running_loop().time() > deadline:
                    raise
                if not isinstance(error, NotMade):  # said by the look
                    self._unready.note(error)
            await asyncio.sleep(START_AGAIN_SECONDS)

    async def run(self, every_seconds: float = EVERY_SECONDS) -> None:
        """Looks until it is cancelled."""
        while True:
            await asyncio.sleep(every_seconds)
            try:
                if self._bus.connected:
                    await self.look()
                    await self._try_again()
                    self._blind.over()
            except TidegateError as error:
                if self._bus.connected:
                    self._blind.note(error)

    async def look(self) -> set[str]:
        """One look at all of them; gives those that another service has to make. Raises BrokerUnavailable."""
        missing = set[str]()
        before = dict(self._lives)
        for name, config in self._configs.items():
            info = await (made(self._api, config) if self._keeps else found(self._api, name))
            self._lives[name] = info["created"] if info is not None else ""
            if info is not None:
                await self._look_at(name, config, info)
            elif not self._keeps:
                missing.add(name)
        if not missing <= self._awaited:
            self._awaited = missing
        if missing:
            self._unmade.note(
                ", ".join(sorted(self._awaited)) + self._mode
            )  # they are made one by one: not said anew for each
        else:
            self._awaited = missing
            self._unmade.over()
        if any(life != self._lives[name] for name, life in before.items()):
            for listener in self.on_remade:
                await listener()
        if self._bus.subjects.jobs_stream in self._needed - missing:
            await self._look_for_strangers()
        return missing

    async def lacks(self) -> list[Lack]:
        """What is not as it has to be, by asking just now."""
        too_small = self._too_small()
        found = [
            Lack("nats", too_small, passing=False, needed=True) if too_small else None,
            *await asyncio.gather(*map(self._lack, self._configs)),
        ]
        return [each for each in found if each is not None]

    async def _look_at(self, name: str, config: Mapping[str, Any], info: Mapping[str, Any]) -> None:
        differing = self._differing(name, info)
        if self._keeps and not any(each.fixed for each in differing):
            if await self._change(name, config, differing, "differs from Tidegate's"):
                differing = []
            if name in self._due:
                kept = [each for each in differences(config, info["config"]) if each.of_what_is_kept]
                if await self._change(name, config, kept, "keeps other than the settings say"):
                    self._due.discard(name)
        if differing:
            self._say(name, "differs", f"{StreamDiffers(name, differing)}: {_remedy(differing)}", logging.ERROR)
        else:
            self._over(name, "differs")
        self._tell_copies(name, config, info)

    async def _change(self, name: str, config: Mapping[str, Any], differing: list[Difference], what: str) -> bool:
        """Whether the stream is as it should be then. What NATS did not take is tried again after a while."""
        key, words, now = (name, what), tuple(map(str, differing)), asyncio.get_running_loop().time()
        before, when = self._tried.get(key, ((), 0.0))
        if not differing:
            return True
        if words == before and now < when + CHANGE_AGAIN_SECONDS:
            return False
        self._tried[key] = words, now
        try:
            async with self._api.changing:
                await change(self._api, config, (await self._api.call(f"STREAM.INFO.{name}"))["config"], differing)
        except JetStreamError as error:
            log.warning("the stream %s %s, and NATS does not change it: %s", name, what, error.words)
            return False
        return True

    def _tell_copies(self, name: str, config: Mapping[str, Any], info: Mapping[str, Any]) -> None:
        wanted = config["num_replicas"]
        replicas = (info.get("cluster") or {}).get("replicas") or []
        self._leaders.copies |= bool(replicas)
        if not self._keeps or wanted == 1:
            return
        there = bool(leader_of(info)) + sum(bool(each.get("current")) for each in replicas)
        if there >= wanted:
            self._say(name, "copies", f"all {wanted} copies of the stream {name} are there")
        else:
            why = "the others are being made, or their servers are away"
            self._say(name, "copies", f"the stream {name} has {there} of {wanted} copies: {why}", logging.WARNING)

    async def _look_for_strangers(self) -> None:
        """Other consumers take jobs away, or keep the workers' own from being made."""
        stream = self._bus.subjects.jobs_stream
        names = (await self._api.call(f"CONSUMER.NAMES.{stream}")).get("consumers") or []
        self._strangers = sorted(set(names) - {consumer_of(level) for level in LEVELS})
        if self._strangers:
            self._say(stream, "consumers", self._of_strangers(), logging.ERROR)
        else:
            self._over(stream, "consumers")

    async def _try_again(self) -> None:
        """Stores something, if publishes were refused: a process that is not ready gets none to find out by."""
        if self._refusals is None or not self._refusals.lasting:
            return
        with contextlib.suppress(BrokerUnavailable):  # it still refuses: said already
            await self._api.store(self._bus.subjects.inbound(PROBE), b"", {TTL: "1s"}, PROBE_SECONDS)
            self._refusals.over()

    def _of_strangers(self) -> str:
        stream = self._bus.subjects.jobs_stream
        return (
            f"{stream} has consumers that are not Tidegate's ({', '.join(self._strangers)}): they take jobs away, or "
            f"keep workers from theirs. Remove them: nats consumer rm {stream} {self._strangers[0]}"
        )

    async def _lack(self, name: str) -> Lack | None:
        reason = ""
        try:
            info = await self._api.call(f"STREAM.INFO.{name}", seconds=PROBE_SECONDS)
            self._check_leader(name, info)
            self._leaders.found(name)
            differing = self._differing(name, info)
            if differing:
                reason = str(StreamDiffers(name, differing))
            elif self._strangers and name == self._bus.subjects.jobs_stream:
                reason = self._of_strangers()
            elif self._refusals is not None:
                reason = self._refusals.of(name) or ""
        except JetStreamError as error:
            missing = error.code == STREAM_NOT_FOUND
            reason = f"the stream {name} does not exist{self._whose}" if missing else str(error)
        except BrokerUnavailable as error:
            self._leaders.hear(name, error)
            reason = f"the stream {name} has no leader ({error})"
            return Lack(name, reason, self._leaders.passing(name), name in self._needed)
        return Lack(name, reason, False, name in self._needed) if reason else None

    @property
    def _whose(self) -> str:
        return "" if self._keeps else ": waiting for publisher-api to make it"

    def _check_made(self, missing: set[str]) -> None:
        """Raises NotMade."""
        needed = ", ".join(sorted(missing & self._needed))
        if needed:
            raise NotMade(f"publisher-api has not made {needed} yet: start it, or see its log{self._mode}")

    @property
    def _mode(self) -> str:
        """What to say if those of identity alone are missing: publisher-api may be there, and ask nobody."""
        of_identity = self._awaited <= identity_streams(self._bus.subjects)
        return " (it makes these with TIDEGATE_AUTH=token)" if of_identity else ""

    def _check_leader(self, name: str, info: Mapping[str, Any]) -> None:
        if leader_of(info) is None:
            raise NotSent(f"JetStream names no leader of {name}")

    def _differing(self, name: str, info: Mapping[str, Any]) -> list[Difference]:
        """But for how much is kept, which another service's settings say."""
        return [each for each in differences(self._configs[name], info["config"]) if not each.of_what_is_kept]

    def _too_small(self) -> str:
        """What to say if NATS takes no messages of the size that Tidegate needs; empty if it does."""
        size = int(self._bus.client.max_payload)
        if size >= LEAST_PAYLOAD:
            return ""
        text = f"NATS's max_payload is {size} bytes, and Tidegate needs at least {LEAST_PAYLOAD}"
        return f"{text}: 4096 for headers, the rest for one event; set max_payload in the server's configuration"

    def _hopeless(self, error: BrokerUnavailable) -> bool:
        """Whether waiting helps nothing: the server is alone, and has no JetStream or can't keep so many copies."""
        server: dict[str, Any] = self._bus.client._server_info
        if not self._bus.connected or server.get("cluster"):
            return False
        cause = error.__cause__
        return not server.get("jetstream") or (isinstance(cause, JetStreamError) and cause.code in REPLICAS)

    def _say(self, stream: str, matter: str, text: str, level: int = logging.INFO) -> None:
        if self._said.get((stream, matter)) != text:
            self._said[stream, matter] = text
            log.log(level, "%s", text, extra={"stream": stream})

    def _over(self, stream: str, matter: str) -> None:
        if self._said.pop((stream, matter), None) is not None:
            log.info("%s", OVER[matter].format(stream=stream))


OVER = {
    "differs": "the stream {stream} is as it should be again",
    "consumers": "the stream {stream} has no consumers any more that are not Tidegate's",
}


def _remedy(differing: list[Difference]) -> str:
    if any(each.fixed for each in differing):
        return "it can't be changed, so move it away (delete it, or use another TIDEGATE_NAMESPACE)"
    return "publisher-api changes it when it looks, within some seconds"
