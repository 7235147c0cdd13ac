"""Who listens to what, and the fan-out: the hot path of the gateway, from an event to the sockets' writes.

An event is handed to `durable` or `volatile` by the feed, from inside the read of NATS's socket. At the end of the pass
(one scheduled call, no timer) it is written to each listening session; if a pass has several, they are put beside
the sessions first, and each session gets all that it has in one write. A pass is one read of NATS's socket; what comes
from elsewhere ends its pass with the event loop's next turn.
No task, queue or lock per connection: those cost 16 µs per event and connection, the socket write 4.8 (measured).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Protocol

from gateway.hub.endings import Ending
from gateway.hub.session import Held, Seen, Session
from tidegate_common.contract.subjects import covers

Farewell = Callable[[Ending], bytes]
"""Makes the last chunk that a client gets."""


class Upstream(Protocol):
    """The feed's side: what this process has to hear of follows from who is connected."""

    def subscribe(self, audience: Audience) -> None:
        """The audience has its first session: its events are to come from now on."""

    def unsubscribe(self, audience: Audience) -> None:
        """The audience has lost its last session."""


class Audience:
    """The sessions that listen to one tail. `live` ones get events at once, `joining` ones have them held."""

    __slots__ = ("complete_from", "heard", "heard_by_subject", "joining", "live", "subscription", "tail")

    def __init__(self, tail: str) -> None:
        self.tail = tail
        self.live: dict[Session, None] = {}
        self.joining: dict[Session, None] = {}
        self.subscription: int = 0
        """For the feed to remember its own by."""
        # For feed/places.py:
        self.heard = -1
        """The last sequence heard on this tail; -1 for none yet."""
        self.heard_by_subject: dict[bytes, int] | None = {} if "*" in tail or ">" in tail else None
        """If the tail has wildcards, the same by subject; `heard` holds for the subjects that are not in it."""
        self.complete_from = -1
        """From here on, nothing is missing in what was heard. What came before is the stream's to tell."""


