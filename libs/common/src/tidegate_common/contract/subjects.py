"""NATS subjects: what is written where, and how a name becomes a legal token.

A *tail* is the part that an event is addressed to: `client.<id>`, `user.<id>`, `topic.<a.b.c>`, `broadcast`, or
`job.<id>`, which only the job's own stream hears.
The same tail follows `<namespace>.in.` (written, stored) and `<namespace>.out.` (republished, delivered).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import quote, unquote

from tidegate_common.contract.filters import Filters
from tidegate_common.contract.ids import check_name
from tidegate_common.errors import InvalidField

BROADCAST = "broadcast"
MAX_TOPIC_TOKENS = 16
_PLAIN = re.compile(r"[A-Za-z0-9._-]+")
"""Names that are tokens already, but for dots: the ids of clients that a token mode makes have one."""
_NAMESPACE = re.compile(r"[a-z0-9_-]{1,32}")


def encode_token(name: str) -> str:
    """`name` as one NATS token: percent-encoded (RFC 3986), the dot too. Lossless."""
    if _PLAIN.fullmatch(name):
        return name.replace(".", "%2E")
    return quote(name, safe="").replace(".", "%2E").replace("~", "%7E")


def decode_token(token: str) -> str:
    """The name that `encode_token` wrote as `token`."""
    return unquote(token, errors="strict")


def without_name(subject: str) -> str:
    """What `subject` is for, without the client, user, topic, job or asker that it is about: for logs.

    `tg.out.client.ann` is `tg.out.client.>`. What is none of Tidegate's is left as it is.
    """
    tokens = subject.split(".")
    return ".".join([*tokens[:3], ">"]) if len(tokens) > 3 and tokens[1] in ("in", "out", "jobs") else subject


def client_tail(client_id: str, field: str = "client_id") -> str:
    """Tail that addresses one client. Raises InvalidField."""
    return f"client.{encode_token(check_name(field, client_id))}"


def user_tail(user_id: str, field: str = "user_id") -> str:
    """Tail that addresses one user. Raises InvalidField."""
    return f"user.{encode_token(check_name(field, user_id))}"


def topic_tail(topic: str, field: str = "topic") -> str:
    """Tail of one topic, `a.b.c`, to publish to. Raises InvalidField, for wildcards too."""
    tokens = _topic_tokens(topic, field)
    if "*" in tokens or ">" in tokens:
        raise InvalidField(field, "a topic without wildcards; those are for subscribing")
    return "topic." + ".".join(encode_token(token) for token in tokens)


def topic_filter_tail(topic: str, field: str = "topic") -> str:
    """Tail to subscribe to: a topic in which `*` stands for one token and a last `>` for one or more.

    Raises InvalidField.
    """
    tokens = _topic_tokens(topic, field)
    if ">" in tokens[:-1]:
        raise InvalidField(field, "the wildcard > only as the last token, as in alerts.>")
    return "topic." + ".".join(token if token in ("*", ">") else encode_token(token) for token in tokens)


def _topic_tokens(topic: str, field: str) -> list[str]:
    check_name(field, topic)
    tokens = topic.split(".")
    if len(tokens) > MAX_TOPIC_TOKENS or not all(tokens):
        raise InvalidField(field, f"1 to {MAX_TOPIC_TOKENS} non-empty tokens with dots between them, as in prices.eur")
    return tokens


def job_tail(job_id: str) -> str:
    """Tail of a job that addresses nobody else."""
    return f"job.{job_id}"


def covers(wide: str, narrow: str) -> bool:
    """Whether every subject that `narrow` matches is matched by `wide` too (NATS wildcards)."""
    wide_tokens, narrow_tokens = wide.split("."), narrow.split(".")
    for position, token in enumerate(wide_tokens):
        if token == ">":
            return len(narrow_tokens) > position
        if position >= len(narrow_tokens) or narrow_tokens[position] == ">":
            return False
        if token != "*" and token != narrow_tokens[position]:
            return False
    return len(wide_tokens) == len(narrow_tokens)


def overlap(one: str, other: str) -> bool:
    """Whether some subject is matched by both filters."""
    left, right = one.split("."), other.split(".")
    for a, b in zip(left, right, strict=False):
        if ">" in (a, b):
            return True
        if a != b and "*" not in (a, b):
            return False
    return len(left) == len(right)


def minimal(tails: Iterable[str]) -> list[str]:
    """`tails` without those that another one covers, so that an event arrives no oftener than it must."""
    different = list(dict.fromkeys(tails))
    return [different[number] for number in Filters(different).uncovered()]


class Subjects(NamedTuple):
    """The subjects and stream names of one namespace."""

    namespace: str

    @classmethod
    def of(cls, namespace: str) -> Subjects:
        """Raises InvalidField if `namespace` can't start a subject and a stream name."""
        if not _NAMESPACE.fullmatch(namespace):
            raise InvalidField("TIDEGATE_NAMESPACE", "1 to 32 of the characters a-z 0-9 _ -")
        return cls(namespace)

    @property
    def events_stream(self) -> str:
        return f"{self.namespace.upper()}_EVENTS"

    @property
    def jobs_stream(self) -> str:
        return f"{self.namespace.upper()}_JOBS"

    @property
    def jobs_bucket(self) -> str:
        return f"{self.namespace.upper()}_JOBS_STATE"

    def inbound(self, tail: str) -> str:
        """Where a durable event is written: stored by JetStream and republished to `outbound(tail)`."""
        return f"{self.namespace}.in.{tail}"

    def outbound(self, tail: str) -> str:
        """Where gateways listen; a volatile event is written here directly."""
        return f"{self.namespace}.out.{tail}"

    def job(self, kind: str, level: int | str, owner: str) -> str:
        """Where a job is queued: its kind, its level and its owner."""
        return f"{self.namespace}.jobs.{encode_token(kind)}.{level}.{owner}"

    def jobs(self, level: int | str = "*", owner: str = ">") -> str:
        """All queued jobs, or those of one level, or of one owner."""
        return f"{self.namespace}.jobs.*.{level}.{owner}"

    def fence(self, job_id: str) -> str:
        """Where an attempt at a job says that it has begun: its events are stored only while that is the last word."""
        return self.inbound(f"fence.{job_id}")

    @property
    def auth_bucket(self) -> str:
        """What services need to know who asks, beside the settings: the secret of clients' ids."""
        return f"{self.namespace.upper()}_AUTH"

    @property
    def dead_bucket(self) -> str:
        return f"{self.namespace.upper()}_JOBS_DEAD"

    @property
    def budgets_bucket(self) -> str:
        return f"{self.namespace.upper()}_BUDGETS"

    @property
    def revoked_bucket(self) -> str:
        return f"{self.namespace.upper()}_REVOKED"

    def revoked(self, key: str) -> str:
        """Where what the bucket of revocations has stored under `key` is told to all processes (`*` for all)."""
        return f"{self.namespace}.ctl.revoked.{key}"

    @property
    def tickets_bucket(self) -> str:
        return f"{self.namespace.upper()}_TICKETS"

    def ticket_uses(self, digest: str) -> str:
        """Where gateways are told that the bucket of tickets has stored something of `digest` (`*` for all)."""
        return f"{self.namespace}.ctl.tickets.{digest}"

    @property
    def job_notices(self) -> str:
        """Where it is said that a job has come into the queue."""
        return f"{self.namespace}.ctl.jobs"

    @property
    def models(self) -> str:
        """Where workers are asked what models there are."""
        return f"{self.namespace}.ctl.models"

    def holder(self, process: str) -> str:
        """Where a worker process is asked whether it still runs a job."""
        return f"{self.namespace}.ctl.holder.{process}"

    def cancel(self, job_id: str) -> str:
        """Where a job's cancelling is announced (`*` for all jobs)."""
        return f"{self.namespace}.ctl.cancel.{job_id}"

    @property
    def gateways(self) -> str:
        """Where gateways say that they are there."""
        return f"{self.namespace}.ctl.gateways"

    @property
    def presence(self) -> str:
        """Where all gateways are asked how many connections hear a tail."""
        return f"{self.namespace}.ctl.presence"

    @property
    def receipts(self) -> str:
        """Where all gateways are asked to how many connections they wrote an event."""
        return f"{self.namespace}.ctl.receipts"

    @property
    def kick(self) -> str:
        """Where all gateways are told to end the connections that hear a tail."""
        return f"{self.namespace}.ctl.kick"

    def answers(self, asker: str) -> str:
        """Where gateways answer the process `asker`."""
        return f"{self.namespace}.ctl.answers.{asker}"
