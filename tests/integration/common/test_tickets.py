"""Tickets, as they are kept: made once, first used in time, then good until the token's end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.bus import broker
from tidegate_common.auth.tickets import FIRST_USE_SECONDS, Tickets
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.requests.bucket import Bucket
from tidegate_common.bus.streams.definitions import StreamLimits
from tidegate_common.contract.principal import Grants, Principal
from tidegate_common.contract.tickets import digest_of, new_ticket
from tidegate_common.errors import BrokerUnavailable, Unauthenticated

NOW = time.time()
ANN = Principal(
    "user:ann",
    subject="ann",
    subscribe=Grants(["topic.a", "topic.b"]),
    publish=Grants(["topic.a"]),
    admin=frozenset({"kick"}),
    expires=NOW + 86_400,  # the whole suite may have run for a while before
    issued=NOW,
    token_id="t1",
)
TAILS, NAMES = ("client.laptop", "user.ann", "topic.a"), ("client:laptop", "user:ann", "topic:a")


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def tickets(data: Path) -> AsyncIterator[tuple[Tickets, Clock, Bus]]:
    async with broker(data, StreamLimits(identity=True)) as (_, bus):
        clock = Clock()
        yield Tickets(bus, 86_400, clock=clock), clock, bus


async def issued(made: Tickets, principal: Principal = ANN) -> str:
    return (await made.issue(principal, client_id="laptop", tails=TAILS, names=NAMES))[0]


async def refused(made: Tickets, ticket: str) -> str:
    """Why nobody can come with `ticket`, nor use it."""
    reasons = set()
    for attempt in (made.principal(ticket), made.use(digest_of(ticket))):
        with pytest.raises(Unauthenticated) as error:
            await attempt
        reasons.add(error.value.reason)
    [reason] = reasons
    return reason


async def test_who_comes_with_a_ticket_may_hear_what_it_was_asked_for_and_nothing_else(tmp_path: Path) -> None:
    async with tickets(tmp_path) as (made, _, _):
        found = await made.principal(await issued(made))
        assert (found.name, found.subject, found.token_id, found.issued) == ("user:ann", "ann", "t1", NOW)
        assert found.expires == ANN.expires
        assert found.ticket is not None
        assert (found.client, found.ticket.tails, found.ticket.names) == ("laptop", TAILS, NAMES)
        assert found.may_hear("topic.a")
        assert not found.may_hear("topic.b"), "Ann may, and has not asked for it"
        assert not found.publish.allows("topic.a")
        assert not found.admin
        assert found.jobs is None


async def test_nats_has_a_tickets_hash_alone(tmp_path: Path) -> None:
    async with tickets(tmp_path) as (made, _, bus):
        ticket = await issued(made)
        entry = await bus.api.message("KV_TG_TICKETS", last_by_subj="$KV.TG_TICKETS.>")
        assert entry is not None
        assert ticket not in f"{entry.subject} {entry.block!r} {entry.payload!r}"
        assert entry.subject == f"$KV.TG_TICKETS.{digest_of(ticket)}"


async def test_a_ticket_that_is_not_used_in_time_has_expired(tmp_path: Path) -> None:
    async with tickets(tmp_path) as (made, clock, _):
        ticket = await issued(made)
        clock.now += FIRST_USE_SECONDS - 1
        await made.principal(ticket)
        clock.now += 1
        assert await refused(made, ticket) == "expired"


async def test_a_ticket_that_was_used_is_good_until_its_tokens_end(tmp_path: Path) -> None:
    async with tickets(tmp_path) as (made, clock, _):
        ticket = await issued(made)
        first = await made.use(digest_of(ticket))
        clock.now = ANN.expires - 1
        await made.principal(ticket)
        assert await made.use(digest_of(ticket)) > first
        clock.now = ANN.expires
        assert await refused(made, ticket) == "expired"


async def test_a_token_that_ends_sooner_ends_its_ticket(tmp_path: Path) -> None:
    async with tickets(tmp_path) as (made, clock, _):
        ticket = await issued(made, Principal("user:ann", subject="ann", expires=NOW + 5))
        clock.now += 5
        assert await refused(made, ticket) == "expired"


async def test_a_ticket_of_a_key_without_an_end_has_one(tmp_path: Path) -> None:
    async with tickets(tmp_path) as (made, _, _):
        _, expires = await made.issue(Principal("key:shop", key="shop"), client_id="c", tails=("client.c",))
        assert expires == NOW + 86_400


@pytest.mark.parametrize("text", ["", "x" * 43, "*", ">", "a.b", "\N{SNOWMAN}" * 43, "x" * 4000, "x" * 42 + "\n"])
async def test_what_is_no_ticket_is_not_known(tmp_path: Path, text: str) -> None:
    async with tickets(tmp_path) as (made, _, _):
        with pytest.raises(Unauthenticated) as error:
            await made.principal(text)
        assert error.value.reason == "unknown"


async def test_looking_at_a_ticket_is_no_use_of_it(tmp_path: Path) -> None:
    """Else a request that is refused would end the stream that the ticket is for."""
    async with tickets(tmp_path) as (made, clock, _):
        ticket = await issued(made)
        before = await made.revision(digest_of(ticket))
        await made.principal(ticket)
        assert await made.revision(digest_of(ticket)) == before
        clock.now += FIRST_USE_SECONDS
        assert await refused(made, ticket) == "expired"


async def test_uses_in_the_same_moment_have_an_order(tmp_path: Path) -> None:
    async with tickets(tmp_path) as (made, _, _):
        digest = digest_of(await issued(made))
        uses = await asyncio.gather(*(made.use(digest) for _ in range(4)))
        assert len(set(uses)) == 4
        assert await made.revision(digest) == max(uses)


async def test_a_record_that_is_not_ours_is_no_ticket(tmp_path: Path) -> None:
    async with tickets(tmp_path) as (made, _, bus):
        ticket = new_ticket()
        await Bucket(bus, "TG_TICKETS").put(digest_of(ticket), b'{"name": 1}')
        assert await refused(made, ticket) == "unknown"
        assert bus.foreign.counts["ticket"] == 2


async def test_a_full_bucket_takes_no_new_ticket_and_forgets_none(tmp_path: Path) -> None:
    async with broker(tmp_path, StreamLimits(identity=True, max_ticket_bytes=4096)) as (_, bus):
        made = Tickets(bus, 86_400)
        first = await issued(made)
        with pytest.raises(BrokerUnavailable):
            await asyncio.gather(*(issued(made) for _ in range(20)))
        await made.principal(first)
        await made.use(digest_of(first))
