"""The secret of clients' ids: one for all processes, whatever becomes of NATS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tests.support.bus import SUBJECTS, connected
from tests.support.nats import nats_server
from tests.support.waiting import until
from tidegate_common.auth.client_id_key import KEY_BYTES, ClientIdKey
from tidegate_common.auth.client_ids import ClientIds
from tidegate_common.bus.connection import connect
from tidegate_common.bus.streams.definitions import StreamLimits, ensure_streams
from tidegate_common.contract.principal import Principal
from tidegate_common.errors import BrokerUnavailable

LIMITS = StreamLimits(identity=True)
ANN = Principal("user:ann", subject="ann")


@asynccontextmanager
async def process(url: str, *, makes: bool) -> AsyncIterator[tuple[ClientIdKey, ClientIds]]:
    async with connect(url, SUBJECTS, "test") as bus:
        ids = ClientIds()
        key = ClientIdKey(bus, ids, makes=makes)
        try:
            yield key, ids
        finally:
            await key.aclose()


async def test_all_processes_have_the_one_that_was_made_first(tmp_path: Path) -> None:
    """However many publisher-apis start at once; those that don't make it wait for it."""
    async with nats_server(tmp_path) as server, connected(server.url, LIMITS), AsyncExitStack() as stack:
        waits, waiting_ids = await stack.enter_async_context(process(server.url, makes=False))
        with pytest.raises(BrokerUnavailable):
            await waits.start(0)
        starting = asyncio.ensure_future(waits.start())
        makers = [await stack.enter_async_context(process(server.url, makes=True)) for _ in range(5)]
        await asyncio.gather(*(key.start() for key, _ in makers))
        await starting
        assert len({ids.key for _, ids in makers} | {waiting_ids.key}) == 1
        assert len(waiting_ids.key) == KEY_BYTES
        assert waiting_ids.owns(ANN, makers[0][1].make(ANN))


async def test_ids_outlive_the_bucket(tmp_path: Path) -> None:
    """NATS comes back with an empty store: publisher-api puts back the secret that it knows, as soon as it can."""
    async with AsyncExitStack() as stack:
        async with nats_server(tmp_path / "before") as server:
            async with connected(server.url, LIMITS):
                maker, ids = await stack.enter_async_context(process(server.url, makes=True))
                reader, read_ids = await stack.enter_async_context(process(server.url, makes=False))
                await maker.start()
                await reader.start()
            made = ids.make(ANN)
            port = server.port
        async with nats_server(tmp_path / "after", port=port) as server, connect(server.url, SUBJECTS, "test") as bus:
            await until(lambda: maker._bus.connected and reader._bus.connected, "both are back")
            await until(lambda: maker._unknown.lasting and reader._unknown.lasting, "there is no bucket yet")
            assert read_ids.owns(ANN, made), "what was known holds"
            await ensure_streams(bus, LIMITS, update=False)
            await until(lambda: not maker._unknown.lasting and not reader._unknown.lasting, "it is there again")
            async with process(server.url, makes=True) as (another, other_ids):
                await another.start()
                assert other_ids.owns(ANN, made)
