"""A restore of the event stream, as a real publisher-api finds it at its start."""

import json
import shutil
from pathlib import Path

import httpx

from tests.support.backups import backup, restore
from tests.support.bus import SUBJECTS, broker
from tests.support.nats import nats_server
from tests.support.ports import free_port
from tests.support.processes import service
from tidegate_common.bus.connection import connect
from tidegate_common.bus.events.history import History
from tidegate_common.contract.ids import EventId


async def _send(port: int) -> str:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
        answer = await client.post("/api/sse/send", json={"client_id": "a", "event_type": "n", "data": "x"})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])


async def _run(nats_url: str, said: str = "", **env: str) -> str:
    """The id of an event that a publisher-api has stored first of all; it has to have logged `said`."""
    port = free_port()
    async with service("publisher_api", port, {"TIDEGATE_NATS_URL": nats_url, **env}) as run:
        event_id = await _send(port)
        assert not said or run.said(said)
    return event_id


async def test_after_a_restore_by_the_api_the_first_event_has_an_id_of_another_epoch(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus):
        first = await _run(server.url)
        saved = await backup(bus, "TG_EVENTS")
        assert saved.told["config"]["metadata"]["tidegate-epoch"] == first.split("-")[0]
        lost = await _run(server.url)
        await bus.jetstream.delete_stream("TG_EVENTS")
        await restore(bus, saved)
        new = await _run(server.url, "was restored")
        again = await _run(server.url)
        assert new.split("-")[0] == again.split("-")[0] != first.split("-")[0] == lost.split("-")[0]
        position = await History(bus).position()
        places = [position.place(event_id) for each in (first, lost, new) if (event_id := EventId.parse(each))]
        assert places == [1, None, 2]


async def test_of_a_copied_store_the_operator_tells_once(tmp_path: Path) -> None:
    store, copy, port = tmp_path / "store", tmp_path / "copy", free_port()
    async with nats_server(store, port) as server:
        first = await _run(server.url)
    shutil.copytree(store, copy)
    async with nats_server(store, port) as server:
        lost = await _run(server.url)
    shutil.rmtree(store)
    shutil.copytree(copy, store)
    async with nats_server(store, port) as server:
        told = {"TIDEGATE_EVENTS_RESTORED": "2026-03-01"}
        new, again = await _run(server.url, "was restored", **told), await _run(server.url, **told)
        assert lost not in (new, again)
        assert new.split("-")[0] == again.split("-")[0] != first.split("-")[0]
        async with connect(server.url, SUBJECTS, "test") as bus:
            told_of = await bus.client.request("$JS.API.STREAM.INFO.TG_EVENTS", b"")
            metadata = json.loads(told_of.data)["config"]["metadata"]
        assert metadata["tidegate-earlier"] == f"{first.split('-')[0]}:1"
