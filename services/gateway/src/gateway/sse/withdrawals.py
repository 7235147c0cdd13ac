"""A right that is taken away ends the streams that were opened with it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from gateway.hub.endings import Ending
from gateway.hub.expiry import Expiry
from gateway.hub.hub import Hub
from gateway.hub.session import Session
from gateway.hub.tails import split
from tidegate_common.auth.identity import Identity
from tidegate_common.auth.job_access import has_all
from tidegate_common.contract.principal import Principal
from tidegate_common.contract.revocation import KINDS, Revocation
from tidegate_common.contract.subjects import decode_token
from tidegate_common.errors import Unauthenticated

CLIENT = "client."
NOBODY = (None, None, None, None)


class Withdrawals:
    """Ends streams by what their principals are. `keep` and `forget` go with each stream."""

    def __init__(self, hub: Hub, expiry: Expiry, identity: Identity) -> None:
        self._hub = hub
        self._expiry = expiry
        self._client_ids = identity.client_ids
        self._revocations = identity.revocations
        self._keys = identity.authenticator.keys
        self._tokens = identity.authenticator.tokens
        self._watchers: dict[Session, str] = {}
        """Clients' ids of those who watch a job: their tails do not say it."""
        identity.revocations.on_change.append(self.revoke)
        self._tokens.on_withdrawn.append(self.expire)
        if self._keys is not None:
            self._keys.on_change.append(self.change)

    def check(self, session: Session, client_id: str) -> None:
        """Raises Unauthenticated if the session's principal is not good any more.

        Called right before a response head goes out: a body, a job's record or an election may have taken long. What
        is taken away from then on finds the session in the hub, where it has been since it was attached.
        """
        principal = session.principal
        if principal.expires and time.time() >= principal.expires:
            raise Unauthenticated("expired")
        if self._tokens.withdrawn(principal):
            raise Unauthenticated("kid")
        self._revocations.check(principal, client_id)
        if principal.key and not self._good_key(session):
            raise Unauthenticated("revoked")

    def keep(self, session: Session, client_id: str) -> None:
        """The stream of that client has begun."""
        self._expiry.keep(session)
        if not session.principal.is_open and split(session.tails[0])[1]:
            self._watchers[session] = client_id

    def forget(self, session: Session) -> None:
        """The stream is gone."""
        self._expiry.forget(session)
        self._watchers.pop(session, None)

    def revoke(self, revocations: Sequence[Revocation]) -> None:
        """Ends the streams that `revocations` are about, those that are being attached too."""
        named: dict[str, dict[str, Revocation]] = {kind: {} for kind in KINDS}
        for revocation in revocations:
            kind, value = revocation.names
            named[kind][value] = revocation
        subs, tokens, keys, clients = (named[kind] for kind in KINDS)
        for session in list(self._hub.sessions):
            who = session.principal
            client_id = self._client_id(session) if clients else ""
            # One look each: there may be many sessions, and no event goes out meanwhile.
            about = subs.get(who.subject), tokens.get(who.token_id), keys.get(who.key), clients.get(client_id)
            if about != NOBODY and any(each is not None and each.applies(who, client_id) for each in about):
                self._hub.end(session, Ending.REVOKED)

    def expire(self) -> None:
        """The identity provider has taken a key back: it may have made other tokens for those who had one of that."""
        for session in list(self._hub.sessions):
            if self._tokens.withdrawn(session.principal):
                self._hub.end(session, Ending.TOKEN_EXPIRED)

    def change(self, changed: Mapping[Principal, Principal | None]) -> None:
        """Keys have other rights now, or are gone (None): streams that these do not cover end."""
        ids = {before.key for before in changed}
        for session in list(self._hub.sessions):
            before = session.principal
            if before.key not in ids or not session.connection:
                continue
            now = changed.get(before)
            if now is not None and self._covers(now, session):
                self._expiry.forget(session)
                session.principal = now
                self._expiry.keep(session)
            elif before in changed or not self._good_key(session):
                self._hub.end(session, Ending.REVOKED)

    def _good_key(self, session: Session) -> bool:
        """Whether the key with which the session came is as it was. One that came with a ticket has the ticket's
        rights, as far as its key has them still.
        """
        principal = session.principal
        there = self._keys.of(principal.key) if self._keys is not None else []
        if principal.ticket is None:
            return principal in there
        now = time.time()
        return any(self._covers(each, session) for each in there if not each.expires or now < each.expires)

    def _covers(self, now: Principal, session: Session) -> bool:
        """Whether `now` may hear all that the session does."""
        for tail in session.tails:
            if split(tail)[1]:
                # A job's own stream: whoever watches it may be its owner, which the session does not know.
                if has_all(session.principal) and not has_all(now):
                    return False
            elif not now.may_hear(tail):
                client_id = decode_token(tail.removeprefix(CLIENT))
                if not tail.startswith(CLIENT) or not self._client_ids.owns(now, client_id):
                    return False
        return True

    def _client_id(self, session: Session) -> str:
        """As far as it is known: that of a watcher is checked when its stream begins, and remembered from then on."""
        found = next((tail for tail in session.tails if tail.startswith(CLIENT) and not split(tail)[1]), "")
        return decode_token(found.removeprefix(CLIENT)) or self._watchers.get(session, "")
