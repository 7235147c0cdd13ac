"""The parts of an AI run: NATS, publisher-api, two gateways, three workers as real processes, behind fault proxies."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import httpx

from ai_worker.models.scripted import ANSWERS, LONG
from tests.stress.answers.accounts import Wanted
from tests.stress.answers.watcher import Watcher
from tests.stress.leaks import Leaks
from tests.stress.parts import Part
from tests.stress.proxy import Cut, FaultProxy, fault_proxy
from tests.support.nats import nats_server
from tests.support.ports import free_port
from tests.support.processes import service
from tests.support.waiting import until

WORKERS = 3
CONCURRENCY = 8
ACK_SECONDS = 1.5
TOKEN_SECONDS = 0.02
SETTLE_SECONDS = 60.0

WORKER = {
    "TIDEGATE_AI_BACKEND": "scripted",
    "TIDEGATE_SCRIPTED_THINK_SECONDS": "0.05",
    "TIDEGATE_SCRIPTED_TOKEN_SECONDS": str(TOKEN_SECONDS),
    "TIDEGATE_AI_CONCURRENCY": str(CONCURRENCY),
    "TIDEGATE_AI_ACK_SECONDS": str(ACK_SECONDS),
    "TIDEGATE_AI_MAX_ATTEMPTS": "1000",
}


class AiWorld:
    """`problems` holds what a scenario found wrong beside the accounts."""

    def __init__(self, seed: int, http: httpx.AsyncClient) -> None:
        self.rng = random.Random(seed)
        self.http = http
        """Of publisher-api."""
        self.problems: list[str] = []
        self.jobs: list[Wanted] = []
        self.watchers: list[Watcher] = []
        self.nats: Part
        self.gateways: list[Part] = []
        self.workers: list[Part] = []
        self.proxies: list[FaultProxy] = []
        """Before each gateway."""
        self.feed: FaultProxy
        """Between the gateways and NATS; `desk` for the workers, `back` for publisher-api."""
        self.desk: FaultProxy
        self.back: FaultProxy
        self.leaks: Leaks
        self._joining: set[asyncio.Task[None]] = set()

    async def ask(self, *, endless: bool = False, **body: Any) -> Wanted:
        """Asks for an answer, until it is accepted: once, under a key of its own. An endless one takes half an hour."""
        length = self.rng.randint(20, len(ANSWERS["en"]))
        key = f"{self.rng.getrandbits(64):x}"
        asked = {"prompt": "[long]" if endless else "Hello", "max_tokens": length, **body}
        while True:
            try:
                answer = await self.http.post("/api/ai/chat", json=asked, headers={"idempotency-key": key})
            except httpx.TransportError:
                answer = None
            if answer is not None and answer.status_code == 202:
                break
            if answer is not None and answer.status_code != 503:
                raise AssertionError(f"{answer.status_code}: {answer.text}")
            await asyncio.sleep(0.1)
        text = "".join(islice(cycle(ANSWERS["en"]), LONG if endless else asked["max_tokens"]))
        wanted = Wanted(answer.json()["job_id"], text)
        self.jobs.append(wanted)
        return wanted

    def watch(self, wanted: Wanted, watchers: int = 1, within: float = 0.0) -> None:
        """Watchers of a job, who come within so many seconds."""
        for _ in range(watchers):
            task = asyncio.create_task(self._join(wanted, self.rng.uniform(0, within)))
            self._joining.add(task)
            task.add_done_callback(self._joining.discard)

    async def watch_now(self, wanted: Wanted) -> Watcher:
        """A watcher who is there when this returns."""
        await self._join(wanted, 0)
        watcher = self.watchers[-1]
        await until(lambda: watcher.connected, "the watcher is there")
        return watcher

    async def dismiss(self, watcher: Watcher) -> None:
        """It leaves, and does not count."""
        self.watchers.remove(watcher)
        await watcher.stop()

    def shown(self, wanted: Wanted) -> int:
        """Events with text, since the last restart, that the watcher who has most has seen of the job."""
        return max((watcher.seen.shown for watcher in self._of(wanted)), default=0)

    def restarts(self, wanted: Wanted) -> int:
        """Likewise."""
        return max((watcher.seen.restarts for watcher in self._of(wanted)), default=0)

    def over(self, wanted: Wanted) -> bool:
        """Somebody has seen the job's last event."""
        return any(watcher.seen.over for watcher in self._of(wanted))

    def _of(self, wanted: Wanted) -> list[Watcher]:
        return [watcher for watcher in self.watchers if watcher.seen.wanted is wanted]

    async def record(self, wanted: Wanted) -> dict[str, Any]:
        """The job's, with its answer."""
        answer = await self.http.get(f"/api/ai/chat/{wanted.job_id}")
        return dict(answer.raise_for_status().json())

    async def dead(self) -> list[dict[str, Any]]:
        """Jobs that are kept since they failed."""
        answer = await self.http.get("/api/ai/dead", params={"limit": 1000})
        return list(answer.raise_for_status().json()["jobs"])

    async def retry(self, wanted: Wanted) -> Wanted:
        """A dead job as a new one, which is to end as any."""
        answer = await self.http.post(f"/api/ai/dead/{wanted.job_id}/retry", json={})
        again = Wanted(answer.raise_for_status().json()["job_id"], wanted.text)
        self.jobs.append(again)
        return again

    async def _join(self, wanted: Wanted, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self.watchers.append(Watcher(wanted, lambda: random.choice(self.proxies).port))

    async def cancel(self, wanted: Wanted) -> None:
        """Until it is accepted."""
        while True:
            try:
                answer = await self.http.delete(f"/api/ai/chat/{wanted.job_id}")
            except httpx.TransportError:
                answer = None
            if answer is not None and answer.status_code in (200, 202):
                return
            await asyncio.sleep(0.1)

    def cut(self, watcher: Watcher, how: Cut) -> None:
        """Breaks the watcher's present connection, where it has one."""
        port = watcher.local_port
        for proxy in self.proxies:
            link = proxy.link_of(port) if port else None
            if link is not None:
                link.end(how)

    async def active(self) -> list[int]:
        """Jobs that each worker has in hand, of those that answer."""
        found = []
        async with httpx.AsyncClient(timeout=1) as http:
            for worker in self.workers:
                with contextlib.suppress(httpx.TransportError):
                    found.append(int((await worker.metrics(http))("jobs_active")))
        return found

    async def settle(self) -> None:
        """Returns when every watcher was told that there is nothing more, or when it had time enough."""
        while self._joining:
            await asyncio.wait(self._joining)
        try:
            await until(lambda: all(each.done for each in self.watchers), "all watchers have all", SETTLE_SECONDS)
        except AssertionError:
            late = [each for each in self.watchers if not each.done]
            told = ", ".join(f"{each.seen.wanted.job_id} (over: {each.seen.over}, {each.refused})" for each in late[:5])
            self.problems.append(f"{len(late)} watchers not done in {SETTLE_SECONDS:.0f} s: {told}")
        for watcher in self.watchers:
            await watcher.stop()
            if 404 in watcher.refused:
                self.problems.append(f"a watcher of {watcher.seen.wanted.job_id} got 404")

    async def leave(self) -> None:
        """All watchers have gone; nothing of them or of the jobs may stay in the services."""
        await self.http.aclose()
        self.problems += await self.leaks.found(len(self.watchers))


Run = Callable[[AiWorld, float], Awaitable[None]]


@asynccontextmanager
async def ai_world(data: Path, seed: int, env: dict[str, str]) -> AsyncIterator[AiWorld]:
    """All parts running, no job yet."""
    async with AsyncExitStack() as stack:
        publisher_port = free_port()
        http = await stack.enter_async_context(
            httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{publisher_port}",
                timeout=20,
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
            )
        )
        made = AiWorld(seed, http)

        async def run(part: Part) -> Part:
            stack.push_async_callback(part.aclose)
            await part.start()
            return part

        nats_port, monitor_port = free_port(), free_port()
        made.nats = await run(Part("NATS", lambda: nats_server(data / "nats", nats_port, monitor_port=monitor_port)))
        for name in ("feed", "desk", "back"):
            setattr(made, name, await stack.enter_async_context(fault_proxy(nats_port)))
        common = {"TIDEGATE_DRAIN_SECONDS": "4", "TIDEGATE_MAX_CONNECTIONS_PER_IP": "0", **WORKER, **env}

        def part(module: str, through: FaultProxy, port: int = 0) -> Part:
            port = port or free_port()
            given = {**common, "TIDEGATE_NATS_URL": f"nats://127.0.0.1:{through.port}"}
            return Part(module, lambda: service(module, port, given), port)

        publisher = await run(part("publisher_api", made.back, publisher_port))
        for _ in range(2):
            made.gateways.append(await run(part("gateway", made.feed)))
            made.proxies.append(await stack.enter_async_context(fault_proxy(made.gateways[-1].port)))
        for _ in range(WORKERS):
            made.workers.append(await run(part("ai_worker", made.desk)))
        made.leaks = Leaks([publisher, *made.gateways, *made.workers], made.gateways, monitor_port)
        await made.leaks.look()
        try:
            yield made
        finally:
            for worker in made.workers:  # one that a scenario left stopped could not be ended
                if worker.run is not None and worker.run.process.returncode is None:
                    worker.run.process.send_signal(signal.SIGCONT)
            for watcher in made.watchers:
                await watcher.stop()
