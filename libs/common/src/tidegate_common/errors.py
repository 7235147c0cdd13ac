"""Every error that Tidegate raises on purpose.

TidegateError
├── InvalidBody         a body that is no JSON, or no NDJSON line
├── InvalidField        a name, id, topic or value breaks its rule: says the field and what is allowed
│   └── KeyReused           an Idempotency-Key that was sent with something else
├── InvalidHost         a request with two Host headers, with none, or with one that is no host
├── WrongHost           a request for a host that this service does not answer for
├── InvalidCredentials  a request that says twice who it is from, or in a form that is not read
├── Unauthenticated     a request that does not say who it is from, or whose token is not good
├── Forbidden           whoever asks is known, and may not do this
├── Limited             a limit of a subject, key or address: come back later
│   └── BudgetSpent         no tokens are left for today
├── ConfigError         the environment holds values that can't be used: lists all of them
├── Unavailable         something that we depend on is away or full: come back later
│   ├── BrokerUnavailable   NATS does not answer, or did not store in time
│   │   ├── NotSent             NATS is away, or the stream has no leader: nothing was sent
│   │   ├── NotStored           NATS answers and does not store: its disk or a limit is full, or the stream refuses
│   │   ├── TooManyWaiting      as many requests wait for NATS as may
│   │   ├── CallerGone          whoever asked does not wait any more
│   │   ├── SubscriptionRefused NATS does not let this process listen to more, or to this
│   │   └── QueueRefused        NATS does not give this process its consumers of the job queue
│   ├── QueueFull           the job queue takes no more
│   └── TooManyConnections  this process holds all the connections that it may
├── TooManyFromAddress  one address holds all the connections that it may
├── TooLarge            a body or a message is over its limit
├── UnsupportedMedia    a body of a media type that is not read here
├── UnsupportedCoding   a body that is compressed
├── NotFound            no such job
│   └── Unreadable          what is there is not ours, or of another release
│       └── OtherRelease        a record whose status only another release knows
├── BrokerRefused       NATS is there, and has refused this process for too long: it ends
└── Superseded          another attempt has the job now: nothing more of this one is stored
"""

from __future__ import annotations


class TidegateError(Exception):
    """Base of every error raised on purpose; its text is fit to be shown to a caller."""


class InvalidField(TidegateError):
    """A value breaks its rule. `field` is the caller's name for it, `allowed` says what would do."""

    def __init__(self, field: str, allowed: str) -> None:
        self.field = field
        self.allowed = allowed
        super().__init__(f"{field}: {allowed}")


class KeyReused(InvalidField):
    """An `Idempotency-Key` was sent before, with something else or with what can't be known any more."""

    def __init__(self, why: str) -> None:
        super().__init__("Idempotency-Key", why)


class InvalidBody(TidegateError):
    """The body could not be read as what its media type says."""


class InvalidHost(TidegateError):
    """A request does not say, in one way, which host it is for."""


class WrongHost(TidegateError):
    """A request for `host`, which is neither this machine's nor among those that are allowed."""

    def __init__(self, host: str) -> None:
        self.host = host
        super().__init__(
            f"this service does not answer for {host[:253]}: a name of yours belongs in TIDEGATE_ALLOWED_HOSTS"
        )


class InvalidCredentials(TidegateError):
    """A request says twice who it is from, or in a form that is not read."""


class Unauthenticated(TidegateError):
    """A request does not say who it is from, or brings what is not good.

    `reason` is one of AUTHENTICATION: it is counted, and told as `error_description`. `needed` is the grant that would
    do. `who` is for the audit log alone, if it is known whose token or key that is.
    """

    def __init__(self, reason: str, needed: str = "", detail: str = "", who: str = "") -> None:
        self.reason = reason
        self.needed = needed
        self.who = who
        super().__init__(detail or AUTHENTICATION[reason])


AUTHENTICATION = {
    "missing": "this needs a token or a key: send Authorization: Bearer",
    "malformed": "the token can't be read",
    "expired": "the token has expired",
    "early": "the token is not good yet: iat or nbf is in the future, or a clock is wrong",
    "signature": "the token's signature is not good",
    "issuer": "the token is of another issuer",
    "audience": "the token is for another audience",
    "algorithm": "the token's algorithm is not the one of its key",
    "kid": "the token's key is not known",
    "revoked": "the token or the key was revoked",
    "unknown": "the key or the ticket is not known",
}
"""What is told, by the reason."""


