"""Logs as JSON lines on standard error, each with the trace it belongs to."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable

from opentelemetry import trace
from pythonjsonlogger.json import JsonFormatter

from tidegate_common.telemetry.trouble import repeated


class _TraceFilter(logging.Filter):
    """Adds `trace_id` and `span_id` of the current span; a record that brings its own keeps them."""

    def filter(self, record: logging.LogRecord) -> bool:
        context = trace.get_current_span().get_span_context()
        if context.is_valid and not hasattr(record, "trace_id"):
            record.trace_id = trace.format_trace_id(context.trace_id)
            record.span_id = trace.format_span_id(context.span_id)
        record.__dict__.pop("color_message", None)  # uvicorn's, for terminals
        return True


HTTP_CLIENTS = ("httpx", "httpcore", "httpx2", "httpcore2", "openai")
"""The second ones are what the OpenAI client is made of. Each says a line for each request."""

LIBRARIES = ("uvicorn", "opentelemetry", "urllib3", "requests", "asyncio", "nats", *HTTP_CLIENTS)
"""What these say again and again is counted: they know of no state, and may say a line for each client."""

REPEATS_SECONDS = 60.0

MOST_TEXTS = 500


AUDIT = "tidegate.audit"
"""Logger of the audit log (auth/audit_log.py), which is written whatever the level of the others is."""

SAID = "tidegate_said"
"""Attribute of an exception that was logged: a server that it is raised to all the same says it no second time."""


def mark_said(error: BaseException) -> None:
    """Marks `error` as logged."""
    with contextlib.suppress(AttributeError):
        setattr(error, SAID, True)


class RepeatFilter(logging.Filter):
    """Lets a library's line pass once a minute, with how often it was meanwhile. What we say passes as it is."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._said: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.partition(".")[0] not in LIBRARIES or record.levelno >= logging.CRITICAL:
            return True
        if record.exc_info and getattr(record.exc_info[1], SAID, False):
            return False  # ours has said it, with more
        key, now = (record.name, str(record.msg)), self._clock()
        said, times = self._said.get(key, (float("-inf"), 0))
        if now - said < REPEATS_SECONDS:
            self._said[key] = said, times + 1
            return False
        if len(self._said) >= MOST_TEXTS:
            self._said.clear()
        self._said[key] = now, 0
        if times:
            record.msg = f"{record.getMessage()} ({repeated(times, now - said)})"
            record.args = ()
        return True


def configure_logging(service: str, level: str = "INFO") -> None:
    """The root logger writes one JSON object per line: `timestamp`, `level`, `logger`, `message`, `service`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(RepeatFilter())
    handler.addFilter(_TraceFilter())
    handler.setFormatter(
        JsonFormatter(
            "{levelname}{name}{message}",
            style="{",
            timestamp=True,
            rename_fields={"levelname": "level", "name": "logger"},
            static_fields={"service": service},
            json_ensure_ascii=False,
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    audit = logging.getLogger(AUDIT)
    audit.handlers[:] = [logging.StreamHandler(sys.stderr)]  # its records are lines already
    audit.setLevel("INFO")
    audit.propagate = False
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    # uvicorn's start and stop are said by ours, in one line each; urllib3 tells each of an exporter's tries.
    for noisy in ("uvicorn.error", "uvicorn.access", *HTTP_CLIENTS):
        logging.getLogger(noisy).setLevel("WARNING")
    logging.getLogger("urllib3").setLevel("ERROR")
