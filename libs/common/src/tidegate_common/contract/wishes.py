"""What somebody wants to hear on one stream: from names to tails, and whether they may."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from tidegate_common.contract.principal import Principal
from tidegate_common.contract.subjects import BROADCAST, client_tail, minimal, topic_filter_tail, user_tail
from tidegate_common.errors import InvalidField


class Wish(msgspec.Struct, frozen=True):
    """The names of a stream's request, as a query string or a body has them."""

    client_id: str | None = None
    user_id: str | None = None
    topic: str | list[str] = []
    """One or a list; each may have wildcards."""


class Selection(NamedTuple):
    """What a stream hears: `tails` without repeats, and the names of all of it, as clients are told."""

    tails: list[str]
    names: tuple[str, ...]


def selection(wish: Wish, client_id: str, principal: Principal, max_topics: int) -> Selection:
    """What `wish` comes to for `principal`, whose client is `client_id`, theirs by another check.

    The own user is heard without being asked for. A stream without the grant `broadcast` opens, and hears none. Names
    are compared as the tails that they become, byte by byte. Raises InvalidField, Forbidden, Unauthenticated.
    """
    topics = [wish.topic] if isinstance(wish.topic, str) else wish.topic
    if len(topics) > max_topics:
        raise InvalidField("topic", f"at most {max_topics} topics on one connection")
    tails = [BROADCAST] if principal.may_hear(BROADCAST) else []
    names = list(tails)
    tails.append(client_tail(client_id))
    names.append(f"client:{client_id}")
    if principal.user:
        tails.append(principal.user)
        names.append(f"user:{principal.subject}")
    if wish.user_id is not None and wish.user_id != principal.subject:
        tails.append(_granted(principal, user_tail(wish.user_id), f"user:{wish.user_id}"))
        names.append(f"user:{wish.user_id}")
    topic_tails = []
    for topic in dict.fromkeys(topics):
        topic_tails.append(_granted(principal, topic_filter_tail(topic), f"topic:{topic}"))
        names.append(f"topic:{topic}")
    # Topics alone have wildcards, so nothing else covers anything.
    tails += minimal(topic_tails) if len(topic_tails) > 1 else topic_tails
    return Selection(tails, tuple(names))


def _granted(principal: Principal, tail: str, name: str) -> str:
    principal.check_hears(tail, name)
    return tail
