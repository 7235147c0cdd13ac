"""The run: parts are started in order, watched, and ended in the reverse order."""

from __future__ import annotations

import asyncio
import signal

from scripts.running.child import Child
from scripts.running.development import COMMAND, USER, Development
from scripts.running.plan import Fault, Part, Plan
from scripts.running.readiness import until_nats, until_ready
from scripts.running.screen import Screen


class Runner:
    """Starts a plan's parts, shows them, and ends them in the reverse order."""

    def __init__(self, todo: Plan, screen: Screen) -> None:
        self._plan = todo
        self._screen = screen
        self._children: list[Child] = []
        self._watching: list[asyncio.Task[None]] = []
        self._hurry = asyncio.Event()
        self._outcome: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def run(self) -> int:
        """The exit code, when every part is gone."""
        for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(sig, self._told_to_stop)
        starting = asyncio.create_task(self._start())
        try:
            return await self._outcome
        finally:
            for task in (starting, *self._watching):
                task.cancel()
            await asyncio.gather(starting, *self._watching, return_exceptions=True)
            for child in reversed(self._children):
                await child.stop(self._hurry)
                self._screen.status(child.part.name, "ended")

    def _told_to_stop(self) -> None:
        if self._outcome.done():
            self._hurry.set()
            return
        self._screen.say("\nstopping (once more: at once)")
        self._outcome.set_result(0)

    def _fail(self, text: str, child: Child | None = None) -> None:
        if not self._outcome.done():
            for line in child.unshown if child is not None else ():
                self._screen.log(child.part.name if child else "", line)
            self._screen.say(f"tidegate: {text}")
            self._outcome.set_result(1)

    async def _start(self) -> None:
        try:
            await self._start_all()
        except* Fault as faults:
            self._fail(str(faults.exceptions[0]))
        except* Exception as errors:
            if not self._outcome.done():
                self._outcome.set_exception(errors)

    async def _start_all(self) -> None:
        parts = self._plan.parts
        self._screen.say(f"starting {', '.join(part.name for part in parts)}")
        if self._plan.nats_servers:
            await until_nats(self._plan.nats_servers, self._screen)
        else:
            await self._launch(parts[0])
            await until_ready(parts[0], self._plan.ready_seconds, self._screen)
        services = [part for part in parts if part.name != "nats"]
        for part in services:
            await self._launch(part)
        async with asyncio.TaskGroup() as group:
            for part in services:
                group.create_task(until_ready(part, self._plan.ready_seconds, self._screen))
        self._welcome()
        for child in self._children:
            child.shown = True
            child.unshown.clear()

    async def _launch(self, part: Part) -> None:
        child = await Child.start(part, self._screen)
        self._children.append(child)
        self._watching.append(asyncio.create_task(self._watch(child)))

    async def _watch(self, child: Child) -> None:
        code = await child.ended()
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        self._fail(f"{child.part.name} {how}: ending the rest", child)

    def _welcome(self) -> None:
        gateway, publisher = self._plan.part("gateway").address, self._plan.part("publisher-api").address
        self._screen.say(f"\nTidegate is ready: {gateway}/   (Ctrl-C ends it)\n")
        if self._plan.environ.get("TIDEGATE_AUTH") == "token":
            self._show_token(gateway, publisher)
            return
        event = '{"client_id":"me","event_type":"hello","data":"Hi"}'
        self._screen.say("Or in two more terminals:")
        self._screen.say(f"  curl -N '{gateway}/api/sse?client_id=me'")
        self._screen.say(f"  curl -H 'Content-Type: application/json' -d '{event}' {publisher}/api/sse/send\n")

    def _show_token(self, gateway: str, publisher: str) -> None:
        made = Development.of(self._plan.environ)
        if made is None:
            self._screen.say("Everyone is asked for a token, of your identity provider.\n")
            return
        event = f'{{"user_id":"{USER}","event_type":"hello","data":"Hi"}}'
        bearer = '-H "Authorization: Bearer $TOKEN"'
        self._screen.say(
            f"Everyone is asked for a token. This one, of the user {USER}, has every right for {made.hours:g} hours."
        )
        self._screen.say("Sign in on the page with what stands after TOKEN=, or in each of two more terminals:")
        self._screen.say(f"  TOKEN={made.token}")
        self._screen.say(f"  curl -N {bearer} {gateway}/api/sse")
        self._screen.say(f"  curl {bearer} -H 'Content-Type: application/json' -d '{event}' {publisher}/api/sse/send")
        self._screen.say(f"Another user's: {COMMAND} token ann --subscribe 'topic:prices.*'\n")
