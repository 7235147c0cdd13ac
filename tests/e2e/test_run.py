"""`make run`'s program with everything real: processes, ports, signals."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.nats import nats_server
from tests.support.ports import free_port
from tests.support.processes import Running, halt, running
from tests.support.waiting import until

ROOT = Path(__file__).resolve().parents[2]
READY = "Tidegate is ready: "

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and rests on Linux's prctl")


def environment(data: Path, **given: str) -> dict[str, str]:
    names = ("NATS", "PUBLISHER", "WORKER", "GATEWAY")
    ports = {f"TIDEGATE_{name}_PORT": str(free_port()) for name in names}
    return {"TIDEGATE_AI_BACKEND": "scripted", "TIDEGATE_DATA_DIR": str(data), **ports, **given}


@asynccontextmanager
async def the_run(env: Mapping[str, str]) -> AsyncIterator[Running]:
    async with running(sys.executable, "-m", "scripts.run", env=env, cwd=str(ROOT)) as run:
        yield run


@asynccontextmanager
async def the_ready_run(env: Mapping[str, str]) -> AsyncIterator[tuple[Running, str]]:
    """A run that has said where the console is."""
    async with the_run(env) as run:
        await until(lambda: run.said(READY) or run.process.returncode is not None, "the run is ready", 50)
        assert run.said(READY), "\n".join(run.output)
        line = next(line for line in run.output if READY in line)
        yield run, line.removeprefix(READY).split()[0]


def children(pid: int) -> dict[int, str]:
    """Process id and command line of each child of `pid`."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            after_name = stat.read_text().rpartition(")")[2].split()
            if int(after_name[1]) == pid and after_name[0] != "Z":
                found[int(stat.parent.name)] = stat.with_name("cmdline").read_text().replace("\0", " ")
    return found


def alive(pids: Mapping[int, str]) -> list[str]:
    """The command lines of those of `pids` that still run."""
    found = []
    for pid, command in pids.items():
        with contextlib.suppress(OSError):
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            if state != "Z" and Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ") == command:
                found.append(command)
    return found


def order_of_ending(run: Running) -> list[str]:
    return [match[1] for line in run.output if (match := re.search(r"s  (\S+)\s+ended$", line))]


async def test_it_prints_where_the_console_is_and_ctrl_c_ends_all_in_order(tmp_path: Path) -> None:
    async with the_ready_run(environment(tmp_path)) as (run, address):
        async with httpx.AsyncClient() as client:
            page = await client.get(address)
        assert page.status_code == 200
        assert "Tidegate" in page.text
        parts = children(run.process.pid)
        assert len(parts) == 4
        assert all(os.getpgid(pid) == pid for pid in parts), "a terminal's Ctrl-C would reach the parts out of order"
        assert await run.stop(signal.SIGINT) == 0
        assert alive(parts) == []
        assert order_of_ending(run) == ["gateway", "publisher-api", "ai-worker", "nats"]


async def test_the_printed_commands_show_an_event(tmp_path: Path) -> None:
    async with the_ready_run(environment(tmp_path)) as (run, _):
        await until(lambda: sum("curl" in line for line in run.output) == 2, "two commands are printed")
        listen, send = (line.strip() for line in run.output if "curl" in line)
        async with running("sh", "-c", f"exec {listen} -s") as listener:
            await until(lambda: listener.said("event: connected"), "the stream is open")
            async with running("sh", "-c", f"exec {send} -s") as sender:
                await until(lambda: listener.said("event: hello"), "the event has come")
                assert await sender.process.wait() == 0


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGHUP])
async def test_being_told_to_stop_while_starting_leaves_nothing(tmp_path: Path, sig: signal.Signals) -> None:
    async with the_run(environment(tmp_path)) as run:
        await until(lambda: len(children(run.process.pid)) == 4, "all parts are started", 20)
        parts = children(run.process.pid)
        assert await run.stop(sig) == 0
        assert alive(parts) == []