class Hub:
    """All sessions of this process."""

    def __init__(
        self,
        schedule: Callable[[Callable[[], None]], object],
        farewell: Farewell,
        max_held_bytes: int = 1 << 20,
    ) -> None:
        """`schedule` runs a function once, at the end of the present pass."""
        self._schedule = schedule
        self._farewell = farewell
        self._max_held = max_held_bytes
        self._audiences: dict[str, Audience] = {}
        self._wide: dict[str, Audience] = {}
        self._dirty: list[Session] = []
        self._sole: tuple[Audience, int, bytes] | None = None
        """The event of this pass, while it is the only one."""
        self._scheduled = False
        self.interest: Upstream | None = None
        self.on_removed: Callable[[Session], None] | None = None
        """Called once for each connection whose session was added, when it is gone."""
        self.sessions: dict[Session, None] = {}
        self.sent = 0
        """Events handed to sockets, one for each connection."""
        self.dropped = 0
        """Volatile events that a slow or joining session had no room for."""
        self.ended: Counter[str] = Counter({ending.reason: 0 for ending in Ending if ending is not Ending.REFUSED})

    # --- who is here -------------------------------------------------------------------------------------------

    @property
    def audiences(self) -> int:
        """Distinct tails that someone listens to."""
        return len(self._audiences)

    def add(self, session: Session, tails: Iterable[str], *, overlapping: bool) -> None:
        """`session` listens to `tails` from now on; what comes is held until `release`."""
        session.tails = tuple(tails)
        session.seen = Seen() if overlapping else None
        session.on_lost = self._remove
        self.sessions[session] = None
        for tail in session.tails:
            audience = self._audiences.get(tail)
            if audience is None:
                audience = self._audiences[tail] = Audience(tail)
                if audience.heard_by_subject is not None:
                    self._wide[tail] = audience
                audience.joining[session] = None
                if self.interest is not None:
                    self.interest.subscribe(audience)
            else:
                audience.joining[session] = None
        session.held = Held(self._max_held)

    def audience(self, tail: str) -> Audience | None:
        """Who listens to exactly `tail`; None if nobody does."""
        return self._audiences.get(tail)

    def audiences_of(self, sessions: Iterable[Session]) -> list[Audience]:
        """Those that some of `sessions` are among, each once."""
        return [self._audiences[tail] for tail in {tail: None for session in sessions for tail in session.tails}]

    def listening(self, tail: str) -> list[Session]:
        """Each open session once that hears what is sent to `tail`, by wildcards too."""
        audiences = [audience for wide, audience in self._wide.items() if covers(wide, tail)]
        exact = self._audiences.get(tail)
        if exact is not None:
            audiences.append(exact)
        found = {session: None for audience in audiences for session in (*audience.live, *audience.joining)}
        return [session for session in found if session.ending is None]

    def everyone(self) -> Iterable[Audience]:
        """All audiences."""
        return self._audiences.values()

    def wide(self) -> Iterable[Audience]:
        """The audiences whose tails have wildcards."""
        return self._wide.values()

    def hold(self, session: Session) -> Held:
        """Live events wait from now on (again): the session's place in the stream has to be made sure of.

        The session has to be among `sessions`: one that is gone would be held in place of one that is there.
        """
        assert session in self.sessions, "who is gone is not held"
        # What this pass has for it was handed over before the hold, and its position says so. Left for the end of the
        # pass, it would be written in the middle of the replay that the hold is for.
        self._flush()
        session.held = Held(self._max_held)
        for tail in session.tails:
            audience = self._audiences[tail]
            audience.live.pop(session, None)
            audience.joining[session] = None
        return session.held

    def release(self, session: Session) -> None:
        """The session is up to `session.position`: what was held after that is written, then it is live."""
        held, session.held = session.held, None
        assert held is not None
        assert not held.broken, "a broken hold is replayed, not released"
        # Before the session is among those who get the pass's only event live: it has it held, too.
        self._spread_sole()
        for tail in session.tails:
            audience = self._audiences[tail]
            audience.joining.pop(session, None)
            if not audience.joining:
                audience.joining.clear()  # an emptied dict keeps its table: 160 bytes for each client's own audience
            audience.live[session] = None
        for sequence, chunk in held.events:
            if sequence is not None:
                # The stream's position was asked for after the hold began. So what is held may have been replayed, too.
                if sequence <= session.position:
                    continue
                session.position = sequence
            # Beside the session, not to its socket: what comes live in this pass goes after it, in the same write.
            self._put(session, chunk)
            self.sent += 1

    def _remove(self, session: Session) -> None:
        """The connection is gone: nothing of it stays, and what nobody listens to any more is not heard any more."""
        if session not in self.sessions:
            return
        del self.sessions[session]
        for tail in session.tails:
            audience = self._audiences[tail]
            # In either: a repair may have held it, or released it, at any moment.
            audience.live.pop(session, None)
            audience.joining.pop(session, None)
            if not audience.live and not audience.joining:
                del self._audiences[tail]
                self._wide.pop(tail, None)
                if self.interest is not None:
                    self.interest.unsubscribe(audience)
        if not session.connection:
            return
        assert session.ending is not None
        if session.ending is not Ending.REFUSED:
            self.ended[session.ending.reason] += 1
        if self.on_removed is not None:
            self.on_removed(session)

    def end(self, session: Session, ending: Ending) -> None:
        """Closes the session's connection with a farewell. What the pass still had for it comes first."""
        if session.ending is None:
            self._spread_sole()
            pending, session.pending = session.pending, None
            if pending is not None and not session.paused:
                session.send(b"".join(pending) if isinstance(pending, list) else pending)
            session.close(ending, self._farewell(ending))

    # --- the hot path ------------------------------------------------------------------------------------------

    def durable(self, audience: Audience, sequence: int, chunk: bytes) -> None:
        """An event of the stream for all of `audience`. A session that has had it already is passed over."""
        if audience.live:
            if self._scheduled:
                self._spread_sole()
                self._spread(audience, sequence, chunk)
            else:
                self._sole = (audience, sequence, chunk)
                self._scheduled = True
                self._schedule(self._flush)
        # Those who join hear it in this very call, and not at the end of the pass: one of them may be released before.
        for session in audience.joining:
            if session.held is not None:
                session.held.add(sequence, chunk)

    def _spread_sole(self) -> None:
        """The pass has more than one event: the first is put beside the sessions after all."""
        if self._sole is not None:
            sole, self._sole = self._sole, None
            self._spread(*sole)

    def _spread(self, audience: Audience, sequence: int, chunk: bytes) -> None:
        """Puts an event beside each session of the audience, for the end of the pass."""
        live, dirty = audience.live, self._dirty
        self.sent += len(live)
        for session in live:
            # Overlapping subscriptions bring an event twice; ids on one connection only grow.
            if sequence <= session.position:
                self.sent -= 1
                continue
            session.position = sequence
            pending = session.pending
            if pending is None:
                session.pending = chunk
                dirty.append(session)
            elif type(pending) is list:
                pending.append(chunk)
            else:
                session.pending = [pending, chunk]  # type: ignore[list-item]  # bytes: the only other type

    def volatile(self, audience: Audience, volatile_id: bytes, chunk: bytes) -> None:
        """An event that is not stored: who can't take it now never gets it, and that is counted."""
        for session in audience.live:
            if session.seen is not None and not session.seen.first_time(volatile_id):
                continue
            if session.paused:
                self.dropped += 1
                continue
            self.sent += 1
            self._put(session, chunk)
        for session in audience.joining:
            if session.seen is not None and not session.seen.first_time(volatile_id):
                continue
            if session.held is not None and not session.held.add(None, chunk):
                self.dropped += 1

    def _put(self, session: Session, chunk: bytes) -> None:
        self._spread_sole()
        pending = session.pending
        if pending is None:
            session.pending = chunk
            self._dirty.append(session)
        elif type(pending) is list:
            pending.append(chunk)
        else:
            session.pending = [pending, chunk]  # type: ignore[list-item]
        if not self._scheduled:
            self._scheduled = True
            self._schedule(self._flush)

    def _flush(self) -> None:
        """The end of a pass: one write for each session that has something. Order on a connection is kept."""
        self._scheduled = False
        if self._sole is not None:
            sole, self._sole = self._sole, None
            self._write_sole(*sole)
            return
        dirty, self._dirty = self._dirty, []
        for session in dirty:
            pending, session.pending = session.pending, None
            if pending is None or session.ending is not None:
                continue
            if session.paused:
                # Only durable events get here while paused: rather no connection than one with a hole in it.
                self.end(session, Ending.SLOW)
                continue
            session.beats = 0
            session.send(b"".join(pending) if isinstance(pending, list) else pending)

    def _write_sole(self, audience: Audience, sequence: int, chunk: bytes) -> None:
        """The only event of a pass, written in one walk: what 10,000 sessions hold is more than a cache does."""
        sent = 0
        for session in tuple(audience.live):  # ending one that is slow takes it out
            if sequence <= session.position or session.ending is not None:
                continue
            session.position = sequence
            if session.paused:
                self.end(session, Ending.SLOW)
                continue
            sent += 1
            session.beats = 0
            session.send(chunk)
        self.sent += sent
