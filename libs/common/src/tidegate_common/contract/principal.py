"""Who a request comes from, and what they may do: one `Principal` for each request, on every way in.

Grants are written as `topic:prices.*`, `user:ann`, `client:*`, `broadcast`, `jobs:*`. Each is kept as the tail of the
same meaning, so that one rule decides: a grant allows what it covers (`subjects.covers`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import msgspec
from msgspec import Meta

from tidegate_common.contract.filters import Filters
from tidegate_common.contract.subjects import (
    BROADCAST,
    client_tail,
    covers,
    encode_token,
    topic_filter_tail,
    user_tail,
)
from tidegate_common.errors import Forbidden, InvalidField, Unauthenticated

ADMIN = frozenset({"presence", "kick", "dead", "revoke", "events", "ops", "metrics"})
"""What `admin` may grant by name."""

FEW = 8
"""Wide grants that are held against a wish one by one. More of them, and a hundred wishes, would cost 20 ms so."""

ALL_JOBS = "job.*"
"""The tail that `jobs:*` stands for."""


def grant_tail(grant: str, field: str = "grant") -> str:
    """The tail that a grant covers. Raises InvalidField."""
    kind, colon, name = grant.partition(":")
    if grant == BROADCAST:
        return BROADCAST
    if grant == "jobs:*":
        return ALL_JOBS
    if colon and kind == "topic":
        return topic_filter_tail(name, field)
    if colon and kind == "user":
        return "user.*" if name == "*" else user_tail(name, field)
    if colon and kind == "client":
        return "client.*" if name == "*" else client_tail(name, field)
    raise InvalidField(field, "user:<id>, client:<id>, topic:<pattern>, broadcast or jobs:*")


class Grants:
    """What one list of grants allows. A list that is missing allows nothing."""

    __slots__ = ("_exact", "_many", "_wide", "all")

    def __init__(self, tails: Iterable[str] = (), *, all_of_them: bool = False) -> None:
        self.all = all_of_them
        """Whether everything is allowed, as in the mode `open`."""
        found = list(tails)
        self._exact = frozenset(found)
        self._wide = tuple(tail for tail in found if "*" in tail or ">" in tail)
        self._many: Filters | None = None
        """The wide ones, if they are many and were asked for."""

    @classmethod
    def of(cls, grants: Iterable[str], field: str) -> Grants:
        """Raises InvalidField that names `field`."""
        return cls(grant_tail(grant, f"{field}[{number}]") for number, grant in enumerate(grants))

    def allows(self, tail: str) -> bool:
        """Whether one grant covers `tail`, which may have wildcards itself."""
        if self.all or tail in self._exact:
            return True
        if len(self._wide) <= FEW:
            return any(covers(wide, tail) for wide in self._wide)
        if self._many is None:
            self._many = Filters(self._wide)
        return self._many.covers(tail)


class JobRights(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What somebody may ask of the workers. What is missing does not limit, so nothing may be misspelt."""

    kinds: tuple[str, ...] | None = None
    models: tuple[str, ...] | None = None
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    """Of one answer."""
    concurrent: Annotated[int, Meta(ge=0)] | None = None
    """Jobs that have not ended."""
    tokens_per_day: Annotated[int, Meta(ge=0)] | None = None
    """Of prompts and answers, for each UTC day."""

    @property
    def counted(self) -> bool:
        """Whether a job has to be noted in its owner's budget."""
        return self.concurrent is not None or self.tokens_per_day is not None


