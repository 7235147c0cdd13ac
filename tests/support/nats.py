"""A real nats-server with JetStream, on a free port."""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support import least_rights
from tests.support.ports import free_port
from tests.support.processes import Running, halt, running
from tests.support.waiting import until


class NatsServer:
    """Where it listens, and the process."""

    def __init__(self, port: int, run: Running, config: Path | None = None, users: str = "") -> None:
        self.port = port
        self.url = f"nats://127.0.0.1:{port}"
        self.run = run
        self._config = config
        self._users = users

    async def reload(self, config: str) -> None:
        """The server goes on with `config` as its configuration file's text; it has to have had one."""
        before = self.run.count("Reloaded server configuration")
        assert self._config is not None, "a server without a configuration file reloads nothing"
        self._config.write_text(f"{self._users}\n{config}")
        self.run.process.send_signal(signal.SIGHUP)
        await until(lambda: self.run.count("Reloaded server configuration") > before, "the server has reloaded")

    async def pause(self) -> None:
        """It hangs from now on, until `go_on`: connections stay open, and nothing is read or said."""
        await halt(self.run.process.pid)

    def go_on(self) -> None:
        self.run.process.send_signal(signal.SIGCONT)


@asynccontextmanager
async def nats_server(
    data: Path, port: int | None = None, *, jetstream: bool = True, monitor_port: int = 0, config: str = ""
) -> AsyncIterator[NatsServer]:
    """A server that keeps its streams below `data`; the same `data` and `port` again is the same server restarted.

    With `monitor_port` it tells there, over HTTP, who is connected and subscribed to what. `config` is the text of a
    configuration file, beside what is said here.
    """
    port = port or free_port()
    if jetstream and least_rights.holds_for(config):
        async with nats_with_least_rights(data, port, monitor_port, more=config, any_subject=True) as server:
            yield server
        return
    binary = Path(sys.executable).with_name("nats-server")
    streams = ("-js", "-sd", str(data)) if jetstream else ()
    monitor = ("-m", str(monitor_port)) if monitor_port else ()
    file = data / "nats-server.conf"
    configured: tuple[str, ...] = ()
    if config:
        data.mkdir(parents=True, exist_ok=True)
        file.write_text(config)
        configured = "-c", str(file)
    async with running(str(binary), "-a", "127.0.0.1", "-p", str(port), *streams, *monitor, *configured) as run:
        await until(lambda: run.said("Server is ready"), "nats-server is ready")
        server = NatsServer(port, run, file)
        try:
            yield server
        finally:
            if run.process.returncode is None:
                server.go_on()  # one that hangs would not end


@asynccontextmanager
async def nats_configured(file: Path, text: str, port: int | None = None) -> AsyncIterator[NatsServer]:
    """A server that is configured by `text`, which is written to `file`."""
    port = port or free_port()
    file.write_text(f'listen: "127.0.0.1:{port}"\n{text}\n')
    async with running(str(Path(sys.executable).with_name("nats-server")), "-c", str(file)) as run:
        await until(lambda: run.said("Server is ready"), "nats-server is ready")
        yield NatsServer(port, run)


@asynccontextmanager
async def nats_with_least_rights(
    data: Path,
    port: int,
    monitor_port: int = 0,
    *,
    more: str = "",
    replaced: Mapping[str, str] | None = None,
    violations: bool = False,
    any_subject: bool = False,
) -> AsyncIterator[NatsServer]:
    """A server with the users of deploy/nats.conf; in its text `replaced` is replaced, and `more` is added to it.

    Raises AssertionError if one of them lacked a right, in the end, unless `violations` are wanted.
    """
    data.mkdir(parents=True, exist_ok=True)
    file = data / "nats-server.conf"
    text = least_rights.configuration(data, port, monitor_port, any_subject=any_subject)
    for old, new in (replaced or {}).items():
        assert old in text, old
        text = text.replace(old, new)
    file.write_text(f"{text}\n{more}")
    binary = Path(sys.executable).with_name("nats-server")
    async with running(str(binary), "-c", str(file), env=least_rights.passwords()) as run:
        await until(lambda: run.said("Server is ready"), "nats-server is ready")
        try:
            yield NatsServer(port, run, file, text)
        finally:
            if run.process.returncode is None:
                run.process.send_signal(signal.SIGCONT)
    if not violations:
        least_rights.check(run.output)
