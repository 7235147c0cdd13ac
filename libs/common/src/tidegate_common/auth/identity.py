"""All that one process needs to know who asks, and what runs beside it: made once by each service's own wiring."""

from __future__ import annotations

from tidegate_common.auth.authenticator import Authenticator
from tidegate_common.auth.principal_limits import PrincipalLimits
from tidegate_common.auth.settings import AuthSettings
from tidegate_common.bus.connection import Bus
from tidegate_common.telemetry import names
from tidegate_common.telemetry.providers import Telemetry


class Identity:
    """The parts of identity, wired. `start` and `aclose` go with the process."""

    def __init__(self, settings: AuthSettings, bus: Bus, signals: Telemetry) -> None:
        self._settings = settings
        self._bus = bus
        self.authenticator = Authenticator(settings)
        self.limits = PrincipalLimits(settings, self.authenticator.failures)
        self._observe(signals)

    async def start(self) -> None:
        """Reads what must be known before the first request. Raises ConfigError, BrokerUnavailable."""

    async def aclose(self) -> None:
        """Ends what runs beside."""

    def _observe(self, signals: Telemetry) -> None:
        """The metrics of identity."""
        limits = self.limits
        signals.observe(
            "counter", names.METRIC_LIMITED, limits.refused, "{request}", "Refused by a limit", label="limit"
        )
