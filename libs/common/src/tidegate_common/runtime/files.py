"""How many files a process may have open: each connection is one."""

from __future__ import annotations

import contextlib
import logging
import resource

log = logging.getLogger(__name__)

OTHER_FILES = 64
"""Kept for what is no client's connection: without a file left no new connection to NATS can be had."""


def room_for(sockets: int) -> int:
    """How many of `sockets` there may be, once the process's limit of open files is raised as far as it goes.

    A shell's usual limit is 1024. Past it the kernel hands no connection over, and nobody counts or says that.
    """
    wanted = sockets + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return sockets
    room = max(1, soft - OTHER_FILES)
    log.warning(
        "this process may have %d files open, so that it takes %d connections and not TIDEGATE_MAX_SOCKETS (%d): "
        "raise its limit (ulimit -n)",
        soft,
        room,
        sockets,
    )
    return room
