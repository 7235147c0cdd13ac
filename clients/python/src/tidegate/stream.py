"""One event stream that comes back by itself, from where it was."""

from __future__ import annotations

import asyncio
import random as randomness
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import httpx

from tidegate import request
from tidegate.answers import beginning, is_stream
from tidegate.asking import PASSING, NotGiven, text
from tidegate.backoff import BackOff, retry_after
from tidegate.credentials import Credentials, Token
from tidegate.events import Closing, Event, Gap, Problem, Refused, State, Stopped
from tidegate.parser import EventParser, Frame
from tidegate.request import Headers

CONNECT_SECONDS = 15.0
PROVEN_SECONDS = 10.0
OWN_TYPES = ("connected", "gap", "expiring")
"""The gateway's own, which show nothing of the stream behind it."""
KINDS: dict[str, type[Event]] = {"gap": Gap, "closing": Closing}


class _Open:
    """A response that is being read."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.pieces = response.aiter_bytes()
        self.parser = EventParser()
        self.closing = False
        self.expiring = False
        self.useful = False
        self._since = asyncio.get_running_loop().time()

    def age(self) -> float:
        """Seconds."""
        return asyncio.get_running_loop().time() - self._since


class Stream:
    """Iterate over it for events. Made by `connect`; one task reads it at a time."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        url: httpx.URL,
        last_event_id: str,
        headers: Headers | None,
        credentials: Credentials,
        silence: float | None,
        attempts: int | None,
        on_state: Callable[[State], None] | None,
        random: Callable[[], float],
    ) -> None:
        self.last_event_id = last_event_id
        self.listening: list[str] | int | None = None
        """What the gateway said is listened to, as `topic:prices.*`, or how many names that are; None before it has."""
        self.state = State("closed", reason="not started")
        self._client = client
        self._url = url
        self._made_id = ""
        """The client id that the gateway has made, and the address has since."""
        self._headers = headers
        self._credentials = credentials
        self._timeout = httpx.Timeout(CONNECT_SECONDS, read=silence or None)
        self._attempts = attempts
        self._on_state = on_state
        self._back_off = BackOff(random)
        self._failed = 0
        self._retry = 0.0
        self._frames: deque[Frame] = deque()
        self._open: _Open | None = None
        self._filling: asyncio.Task[None] | None = None
        self._final = False
        self._ended = False

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Event:
        """The next event. Raises Stopped if the client must not come back; ends after `close` and after a 204.

        It can be cancelled, as by a timeout, and called again: the connection stays, and so does a wait for the next.
        """
        while not self._ended:
            if self._frames:
                event = self._take(self._frames.popleft())
                if event is not None:
                    return event
                continue
            await self._step()
        raise StopAsyncIteration

    async def close(self) -> None:
        """Ends the stream, from any task: who iterates comes to the end. Can be called again."""
        if self._ended:
            return
        self._ended = True
        self._frames.clear()
        filling = self._filling
        if filling is not None:
            filling.cancel()
            await asyncio.wait([filling])
            if not filling.cancelled():
                filling.exception()  # asked for, or asyncio complains of a step that nobody waited for any more
        await self._end("closed by the caller")

    async def _step(self) -> None:
        """One step, in a task of its own: a cancel of whoever waits for it would end the wait or the connection."""
        if self._filling is None:
            self._filling = asyncio.ensure_future(self._fill())
        filling = self._filling
        await asyncio.wait([filling])
        if self._filling is filling:
            self._filling = None
        if self._ended or filling.cancelled():
            return
        try:
            filling.result()
        except Stopped as stopped:
            await self._end(str(stopped), stopped.problem, stopped.__cause__)
            raise
        except Exception as error:  # the caller's own: what `headers` or `on_state` has raised
            await self._end(text(error), None, error)
            raise

    async def _end(self, reason: str, problem: Problem | None = None, cause: BaseException | None = None) -> None:
        self._ended = True
        await self._drop()
        if self.state.name != "closed" or self.state.reason == "not started":
            self._tell(State("closed", 0.0, reason, problem, cause))

    async def _drop(self) -> None:
        current, self._open = self._open, None
        if current is not None:
            await current.response.aclose()

    def _tell(self, state: State) -> None:
        self.state = state
        if self._on_state is not None:
            self._on_state(state)

    def _take(self, frame: Frame) -> Event | None:
        """The event to hand over. Its id counts from here on: what was not handed over is asked for again."""
        if frame.id is not None:
            self.last_event_id = frame.id
        if frame.data is None:
            return None
        event = KINDS.get(frame.type, Event)(frame.id or "", frame.type, frame.data)
        if frame.type == "connected":
            self._adopt(event)
        if isinstance(event, Closing):
            if self._open is not None:
                self._open.closing = True
            if event.final:
                self._frames.clear()
                self._final = True
        elif self._open is not None:
            self._open.useful |= frame.type not in OWN_TYPES
            # One that has only just begun with its token would begin and end for ever: it lasts as long as that does.
            self._open.expiring |= frame.type == "expiring" and self._open.age() > PROVEN_SECONDS
        return event

    def _adopt(self, connected: Event) -> None:
        """A client id made by the gateway is kept: the next connection listens to the same."""
        try:
            told = connected.json()
            client_id = told["client_id"]
            self.listening = told.get("listening")
            if isinstance(client_id, str) and client_id and "client_id" not in self._url.params:
                self._url = self._url.copy_set_param("client_id", client_id)
                self._made_id = client_id
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return  # of no gateway of ours: half a character, for example, is a ValueError when it is encoded

    async def _fill(self) -> None:
        """One step: connects, or reads a piece, or waits."""
        if self._final:
            await self._end("the gateway asks not to come back")
            return
        try:
            if self._open is None:
                await self._connect()
            elif self._open.expiring:
                await self._renew(self._open)
            else:
                await self._read(self._open)
        except (TimeoutError, httpx.ReadTimeout) as error:
            await self._wait("nothing was heard for too long", cause=error)
        except NotGiven as failed:
            await self._wait(str(failed), cause=failed.__cause__)
        except (httpx.RequestError, httpx.StreamError) as error:
            what = "the server can't be reached" if self._open is None else "the connection broke"
            await self._wait(f"{what}: {text(error)}", cause=error)

    async def _read(self, current: _Open) -> None:
        piece = await anext(current.pieces, None)
        if piece is None:
            await self._wait("the stream ended")
            return
        self._frames.extend(current.parser.feed(piece))
        if current.parser.retry is not None:
            self._retry = current.parser.retry

    async def _renew(self, current: _Open) -> None:
        """The token ends soon: if there is another, the stream goes on with that, from where it is."""
        current.expiring = False
        try:
            if self._credentials.can_renew and await self._credentials.renew(CONNECT_SECONDS):
                self._failed = 0
                self._back_off.reset()
                await self._drop()
        except NotGiven:
            return  # the gateway ends the stream when the token does, and then it is asked for again

    async def _connect(self) -> None:
        self._tell(State("connecting"))
        fields = await request.fields(self._headers, CONNECT_SECONDS)
        auth = await self._credentials.sign(fields, CONNECT_SECONDS)
        async with asyncio.timeout(CONNECT_SECONDS):
            response = await self._ask(fields, auth)
        if is_stream(response):
            self._open = _Open(response)
            self._credentials.accepted()
            self._tell(State("open"))
        else:
            await self._refused(response, await beginning(response))

    async def _ask(self, fields: httpx.Headers, auth: httpx.Auth | None) -> httpx.Response:
        """The next attempt's answer, as far as its head."""
        fields["Accept"], fields["Cache-Control"] = "text/event-stream", "no-store"
        url, fields = request.place(self._url, fields, self.last_event_id)
        request.drop_cookies(self._client)
        asked = self._client.build_request("GET", url, headers=fields, timeout=self._timeout)
        request.check_address(asked.url)  # which may stand below the client's own base
        try:
            return await self._client.send(asked, stream=True, auth=auth or httpx.USE_CLIENT_DEFAULT)
        except (ValueError, httpx.InvalidURL) as error:  # httpx's own, of a redirect to bytes that are no address
            raise httpx.RemoteProtocolError(f"the answer can't be read: {error}") from error

    async def _refused(self, response: httpx.Response, body: bytes) -> None:
        status = response.status_code
        if status == 204:
            await self._end("the server asks not to come back (204)")
            return
        if status == 200:
            raise Stopped("the answer is no event stream", Problem(status, "the answer is no event stream", "", {}))
        problem = Problem.of(response, body)
        at_least = retry_after(response.headers.get("Retry-After"))
        again = 0.0 if self._forgets_id(problem) else self._credentials.once_more(problem)
        if status < 500 and status not in PASSING and again is None:
            raise Refused(problem) if status in (401, 403) else Stopped(problem.title, problem)
        await self._wait(problem.title, max(at_least, again or 0.0), problem)

    def _forgets_id(self, problem: Problem) -> bool:
        """Whether the id that the gateway has made is refused: it was made for another user. The next gets another."""
        if not self._made_id or problem.needed != f"subscribe client:{self._made_id}":
            return False
        self._url, self._made_id = self._url.copy_remove_param("client_id"), ""
        return True

    async def _wait(
        self,
        reason: str,
        at_least: float = 0.0,
        problem: Problem | None = None,
        cause: BaseException | None = None,
    ) -> None:
        current = self._open
        await self._drop()
        closing = current is not None and current.closing
        useful = current is not None and (closing or current.useful or current.age() > PROVEN_SECONDS)
        self._failed = 0 if useful else self._failed + 1
        if useful:
            self._back_off.reset()
        if self._attempts is not None and self._failed >= self._attempts:
            raise Stopped(f"given up after {self._attempts} attempts: {reason}", problem) from cause
        bound = max(self._retry, at_least)
        # The gateway's own `retry:` with `closing` is already spread over its clients.
        seconds = bound if closing and bound else self._back_off.next(bound)
        self._tell(State("waiting", seconds, reason, problem, cause))
        await asyncio.sleep(seconds)