class Principal:
    """Whoever asks. Shared by all requests of one token or key, so it is never changed.

    `name` is for logs and the audit, and the key of limits: `user:ann`, `key:shop`, `anonymous`, `open`.
    """

    __slots__ = (
        "admin",
        "client",
        "expires",
        "issued",
        "jobs",
        "key",
        "limits",
        "name",
        "publish",
        "signed_by",
        "subject",
        "subscribe",
        "ticket",
        "token_id",
        "user",
    )

    def __init__(
        self,
        name: str,
        *,
        subject: str = "",
        key: str = "",
        subscribe: Grants | None = None,
        publish: Grants | None = None,
        jobs: JobRights | None = None,
        admin: frozenset[str] = frozenset(),
        limits: dict[str, str] | None = None,
        client: str = "",
        expires: float = 0.0,
        issued: float = 0.0,
        token_id: str = "",
        signed_by: object = None,
        ticket: Ticket | None = None,
    ) -> None:
        self.name = name
        self.subject = subject
        """A user token's `sub`; empty for keys and for nobody."""
        self.user = f"user.{encode_token(subject)}" if subject else ""
        """The tail of that user, which each of its streams hears; empty for keys and for nobody."""
        self.key = key
        """A service key's id; empty for users."""
        self.subscribe = subscribe or Grants()
        self.publish = publish or Grants()
        self.jobs = jobs
        """None: no jobs at all."""
        self.admin = admin
        self.limits = limits or {}
        """A key's own `rate/burst`, by the limit's name: `connects`, `publishes`, `jobs`."""
        self.client = client
        """The client id that the token names; empty if it names none."""
        self.expires = expires
        """Unix time after which it is good no more, the leeway included; 0: it has no end."""
        self.issued = issued
        self.token_id = token_id
        """A token's `jti`."""
        self.signed_by = signed_by
        """What its token, or that of its ticket, was checked with (see ``Tokens.withdrawn``); None if that was none."""
        self.ticket = ticket

    @property
    def is_open(self) -> bool:
        """Whether nobody is asked who they are."""
        return self is OPEN

    @property
    def anonymous(self) -> bool:
        """Whether the request brought nothing that says who asks."""
        return not self.subject and not self.key

    def refuse(self, needed: str) -> Forbidden | Unauthenticated:
        """The error for what this principal may not do. Whoever brought nothing is asked who they are first."""
        return Unauthenticated("missing", needed) if self.anonymous else Forbidden(needed)

    def may_hear(self, tail: str) -> bool:
        """Whether it may listen to `tail`. A client's id is another question: see ``ClientIds``."""
        return self.subscribe.allows(tail) or (bool(self.user) and tail == self.user)

    def check_hears(self, tail: str, wish: str) -> None:
        """`wish` as grants are written. Raises Forbidden, Unauthenticated."""
        if not self.may_hear(tail):
            raise self.refuse(f"subscribe {wish}")

    def check_publishes(self, tail: str, wish: str) -> None:
        """Raises Forbidden, Unauthenticated."""
        if not self.publish.allows(tail):
            raise self.refuse(f"publish {wish}")

    def check_admin(self, name: str) -> None:
        """Raises Forbidden, Unauthenticated."""
        if not self.is_open and name not in self.admin:
            raise self.refuse(f"admin {name}")

    def check_job(self, kind: str, model: str | None = None) -> JobRights:
        """What holds for a job of `kind`. Raises Forbidden, Unauthenticated."""
        if self.jobs is None:
            raise self.refuse("jobs")
        if self.jobs.kinds is not None and kind not in self.jobs.kinds:
            raise self.refuse(f"jobs kind {kind}")
        if model is not None and self.jobs.models is not None and model not in self.jobs.models:
            raise self.refuse(f"jobs model {model}")
        return self.jobs

    def owner(self, asked_for: str = "") -> str:
        """The owner of its jobs, as tokens of a subject: `user.<sub>`, `key.<id>.<asked_for>`.

        `asked_for` is whom a service says that it asks for (a user's or client's id, OpenAI's `user`): each of its
        users shares as an owner of its own.
        """
        if self.user:
            return self.user
        if self.key:
            owner = f"key.{encode_token(self.key)}"
            return f"{owner}.{encode_token(asked_for)}" if asked_for else owner
        return "anonymous"

    def key_words(self, key: str) -> tuple[str, ...]:
        """What makes an id of its `Idempotency-Key`: two principals with one key mean different things.

        In the mode `open` it is the key alone, as in releases that had no other mode.
        """
        return (key,) if self.is_open else (self.name, key)

    def owns(self, owner: str) -> bool:
        """Whether a job of that owner is its own; of all its users, for a key."""
        mine = self.owner()
        return self.is_open or owner == mine or (bool(self.key) and owner.startswith(f"{mine}."))


class Ticket(msgspec.Struct, frozen=True):
    """A ticket that a stream was opened with. `tails` is all that it may hear, with `names` as clients are told;
    one for a job's own stream has `job_id` alone.
    """

    digest: str
    """SHA-256 of the ticket, in hexadecimal: its key in the bucket."""
    client_id: str
    tails: tuple[str, ...]
    names: tuple[str, ...]
    job_id: str = ""


OPEN = Principal(
    "open",
    subscribe=Grants(all_of_them=True),
    publish=Grants(all_of_them=True),
    jobs=JobRights(),
    admin=ADMIN,
)
"""Everybody, in the mode `open`."""
