"""What the gateway reads from its environment."""

from __future__ import annotations

from urllib.parse import urlsplit

from msgspec.structs import replace

from tidegate_common.runtime.environment import AtLeastOne, CommonSettings, Count, Port, Positive
from tidegate_common.runtime.guard import HttpLimits

SPARE_SOCKETS = 1000
"""Beside the streams: probes, completions, requests that are refused."""


class GatewaySettings(CommonSettings, frozen=True, kw_only=True):
    """The gateway's settings; 0 stands for no limit where it is allowed."""

    workers: AtLeastOne = 1
    """Processes that share the port; the limits below are each one's own."""
    worker_ports: Port = 0
    """First of as many ports, each one worker's alone, for its probes and metrics; 0: none."""
    max_connections: AtLeastOne = 10_000
    """Streams that this process holds at most."""
    max_sockets: Count = 0
    """Connections of any kind; 0: 1000 more than `max_connections`."""
    max_connections_per_ip: Count = 100
    heartbeat_seconds: Positive = 15
    idle_seconds: Count = 1800
    """A stream without an event for so long is closed."""
    max_age_seconds: Count = 0
    """A stream is closed at 0.8 to 1.0 of this age."""
    audit_seconds: Count = 15
    """Between two looks for events that the stream has and NATS did not bring."""
    replay_patience_seconds: Positive = 30
    """A replay that reads nothing of the stream for so long, while NATS answers, ends its connection."""
    max_topics: AtLeastOne = 100
    """Topics of one stream."""
    max_backlog_bytes: AtLeastOne = 1 << 20
    """What may wait for a client that reads slowly, beside what its socket takes."""
    socket_send_bytes: Count = 131_072
    """The kernel's send buffer of a stream's socket (it doubles the number); 0 leaves it to the kernel, up to 4 MB."""
    write_timeout_seconds: Count = 30
    """A peer that has acknowledged nothing for so long is cut off; 0 leaves it to the kernel (15 minutes)."""
    max_body_bytes: AtLeastOne = 65_536
    max_completions: AtLeastOne = 1000
    """Completions of the OpenAI-compatible front that this process waits for at most."""
    max_completion_bytes: AtLeastOne = 1 << 20
    """Body of a completion; NATS's own limit for a message holds too."""
    completion_seconds: Positive = 600
    """How long a completion may take, with its time in the queue."""
    publisher_url: str = ""
    """Where browsers find publisher-api; `/`: behind the page's own origin. The console asks that, then port 8001, if
    this is empty."""
    streams: str = "slim"
    """`slim`: a `GET` for a stream takes the fast path. `plain`: all take the portable path, which costs more."""

    def http_limits(self) -> HttpLimits:
        return replace(super().http_limits(), sockets=self.max_sockets or self.max_connections + SPARE_SOCKETS)

    def faults(self) -> list[str]:
        found = super().faults()
        if self.publisher_url not in ("", "/") and urlsplit(self.publisher_url).scheme not in ("http", "https"):
            found.append("TIDEGATE_PUBLISHER_URL: an http or https address, or /")
        if self.streams not in ("slim", "plain"):
            found.append("TIDEGATE_STREAMS: slim or plain")
        if self.workers > 1 and not self.port:
            found.append("TIDEGATE_PORT: a port that all workers share, not 0")
        if self.worker_ports and self.worker_ports <= self.port < self.worker_ports + self.workers:
            found.append("TIDEGATE_WORKER_PORTS: as many ports as there are workers, without TIDEGATE_PORT among them")
        if self.worker_ports + self.workers > 65_536:
            found.append("TIDEGATE_WORKER_PORTS: as many ports as there are workers, up to 65535")
        return found
