"""The list of what was revoked, as several processes have it."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tests.support.bus import SUBJECTS, connected
from tests.support.cluster import NAMES, leader, made, nats_cluster
from tests.support.nats import NatsServer, nats_server
from tests.support.waiting import until
from tidegate_common.auth.revocations import Revocations
from tidegate_common.bus.connection import Bus, connect
from tidegate_common.bus.requests.bucket import Bucket
from tidegate_common.bus.streams.definitions import StreamLimits
from tidegate_common.contract.principal import Principal
from tidegate_common.contract.revocation import Revocation, key_of
from tidegate_common.errors import BrokerUnavailable, NotFound, Unauthenticated
from tidegate_common.runtime.tasks import end

LIMITS = StreamLimits(identity=True)
ANN = Principal("user:ann", subject="ann", issued=1000.0, token_id="t1", client="laptop")
SHOP = Principal("key:shop", key="shop")
TOKEN_SECONDS = 3600.0


@asynccontextmanager
async def process(url: str, *, keeps: bool = False) -> AsyncIterator[Revocations]:
    """One that keeps the list, on a connection of its own."""
    async with connect(url, SUBJECTS, "test") as bus:
        found = Revocations(bus, TOKEN_SECONDS, keeps=keeps)
        await found.start()
        running = asyncio.create_task(found.run())
        try:
            yield found
        finally:
            await end([running])


@asynccontextmanager
async def two(data: Path) -> AsyncIterator[tuple[NatsServer, Bus, Revocations, Revocations]]:
    async with (
        nats_server(data) as server,
        connected(server.url, LIMITS) as bus,
        process(server.url) as one,
        process(server.url) as other,
    ):
        yield server, bus, one, other


@pytest.mark.parametrize(
    ("kind", "value", "principal"),
    [("sub", "ann", ANN), ("jti", "t1", ANN), ("client_id", "laptop", ANN), ("key", "shop", SHOP)],
)
async def test_what_one_process_revokes_no_process_takes(
    tmp_path: Path, kind: str, value: str, principal: Principal
) -> None:
    async with two(tmp_path) as (_, _, one, other):
        other.check(principal)
        await one.revoke(kind, value)
        with pytest.raises(Unauthenticated) as raised:
            one.check(principal)
        assert raised.value.reason == "revoked"
        await until(lambda: other.revoked(principal), "the other process knows")
        await other.take_back(kind, value)
        other.check(principal)
        await until(lambda: not one.revoked(principal), "it counts again everywhere")


async def test_a_stream_of_a_revoked_client_is_not_its_users_other_one(tmp_path: Path) -> None:
    async with two(tmp_path) as (_, _, one, _):
        await one.revoke("client_id", "phone")
        assert not one.revoked(ANN)
        assert one.revoked(ANN, "phone")


async def test_tokens_that_were_issued_since_are_good(tmp_path: Path) -> None:
    async with two(tmp_path) as (_, _, one, _):
        await one.revoke("sub", "ann", before=1000.5)
        assert one.revoked(ANN)
        assert not one.revoked(Principal("user:ann", subject="ann", issued=1001.0))
        # Earlier, which takes nothing back.
        assert (await one.revoke("sub", "ann", before=900.0)).before == 1000.5
        assert one.revoked(ANN)


async def test_names_may_be_anything(tmp_path: Path) -> None:
    async with two(tmp_path) as (_, _, one, other):
        for name in ("a.b", "*", ">", "a b", "ä/%2E", "x" * 200):
            await one.revoke("sub", name)
            asked = Principal(f"user:{name}", subject=name)
            await until(lambda asked=asked: other.revoked(asked), f"{name} is revoked")
        assert not other.revoked(Principal("user:b", subject="b"))
        assert not other.revoked(ANN)


async def test_a_tokens_revocation_lives_as_long_as_a_token_may_and_a_keys_has_no_end(tmp_path: Path) -> None:
    async with two(tmp_path) as (_, bus, one, _):
        now = time.time()
        token, key = await one.revoke("jti", "t1"), await one.revoke("key", "shop")
        assert now + TOKEN_SECONDS <= token.until <= time.time() + TOKEN_SECONDS
        assert key.until == 0
        stream = f"KV_{SUBJECTS.revoked_bucket}"
        kept = [await bus.jetstream.get_msg(stream, seq=number) for number in (1, 2)]
        assert [(each.headers or {}).get("Nats-TTL") for each in kept] == ["3600s", None]


async def test_one_whose_time_is_over_is_listed_no_more(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as server, connected(server.url, LIMITS) as bus:
        short = Revocations(bus, 0.001)
        await short.start()
        await short.revoke("jti", "t1")
        await short.revoke("key", "shop")
        await until(lambda: short.latest(10)[1] == 1, "one is over")
        assert [each.key for each in short.latest(10)[0]] == ["shop"]


async def test_while_nats_is_away_the_last_known_list_holds_and_then_what_was_missed_is_told(tmp_path: Path) -> None:
    async with nats_server(tmp_path / "one") as server, connected(server.url, LIMITS), process(server.url) as here:
        await here.revoke("sub", "ann")
        port = server.port
        server.run.process.kill()
        await until(lambda: not here._bus.connected, "NATS is gone")
        assert here.revoked(ANN)
        with pytest.raises(BrokerUnavailable):
            await here.revoke("key", "shop")
        assert not here.revoked(SHOP)
        told: list[Sequence[Revocation]] = []
        here.on_change.append(told.append)
        async with nats_server(tmp_path / "one") as elsewhere, connected(elsewhere.url, LIMITS) as bus:
            other = Revocations(bus, TOKEN_SECONDS)
            await other.start()
            await other.revoke("key", "shop")
            await other.take_back("sub", "ann")
        assert here.revoked(ANN)
        assert not here.revoked(SHOP)
        async with nats_server(tmp_path / "one", port):
            await until(lambda: here.revoked(SHOP), "it knows what was revoked meanwhile")
            assert not here.revoked(ANN)
            assert [each.key for some in told for each in some] == ["shop"]


async def test_who_is_revoked_stays_so_when_the_bucket_is_lost(tmp_path: Path) -> None:
    """NATS comes back with an empty store: publisher-api puts back what it knows, and nothing that was taken back."""
    bob = Principal("user:bob", subject="bob", issued=1000.0)
    async with AsyncExitStack() as stack:
        async with nats_server(tmp_path / "before") as server, connected(server.url, LIMITS):
            keeper = await stack.enter_async_context(process(server.url, keeps=True))
            other = await stack.enter_async_context(process(server.url))
            for kind, value in (("sub", "ann"), ("key", "shop"), ("sub", "bob")):
                await keeper.revoke(kind, value)
            await keeper.take_back("sub", "bob")
            await until(lambda: other.revoked(ANN) and other.revoked(SHOP) and not other.revoked(bob), "it is known")
            port = server.port
        async with (
            nats_server(tmp_path / "after", port) as server,
            connected(server.url, LIMITS) as bus,
            process(server.url) as late,
        ):
            await until(lambda: late.revoked(ANN) and late.revoked(SHOP), "they are put back")
            assert not late.revoked(bob)
            entry = await Bucket(bus, SUBJECTS.revoked_bucket).get(key_of("sub", "ann"))
            assert entry is not None
            await until(lambda: other.revoked(ANN) and other.revoked(SHOP), "those who forgot them know them again")
            assert keeper.latest(10)[1] == 2
            await keeper.take_back("sub", "ann")
            await until(lambda: not late.revoked(ANN), "it can be taken back")


async def test_one_who_fails_over_a_revocation_keeps_it_from_nobody_else(tmp_path: Path) -> None:
    def fails(_: Sequence[Revocation]) -> None:
        raise ValueError

    async with two(tmp_path) as (_, _, one, other):
        told: list[Sequence[Revocation]] = []
        other.on_change += [fails, told.append]
        await one.revoke("sub", "ann")
        await until(lambda: len(told) == 1, "the other one is told")
        other._copy._lookout.lacks()
        await one.revoke("key", "shop")
        await until(lambda: len(told) == 2, "it goes on")


async def test_what_the_bucket_did_not_store_revokes_nobody(tmp_path: Path) -> None:
    """A message on the bucket's subject that the stream refuses is heard by everyone who listens there."""
    async with (
        nats_server(tmp_path) as server,
        connected(server.url, StreamLimits(identity=True, max_revoked=1)),
        process(server.url) as one,
        process(server.url) as other,
    ):
        await one.revoke("key", "shop")
        with pytest.raises(BrokerUnavailable):
            await one.revoke("sub", "ann")
        await one.revoke("key", "shop")  # what is there already can be changed
        await one.take_back("key", "shop")
        await until(lambda: not other.revoked(SHOP), "the other process has heard all of it")
        assert not one.revoked(ANN)
        assert not other.revoked(ANN)


