"""Sending what telemetry still has, in the time that a stop has left."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

log = logging.getLogger(__name__)

LEAST_SECONDS = 0.1
"""An endpoint that answers is done by then, and is not to lose by a drain that took all of its time."""


def send_rest(works: Mapping[str, Callable[[], object]], deadline: float) -> None:
    """Runs all of `works` at the same time until `deadline` (of `time.monotonic`); says which did not end by then.

    The exporters of OpenTelemetry take up to half a minute each where their endpoint hangs, one after the other, and
    nothing interrupts them. So each has a daemon thread, which the process's end does not wait for.
    """
    threads = {name: threading.Thread(target=_run, args=(name, work), daemon=True) for name, work in works.items()}
    for thread in threads.values():
        thread.start()
    until = max(deadline, time.monotonic() + LEAST_SECONDS)
    for thread in threads.values():
        thread.join(max(0.0, until - time.monotonic()))
    late = [name for name, thread in threads.items() if thread.is_alive()]
    if late:
        log.warning("the OTLP endpoint did not take the last %s in time: they are lost", " and ".join(late))


def _run(name: str, work: Callable[[], object]) -> None:
    try:
        work()
    except Exception as error:
        log.warning("the last %s could not be sent: %s", name, error)
