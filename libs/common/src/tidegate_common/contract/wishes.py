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


class Hearing(NamedTuple):
    """What a stream hears: `tails` without repeats, and the names of all of it, as clients are told."""

    tails: list[str]
    names: tuple[str, ...]


def hearing(wish: Wish, client_id: str, principal: Principal, max_topics: int) -> Hearing:
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
    users = [user for user in dict.fromkeys((principal.subject or None, wish.user_id)) if user is not None]
    asked = [(user_tail(user), f"user:{user}") for user in users]
    asked += [(topic_filter_tail(topic), f"topic:{topic}") for topic in dict.fromkeys(topics)]
    for tail, name in asked:
        principal.check_hears(tail, name)
        tails.append(tail)
        names.append(name)
    return Hearing(minimal(tails) if topics else tails, tuple(names))