async def test_what_was_lost_on_the_way_is_found(tmp_path: Path) -> None:
    async with two(tmp_path) as (_, _, one, other):
        lost = other._copy._hear
        sid = next(
            number
            for number, each in other._bus.client._subs.items()
            if getattr(each, "_subject", "") == SUBJECTS.revoked("*")
        )
        other._bus.client.unsubscribe_direct(sid)
        await one.revoke("sub", "ann")
        other._bus.client.subscribe_direct(SUBJECTS.revoked("*"), lost)
        await one.revoke("key", "shop")  # the next one shows that one is missing
        await until(lambda: other.revoked(ANN) and other.revoked(SHOP), "both are known")


async def test_a_thousand_are_read_at_the_start(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as server, connected(server.url, LIMITS), process(server.url) as one:
        for first in range(0, 1200, 100):
            await asyncio.gather(*(one.revoke("sub", f"user {number}") for number in range(first, first + 100)))
        async with process(server.url) as late:
            assert late.latest(5)[1] == 1200
            assert late.revoked(Principal("user:user 1199", subject="user 1199"))


async def test_what_is_not_there_can_not_be_taken_back(tmp_path: Path) -> None:
    async with two(tmp_path) as (_, _, one, _):
        with pytest.raises(NotFound):
            await one.take_back("sub", "ann")
        await one.revoke("sub", "ann")
        await one.take_back("sub", "ann")
        with pytest.raises(NotFound):
            await one.take_back("sub", "ann")
        assert one.latest(10) == ([], 0)


async def test_what_is_no_revocation_of_ours_is_passed_over(tmp_path: Path) -> None:
    async with two(tmp_path) as (_, bus, one, other):
        bucket = Bucket(bus, SUBJECTS.revoked_bucket)
        for value in (b"{", b"{}", b'{"sub": "ann", "key": "shop"}', b'{"sub": "bob"}'):
            await bucket.put(key_of("sub", "ann"), value)
        await one.revoke("key", "shop")
        await until(lambda: other.revoked(SHOP), "the next one counts")
        assert not other.revoked(ANN)
        assert other._bus.foreign.counts["revocation"] == 4


async def test_in_a_cluster_whoever_leads_everybody_knows_and_who_starts_has_all(tmp_path: Path) -> None:
    """A copy of the bucket may be behind its leader, and an election may come between."""
    stream = f"KV_{SUBJECTS.revoked_bucket}"
    async with nats_cluster(tmp_path) as cluster, AsyncExitStack() as stack:
        bus = await stack.enter_async_context(connect(cluster.url, SUBJECTS, "test"))
        await made(bus, StreamLimits(replicas=3, identity=True))
        here = [await stack.enter_async_context(process(cluster.url_of(name))) for name in NAMES]
        for number in range(20):
            await here[number % 3].revoke("sub", f"user {number}")
        async with process(cluster.url) as started:
            assert started.latest(1)[1] == 20
        await until(lambda: all(each.latest(1)[1] == 20 for each in here), "all know")
        led = await leader(bus, stream)
        stopped, others = here[NAMES.index(led)], [here[number] for number, name in enumerate(NAMES) if name != led]
        await cluster.servers[led].run.stop(signal.SIGKILL)

        async def revoked() -> bool:
            try:
                await others[0].revoke("sub", "ann")
            except BrokerUnavailable:
                return False  # until another one leads
            return True

        await until(revoked, "it is stored", 30)
        await until(lambda: others[1].revoked(ANN), "the other one knows")
        assert stopped.latest(1)[1] >= 20, "the last known list holds"
        await until(lambda: stopped.revoked(ANN), "so does the one that lost its server, and was told of others", 30)
