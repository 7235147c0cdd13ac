"""The streams with what is in them from the start, as publisher-api makes them: for tests of others, which wait."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from tests.support.least_rights import as_service
from tidegate_common.auth.client_id_key import ClientIdKey
from tidegate_common.auth.client_ids import ClientIds
from tidegate_common.bus.connection import connect
from tidegate_common.bus.streams.definitions import StreamLimits, ensure_streams
from tidegate_common.contract.subjects import Subjects
from tidegate_common.errors import TidegateError
from tidegate_common.runtime.environment import CommonSettings, load


async def make_streams(url: str, subjects: Subjects, limits: StreamLimits, connect_seconds: float = 10) -> None:
    """Those that are missing. Raises BrokerUnavailable."""
    url = as_service(url, "publisher-api")
    async with connect(url, subjects, "publisher-api", connect_seconds=connect_seconds) as bus:
        await ensure_streams(bus, limits, update=False)
        if limits.identity:
            await ClientIdKey(bus, ClientIds(), makes=True).read()


async def make_streams_for(env: Mapping[str, str]) -> None:
    """As `make_streams`, where a service with `env` will look for them, if a NATS is there that lets us."""
    with contextlib.suppress(TidegateError):
        settings = load(CommonSettings, env)
        await make_streams(settings.nats_url, settings.subjects(), settings.stream_limits(), connect_seconds=2)