async def test_a_taken_port_is_one_line_that_names_the_variable(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        async with the_run(environment(tmp_path, TIDEGATE_PUBLISHER_PORT=port)) as run:
            assert await run.process.wait() == 2
            await until(lambda: run.output, "a line is printed")
    [line] = run.output
    assert "TIDEGATE_PUBLISHER_PORT" in line
    assert port in line


async def test_a_nats_that_can_not_be_reached_is_one_line_that_names_the_variable(tmp_path: Path) -> None:
    async with the_run(environment(tmp_path, TIDEGATE_NATS_URL=f"nats://127.0.0.1:{free_port()}")) as run:
        await until(lambda: run.process.returncode is not None, "the run gives up", 20)
    assert run.process.returncode == 1
    assert "TIDEGATE_NATS_URL" in run.output[-1]
    assert not any("Traceback" in line for line in run.output)


async def test_a_nats_server_of_the_users_is_used_and_left_running(tmp_path: Path) -> None:
    async with nats_server(tmp_path / "theirs") as server:
        async with the_ready_run(environment(tmp_path / "ours", TIDEGATE_NATS_URL=server.url)) as (run, _):
            assert len(children(run.process.pid)) == 3
            assert await run.stop(signal.SIGINT) == 0
        assert server.run.process.returncode is None
    assert not (tmp_path / "ours" / "nats").exists()


@pytest.mark.parametrize("victim", ["publisher_api", "nats-server"])
async def test_a_part_that_dies_ends_the_run_and_is_named(tmp_path: Path, victim: str) -> None:
    async with the_ready_run(environment(tmp_path)) as (run, _):
        parts = children(run.process.pid)
        os.kill(next(pid for pid, command in parts.items() if victim in command), signal.SIGKILL)
        await until(lambda: run.process.returncode is not None, "the run ends", 30)
        assert run.process.returncode == 1
        assert run.said("was ended by SIGKILL")
        assert alive(parts) == []


async def test_a_part_that_can_not_start_ends_the_run_with_its_last_lines(tmp_path: Path) -> None:
    async with the_run(environment(tmp_path, TIDEGATE_LOG_LEVEL="LOUD")) as run:
        await until(lambda: run.process.returncode is not None, "the run ends", 40)
        assert run.process.returncode == 1
        assert run.said("TIDEGATE_LOG_LEVEL: one of")
        assert run.said("ended with exit code 2")


async def test_a_part_that_is_not_ready_in_time_ends_the_run_and_is_named(tmp_path: Path) -> None:
    async with the_run(environment(tmp_path, TIDEGATE_READY_SECONDS="0.2")) as run:
        await until(lambda: run.process.returncode is not None, "the run ends", 20)
        assert run.process.returncode == 1
        assert run.said("is not ready after 0.2 s")
        assert not run.said("Traceback")


async def test_nothing_outlives_a_run_that_is_killed(tmp_path: Path) -> None:
    async with the_ready_run(environment(tmp_path)) as (run, _):
        parts = children(run.process.pid)
        run.process.kill()
        await run.process.wait()
        try:
            await until(lambda: alive(parts) == [], "all parts are gone")
        finally:
            for pid in parts:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


async def test_a_second_signal_ends_a_part_that_takes_its_time(tmp_path: Path) -> None:
    env = environment(tmp_path, TIDEGATE_DRAIN_SECONDS="120")
    async with the_ready_run(env) as (run, _):
        parts = children(run.process.pid)
        gateway = next(pid for pid, command in parts.items() if command.endswith("-m gateway "))
        await halt(gateway)  # stands for a part that hangs
        run.process.send_signal(signal.SIGINT)
        await until(lambda: run.said("once more"), "the run is ending")
        assert run.process.returncode is None
        assert await run.stop(signal.SIGINT) == 0
        assert alive(parts) == []
        assert run.said("killed")


async def test_two_runs_do_not_share_a_data_folder(tmp_path: Path) -> None:
    async with the_ready_run(environment(tmp_path)), the_run(environment(tmp_path)) as second:
        async with asyncio.timeout(10):
            assert await second.process.wait() == 2
        await until(lambda: second.said("TIDEGATE_DATA_DIR"), "the line is read")


async def test_with_tokens_it_prints_one_that_its_page_and_its_commands_take(tmp_path: Path) -> None:
    async with the_ready_run(environment(tmp_path, TIDEGATE_AUTH="token")) as (run, address):
        await until(lambda: run.count("curl") == 2, "two commands are printed")
        [assignment] = [line.strip() for line in run.output if line.strip().startswith("TOKEN=")]
        listen, send = (line.strip() for line in run.output if "curl" in line)
        async with httpx.AsyncClient() as client:
            assert (await client.get(address)).status_code == 200
            refused = await client.get(f"{address}api/sse")
            assert (refused.status_code, refused.json()["reason"]) == (401, "missing")
        async with running("sh", "-c", f"{assignment}; exec {listen} -s") as listener:
            await until(lambda: listener.said("event: connected"), "the stream is open")
            async with running("sh", "-c", f"{assignment}; exec {send} -s") as sender:
                await until(lambda: listener.said("event: hello"), "the event has come")
                assert await sender.process.wait() == 0


async def test_the_secret_of_a_run_is_its_owners_alone_and_outlives_it_and_signs_what_the_command_makes(
    tmp_path: Path,
) -> None:
    secret = tmp_path / "auth.secret"
    kept = set()
    for _ in range(2):
        async with the_ready_run(environment(tmp_path, TIDEGATE_AUTH="token")) as (run, address):
            kept.add(secret.read_text())
            assert secret.stat().st_mode & 0o777 == 0o600
            command = str(Path(sys.executable).with_name("tidegate"))
            async with running(command, "token", "ann", env={"TIDEGATE_DATA_DIR": str(tmp_path)}) as made:
                await made.process.wait()
                await until(lambda: made.output, "the token is read")
            async with httpx.AsyncClient(headers={"Authorization": f"Bearer {made.output[0]}"}) as client:
                async with client.stream("GET", f"{address}api/sse") as stream:
                    assert stream.status_code == 200
            assert not run.said(secret.read_text().strip())
    assert len(kept) == 1


async def test_tokens_of_the_users_own_secret_are_told_and_no_secret_is_made(tmp_path: Path) -> None:
    env = environment(tmp_path, TIDEGATE_AUTH="token", TIDEGATE_AUTH_SECRET="their own secret of 32 bytes or more")
    async with the_ready_run(env) as (run, _):
        await until(lambda: run.said("TOKEN="), "a token is printed")
    assert not (tmp_path / "auth.secret").exists()


async def test_a_mode_that_there_is_not_is_one_line(tmp_path: Path) -> None:
    async with the_run(environment(tmp_path, TIDEGATE_AUTH="tokens")) as run:
        assert await run.process.wait() == 2
        await until(lambda: run.output, "a line is printed")
    assert run.output == ["tidegate: TIDEGATE_AUTH: open or token, not 'tokens'"]
