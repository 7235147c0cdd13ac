"""Publishers: they send through the real HTTP API until each event is accepted, and tell the ledger."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import httpx

from tests.stress.ledger import Ledger

WRITERS = 4

AHEAD_SECONDS = 3600


class Load:
    """Events for `names` (clients), `users`, `rooms` (topics) and all, at `rate` calls a second over all writers."""

    def __init__(
        self,
        ledger: Ledger,
        url: str,
        seed: int,
        names: int,
        users: int,
        rooms: Sequence[str],
        rate: float,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._ledger = ledger
        self._client = httpx.AsyncClient(base_url=url, timeout=20, headers=headers)
        self._seed = seed
        self._names, self._users, self._rooms = names, users, rooms
        self._rate = rate
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self.padding: Callable[[], int] = lambda: 0
        """Characters that the next event has beside its number."""
        self.refused = 0
        """Answers that were not an acceptance; each of them was followed by another try."""
        self.events = 0
        self.sent_at: dict[int, float] = {}
        """By an event's number, on time.perf_counter."""
        self.volatile_at: dict[int, float] = {}
        """When a volatile event was accepted, by its number, on time.monotonic."""

    def start(self) -> None:
        self._stopping = False
        writers = [random.Random(f"{self._seed}/{number}") for number in range(WRITERS)]
        self._tasks = [asyncio.create_task(self._write(rng)) for rng in writers]

    async def stop(self) -> None:
        """Ends when what was being sent is accepted. Raises what broke a writer."""
        self._stopping = True
        await asyncio.gather(*self._tasks)
        self._tasks = []

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await self._client.aclose()

    async def burst(self, rng: random.Random, lines: int, broadcasts: float = 0.1) -> None:
        """One batch of `lines` events."""
        numbers, body = [], []
        for _ in range(lines):
            number, event = self._event("" if rng.random() < broadcasts else self._target(rng))
            numbers.append(number)
            body.append(json.dumps(event))
        await self._until_accepted("/api/sse/batch", "\n".join(body).encode(), numbers)

    async def send(self, target: str, about: Callable[[int], object] = lambda number: None) -> int:
        """Sends one event to `target`; gives its number, which `about` is called with before it is on its way."""
        number, event = self._event(target)
        about(number)
        await self._until_accepted("/api/sse/send", json.dumps(event).encode(), [number])
        return number

    async def fill(self, targets: Iterable[str], padding: int = 0) -> None:
        """One batch with an event for each of `targets`, with so many characters."""
        made = [self._event(target, padding=padding) for target in targets]
        body = "\n".join(json.dumps(event) for _, event in made).encode()
        await self._until_accepted("/api/sse/batch", body, [number for number, _ in made])

    async def volatile(self, targets: Iterable[str], padding: int = 0) -> list[int]:
        """One batch of volatile events for `targets` (`` is all), sent once; gives the numbers of those accepted."""
        made = [self._event(target, padding=padding, volatile=True) for target in targets]
        body = "\n".join(json.dumps({**event, "durable": False}) for _, event in made).encode()
        answer = await self._client.post(
            "/api/sse/batch", content=body, headers={"content-type": "application/x-ndjson"}
        )
        found = _results(answer.json()) if answer.status_code == 200 else []
        accepted = [made[place][0] for place, result in enumerate(found) if result["status"] == 202]
        self.volatile_at |= dict.fromkeys(accepted, time.monotonic())
        return accepted

    async def broadcast(self) -> int:
        """Sends one to all; gives its number."""
        number, event = self._event("")
        del event["broadcast"]
        await self._until_accepted("/api/sse/broadcast", json.dumps(event).encode(), [number])
        return number

    async def receipt(self, target: str) -> int | None:
        """Sends one event to `target` (`` for all) with a receipt; gives `delivered`."""
        number, event = self._event(target)
        path = "/api/sse/send" if event.pop("broadcast", None) is None else "/api/sse/broadcast"
        body = json.dumps({**event, "receipt": True}).encode()
        answer = await self._until_accepted(path, body, [number])
        return None if answer["delivered"] is None else int(answer["delivered"])

    async def count(self, kind: str, name: str) -> int:
        """Presence of a client, user or topic (`kind`: the plural)."""
        answer = await self._client.get(f"/api/presence/{kind}/{quote(name, safe='')}")
        return int(answer.raise_for_status().json()["connections"])

    async def kick(self, name: str) -> int:
        """Ends a client's connections; gives their number."""
        answer = await self._client.delete(f"/api/presence/clients/{quote(name, safe='')}")
        return int(answer.raise_for_status().json()["ended"])

    async def revoke(self, user: str) -> None:
        """Nobody comes with a token of `user` any more, nor with one that is made from now on."""
        body = {"sub": user, "before": time.time() + AHEAD_SECONDS}
        (await self._client.post("/api/auth/revocations", json=body)).raise_for_status()

    async def ticket(self, token: str, wish: Mapping[str, Any]) -> str:
        """One for the stream of `wish`; empty if `token` is not good."""
        answer = await self._client.post("/api/auth/tickets", json=wish, headers={"Authorization": f"Bearer {token}"})
        return "" if answer.status_code == 401 else str(answer.raise_for_status().json()["ticket"])

    async def _write(self, rng: random.Random) -> None:
        while not self._stopping:
            kind = rng.random()
            if kind < 0.3:
                await self.burst(rng, rng.randint(2, 30), 0.02)
            elif kind < 0.7:
                number, event = self._event(self._target(rng))
                await self._until_accepted("/api/sse/send", json.dumps(event).encode(), [number])
            else:
                await self.broadcast()
            await asyncio.sleep(rng.expovariate(self._rate / WRITERS))

    def _target(self, rng: random.Random) -> str:
        kind = rng.random()
        if kind < 0.6:
            return f"client:c{rng.randrange(self._names)}"
        if kind < 0.8:
            return f"user:u{rng.randrange(self._users)}@example.org"
        return f"topic:{rng.choice(self._rooms)}"

    def _event(self, target: str, *, padding: int | None = None, volatile: bool = False) -> tuple[int, dict[str, Any]]:
        kind, _, name = target.partition(":")
        number = self._ledger.send(target or "all", volatile=volatile)
        self.sent_at[number] = time.perf_counter()
        to = {"broadcast": True} if not target else {kind if kind == "topic" else f"{kind}_id": name}
        size = self.padding() if padding is None else padding
        return number, {**to, "event_type": "e", "data": f"{number}:" + "x" * size}

    async def _until_accepted(self, path: str, body: bytes, numbers: list[int]) -> Mapping[str, Any]:
        """The last answer's result, for the last of the events."""
        headers = {
            "idempotency-key": f"{self._seed}-{numbers[0]}",
            "content-type": "application/x-ndjson" if path.endswith("batch") else "application/json",
        }
        while True:
            try:
                answer = await self._client.post(path, content=body, headers=headers)
            except httpx.TransportError:
                answer = None
            if answer is not None and answer.status_code not in (200, 202, 503):
                raise AssertionError(f"{path} answered {answer.status_code}: {answer.text}")
            found = [] if answer is None or answer.status_code == 503 else _results(answer.json())
            if found and all(result["status"] == 202 for result in found):
                break
            self.refused += 1
            await asyncio.sleep(0.1)
        for number, result in zip(numbers, found, strict=True):
            self._ledger.accept(number, self._ledger.place(result["id"]))
        self.events += len(numbers)
        return found[-1]


def _results(answer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(answer["results"]) if "results" in answer else [{"status": 202, **answer}]
