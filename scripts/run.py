"""Runs the whole of Tidegate on this machine: nats-server, publisher-api, ai-worker and gateway (`make run`).

honcho and the like start and end all processes at once and know no readiness, so this is a runner of our own.

The environment goes to every part as it is; what each part needs of the others is added (see `running/plan.py`).
Exit codes: 0 told to stop; 1 a part could not start, or ended by itself; 2 something must be set first.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping

from scripts.running.development import keep
from scripts.running.plan import Fault, check_ports, locked, plan
from scripts.running.runner import Runner
from scripts.running.screen import Screen


async def main(environ: Mapping[str, str]) -> int:
    """Runs Tidegate until it is told to stop; gives the exit code."""
    try:
        todo = plan(environ)
        check_ports(todo.parts)
        with locked(todo.data):
            if todo.secret is not None:
                keep(todo.secret)
            return await Runner(todo, Screen(sys.stdout, terminal=sys.stdout.isatty())).run()
    except Fault as fault:
        print(f"tidegate: {fault}", file=sys.stderr)
        return fault.code


if __name__ == "__main__":
    try:
        code = asyncio.run(main(os.environ))
    except KeyboardInterrupt:
        code = 0
    sys.exit(code)
