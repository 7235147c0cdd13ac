"""How often whoever asks may connect, publish and submit jobs, in this process."""

from __future__ import annotations

from tidegate_common.auth.limits import Rate, RateLimit, read_rate
from tidegate_common.auth.network import network
from tidegate_common.auth.settings import AuthSettings
from tidegate_common.contract.budget import Allowance
from tidegate_common.contract.principal import Principal

CONNECTS, PUBLISHES, JOBS = "connects", "publishes", "jobs"


class PrincipalLimits:
    """A bucket for each subject or key, and for each address of those who have neither.

    One is taken before a request is read: what is refused for another reason costs as much as what is not. So whoever
    tries names, or sends what can't be used, is slowed down too, and a refusal stays cheap.
    """

    def __init__(self, settings: AuthSettings, failures: RateLimit) -> None:
        """`failures` are counted with the others."""
        self._connects = RateLimit(CONNECTS, Rate.of(settings.limit_connects))
        self._publishes = RateLimit(PUBLISHES, Rate.of(settings.limit_publishes))
        self._jobs = RateLimit(JOBS, Rate.of(settings.limit_jobs))
        self._failures = failures
        self.others: dict[str, int] = {}
        """Refusals of limits that are kept elsewhere, by name."""

    def connect(self, principal: Principal, address: str) -> None:
        """Raises Limited."""
        _take(self._connects, principal, address)

    def publish(self, principal: Principal, address: str) -> None:
        """Raises Limited."""
        _take(self._publishes, principal, address)

    def job(self, principal: Principal, address: str) -> None:
        """Raises Limited."""
        _take(self._jobs, principal, address)

    def jobs_left(self, principal: Principal, address: str) -> Allowance | None:
        """What there is left of its jobs; None if nothing limits them."""
        return self._jobs.allowance(*_bucket(self._jobs, principal, address))

    def refused(self) -> dict[str, int]:
        """Refusals so far, by the limit's name."""
        rates = (self._connects, self._publishes, self._jobs, self._failures)
        return {**{rate.name: rate.refused for rate in rates}, **self.others}


def _take(limit: RateLimit, principal: Principal, address: str) -> None:
    if limit.on or limit.name in principal.limits:
        limit.take(*_bucket(limit, principal, address))


def _bucket(limit: RateLimit, principal: Principal, address: str) -> tuple[str, Rate | None]:
    """Its key, and the rate that is the principal's own."""
    own = read_rate(principal.limits[limit.name]) if limit.name in principal.limits else None
    # The two never meet: a principal's name begins with `user:` or `key:`, which no address does.
    return network(address) if principal.anonymous else principal.name, own