@asynccontextmanager
async def connect(
    url: str,
    *,
    client_id: str = "",
    user_id: str = "",
    topics: str | Sequence[str] = (),
    last_event_id: str | None = None,
    token: Token | None = None,
    headers: Headers | None = None,
    client: httpx.AsyncClient | None = None,
    silence: float | None = 45.0,
    attempts: int | None = None,
    on_state: Callable[[State], None] | None = None,
    random: Callable[[], float] = randomness.random,
) -> AsyncIterator[Stream]:
    """
    A stream of `url` (the whole address, as `https://host/api/sse`), closed at the end of the block.

    `token`: a token or a key, or a function (async or not) that gives one. It is asked before each attempt, when the
    gateway says that the token is `expiring`, and once more if the gateway finds it expired. None or "" is no token.
    Refused is raised if the gateway does not take it (401), or if it is not enough (403).
    `headers`: fields, or a function (async or not) that gives them before each attempt. What these functions raise
    ends the stream and comes out of the iteration, unless it is a TimeoutError, an error of httpx's on the way or a
    status that passes (408, 425, 429, 5xx): then it is an attempt that failed. Stopped is raised if an attempt can't be
    made at all: an address that is none, fields that can't be sent. `topics`: one or several.
    `silence`: seconds without a byte after which the connection counts as dead; 0 or None is never. `attempts`: after
    so many in a row that failed Stopped is raised; None is no limit. `client` is left open; without one redirects are
    followed.
    """
    address = request.address(url, client_id, user_id, topics)
    used = httpx.AsyncClient(follow_redirects=True) if client is None else client
    credentials = Credentials(token)
    stream = Stream(used, address, last_event_id or "", headers, credentials, silence, attempts, on_state, random)
    try:
        yield stream
    finally:
        await stream.close()
        if client is None:
            await used.aclose()
