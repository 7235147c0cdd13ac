"""How a process starts and ends: one event loop, one line for what went wrong."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

import uvloop

from tidegate_common.errors import BrokerRefused, ConfigError, TidegateError
from tidegate_common.runtime.environment import CommonSettings, load
from tidegate_common.telemetry.logging import configure_logging

S = TypeVar("S", bound=CommonSettings)

EXIT_CONFIG = 2
EXIT_UNAVAILABLE = 1
EXIT_REFUSED = 3


def run(service: str, kind: type[S], main: Callable[[S], Awaitable[None]]) -> None:
    """Reads the settings, runs `main` on an event loop, and exits.

    With 0, 1 (could not start), 2 (settings), 3 (NATS refuses the process).
    """
    try:
        settings = load(kind, os.environ)
        configure_logging(service, settings.log_level)
        uvloop.run(_call(main, settings))
    except ConfigError as error:
        for fault in error.faults:
            sys.stderr.write(f"{service}: {fault}\n")
        sys.exit(EXIT_CONFIG)
    except BrokerRefused as error:
        sys.stderr.write(f"{service}: {error}\n")
        sys.exit(EXIT_REFUSED)
    except TidegateError as error:
        sys.stderr.write(f"{service}: {error}\n")
        sys.exit(EXIT_UNAVAILABLE)
    except KeyboardInterrupt:
        logging.getLogger(service).info("interrupted while starting")


async def _call(main: Callable[[S], Awaitable[None]], settings: S) -> None:
    await main(settings)
