"""The scenarios, by name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from tests.stress.scenarios import brokers, clients, deploys, presence
from tests.stress.world import Topics, World

SMALL_BUFFERS = {"TIDEGATE_MAX_BACKLOG_BYTES": "65536", "TIDEGATE_SOCKET_SEND_BYTES": "16384"}


class Scenario(NamedTuple):
    """`run` gets the world with its clients connected and its publishers running, and the seconds that it has."""

    run: Callable[[World, float], Awaitable[None]]
    env: dict[str, str] = {}  # noqa: RUF012  # never changed
    share: float | None = None
    """Of the clients that stay with the first gateway; None: each goes to any."""
    topics: Topics | None = None
    """What clients listen to beside the load's topics."""
    shipped: bool = False
    """Whether some of the clients are those that Tidegate ships."""


SCENARIOS = {
    "cuts": Scenario(clients.cuts, shipped=True),
    "storm": Scenario(clients.storm, share=0.9),
    "seam": Scenario(clients.seam),
    "slow_reader": Scenario(clients.slow_reader, SMALL_BUFFERS),
    "nats_restart": Scenario(brokers.nats_restart),
    "feed_cut": Scenario(brokers.feed_cut),
    "publish_cut": Scenario(brokers.publish_cut),
    "gateway_kill": Scenario(deploys.gateway_kill),
    "rolling_restart": Scenario(deploys.rolling_restart),
    "receipts": Scenario(presence.receipts, share=0.5),
    "presence": Scenario(presence.kicks_and_kills, share=0.5),
}
