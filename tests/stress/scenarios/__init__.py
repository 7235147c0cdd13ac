"""The scenarios, by name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from tests.stress.identity import ENV
from tests.stress.scenarios import brokers, clients, deploys, gaps, holes, identity, mixed, presence, slow, volatile
from tests.stress.world import Topics, World


class Scenario(NamedTuple):
    """`run` gets the world with its clients connected and its publishers running, and the seconds that it has."""

    run: Callable[[World, float], Awaitable[None]]
    env: dict[str, str] = {}  # noqa: RUF012  # never changed
    share: float | None = None
    """Of the clients that stay with the first gateway; None: each goes to any."""
    topics: Topics | None = None
    """What clients listen to beside the load's topics."""
    drops: bool = False
    """Whether messages from NATS to the gateways go through sieves: `world.drops` says what is left out."""
    receive_bytes: int = 0
    """What the kernel keeps for a client that does not read; 0: as much as it likes."""
    shipped: bool = False
    """Whether some of the clients are those that Tidegate ships."""


SCENARIOS = {
    "cuts": Scenario(clients.cuts, shipped=True),
    "storm": Scenario(clients.storm, share=0.9),
    "seam": Scenario(clients.seam),
    "slow_reader": Scenario(slow.slow_reader, slow.SMALL_BUFFERS, receive_bytes=slow.RECEIVE_BYTES),
    "half_open": Scenario(slow.half_open, slow.HALF_OPEN, receive_bytes=slow.RECEIVE_BYTES),
    "volatile": Scenario(volatile.volatile, slow.SMALL_BUFFERS, receive_bytes=slow.RECEIVE_BYTES),
    "gaps": Scenario(gaps.gaps, gaps.ENV),
    "holes": Scenario(holes.holes, holes.ENV, topics=holes.topics, drops=True),
    "nats_restart": Scenario(brokers.nats_restart),
    "feed_cut": Scenario(brokers.feed_cut),
    "publish_cut": Scenario(brokers.publish_cut),
    "gateway_kill": Scenario(deploys.gateway_kill),
    "rolling_restart": Scenario(deploys.rolling_restart),
    "identity": Scenario(identity.identity, ENV, shipped=True),
    "mixed": Scenario(mixed.mixed, shipped=True),
    "receipts": Scenario(presence.receipts, share=0.5),
    "presence": Scenario(presence.kicks_and_kills, share=0.5),
}