class Forbidden(TidegateError):
    """Whoever asks may not do this. `needed` is the right that would do, as in `subscribe topic:a.b`."""

    def __init__(self, needed: str, detail: str = "") -> None:
        self.needed = needed
        super().__init__(detail or f"this needs the right: {needed}")


class Limited(TidegateError):
    """A limit of a subject, a key or an address is reached: `limit` names it. Come back after `retry_after` seconds."""

    def __init__(self, limit: str, detail: str, retry_after: int = 1) -> None:
        self.limit = limit
        self.retry_after = retry_after
        super().__init__(detail)


class BudgetSpent(Limited):
    """No tokens are left until the next day (UTC)."""


class ConfigError(TidegateError):
    """The environment can't be used; `faults` holds one line for each variable at fault."""

    def __init__(self, faults: list[str]) -> None:
        self.faults = faults
        super().__init__("; ".join(faults))


class Unavailable(TidegateError):
    """Come back after `retry_after` seconds."""

    def __init__(self, message: str, retry_after: int = 2) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class BrokerUnavailable(Unavailable):
    """NATS is away, or did not confirm within the deadline. Nothing was confirmed."""


class NotSent(BrokerUnavailable):
    """NATS is away, or the stream has no leader. Nothing was sent, so it may be tried again."""


class NotStored(BrokerUnavailable):
    """NATS answers, and does not store: its disk is full, or a limit is, or the stream refuses. Nothing was stored."""


class TooManyWaiting(BrokerUnavailable):
    """As many requests wait for NATS in this process, or as many of their bytes, as may."""


class CallerGone(BrokerUnavailable):
    """Whoever asked has gone: nothing is waited for any more on their account."""


class SubscriptionRefused(BrokerUnavailable):
    """NATS does not take a subscription: there are as many as it allows, or it is not allowed at all."""


class QueueRefused(BrokerUnavailable):
    """NATS answers, and does not make a worker's consumer of the job queue: another of that name may be there."""


class QueueGone(BrokerUnavailable):
    """NATS answers, and the job queue or a worker's consumer of it is not there."""


class BrokerRefused(TidegateError):
    """NATS refuses the process, again and again: its settings, or those of NATS, have to change."""


class QueueFull(Unavailable):
    """The job queue holds as many jobs as it may: `queued`, if that is known."""

    def __init__(self, message: str, retry_after: int = 5, queued: int | None = None) -> None:
        self.queued = queued
        super().__init__(message, retry_after)


class TooManyConnections(Unavailable):
    """This process holds as many connections as it may."""


class TooManyFromAddress(TidegateError):
    """One client address holds as many connections as it may."""

    def __init__(self, limit: int, retry_after: int = 5) -> None:
        self.limit = limit
        self.retry_after = retry_after
        super().__init__(f"this address holds {limit} connections, which is the limit")


class TooLarge(TidegateError):
    """A body or message is over `limit` bytes."""

    def __init__(self, what: str, limit: int) -> None:
        self.limit = limit
        super().__init__(f"{what} is over the limit of {limit} bytes")


class UnsupportedCoding(TidegateError):
    """The body is coded (`Content-Encoding: gzip` and the like); bodies are read as they are."""

    def __init__(self, coding: str) -> None:
        super().__init__(f"Content-Encoding: {coding[:100]} is not read here, send the body as it is (identity)")


class UnsupportedMedia(TidegateError):
    """The body's media type is not `expected`."""

    def __init__(self, expected: str) -> None:
        self.expected = expected
        super().__init__(f"the body must be sent as {expected}")


class NotFound(TidegateError):
    """What was asked for does not exist, or is not kept any more."""


class Unreadable(NotFound):
    """What is there is not ours, or of another release: a message, a record or a key that can't be read."""


class OtherRelease(Unreadable):
    """A record that another release has given a status which this one does not know, at `written` (Unix seconds)."""

    def __init__(self, message: str, written: float) -> None:
        self.written = written
        super().__init__(message)


class Superseded(TidegateError):
    """Another attempt has begun the job, or ended it: what this one writes is not stored."""
