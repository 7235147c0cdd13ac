"""Ids of clients that are made here: each is bound to whom it was made for, and nobody else may come back with it.

They are bound by keyed BLAKE2 (RFC 7693), a code like HMAC. HMAC-SHA256 took 25 µs of each new stream, since OpenSSL
looks its parts up anew each time: an eighth of all that a stream costs.
"""

from __future__ import annotations

import hmac
import re
from base64 import urlsafe_b64encode
from hashlib import blake2s

from tidegate_common.contract.ids import new_client_id
from tidegate_common.contract.principal import Principal
from tidegate_common.contract.subjects import client_tail
from tidegate_common.errors import BrokerUnavailable

BOUND_BYTES = 16
"""Of the code: 128 bits."""
BOUND_CHARACTERS = 22
"""As it stands in an id, without the `==` that fills it up."""

_MADE = re.compile(r"([A-Za-z0-9_-]{22})\.([A-Za-z0-9_-]{22})")


class ClientIds:
    """Makes ids `<random>.<code of its owner and of that>`, and knows them again."""

    def __init__(self, key: bytes = b"") -> None:
        self.key = key

    @property
    def key(self) -> bytes:
        """The secret. Empty while it is not known (see client_id_key.py): then no id is made, and none is known."""
        return self._key

    @key.setter
    def key(self, key: bytes) -> None:
        self._key = key
        self._keyed = blake2s(key=key, digest_size=BOUND_BYTES)

    def make(self, principal: Principal) -> str:
        """An id for whoever names none. Raises BrokerUnavailable."""
        made = new_client_id()
        if principal.is_open:
            return made
        if not self.key:
            raise BrokerUnavailable("the secret of clients' ids is not known yet")
        return f"{made}.{self._bound(principal, made)}"

    def made_for(self, principal: Principal, client_id: str) -> bool:
        """Whether `client_id` was made for `principal`. All who bring nothing are one: to know it is all they have."""
        found = _MADE.fullmatch(client_id)
        return found is not None and bool(self.key) and hmac.compare_digest(self._bound(principal, found[1]), found[2])

    def owns(self, principal: Principal, client_id: str) -> bool:
        """Whether the client of that id is `principal`'s own: its token names it, or it was made for it."""
        if principal.is_open or (principal.client and principal.client == client_id):
            return True
        return not principal.anonymous and self.made_for(principal, client_id)

    def chosen(self, principal: Principal, asked: str | None) -> str:
        """The client of a stream: the one that is asked for, else the one that the token names, else one that is made.

        Raises InvalidField, Forbidden, Unauthenticated; BrokerUnavailable if none can be made yet.
        """
        if asked is None:
            return principal.client or self.make(principal)
        if principal.ticket is not None and asked != principal.client:
            raise principal.refuse(f"subscribe client:{asked}")  # a ticket is for one client, its owner's others or not
        if principal.subscribe.allows(client_tail(asked)) or self.owns(principal, asked):
            return asked
        if principal.anonymous and self.made_for(principal, asked):
            return asked  # who brings nothing comes back with what was made for them
        raise principal.refuse(f"subscribe client:{asked}")

    def _bound(self, principal: Principal, made: str) -> str:
        # A name has no NUL, and `made` is of one length: no two owners and ids are written alike.
        code = self._keyed.copy()
        code.update(f"{principal.name}\0{made}".encode())
        return urlsafe_b64encode(code.digest())[:BOUND_CHARACTERS].decode()
