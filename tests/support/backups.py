"""Backups of streams, made and restored by JetStream's API, as `nats stream backup` and `nats stream restore` do."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from nats.errors import NoRespondersError

from tests.support.waiting import until
from tidegate_common.bus.connection import Bus


class Backup(NamedTuple):
    """A stream's configuration and state, and its store as the server has packed it."""

    told: dict[str, Any]
    pieces: list[bytes]


async def backup(bus: Bus, stream: str) -> Backup:
    """A backup of `stream` as it is now."""
    client, inbox = bus.client, bus.client.new_inbox()
    pieces: list[bytes] = []
    coming = await client.subscribe(inbox)
    ask = {"deliver_subject": inbox, "no_consumers": True}
    answer = await client.request(f"$JS.API.STREAM.SNAPSHOT.{stream}", json.dumps(ask).encode(), timeout=10)
    told = json.loads(answer.data)
    assert "error" not in told, told
    while (message := await coming.next_msg(timeout=10)).data:
        pieces.append(message.data)
        if message.reply:  # the server waits for it before it sends more
            await message.respond(b"")
    await coming.unsubscribe()
    return Backup(told, pieces)


async def restore(bus: Bus, saved: Backup) -> dict[str, Any]:
    """Puts the stream back, which must not exist; gives what the server tells of it."""
    client, config = bus.client, saved.told["config"]
    ask = json.dumps({"config": config, "state": saved.told["state"]}).encode()
    answer = await client.request(f"$JS.API.STREAM.RESTORE.{config['name']}", ask, timeout=10)
    told = json.loads(answer.data)
    assert "error" not in told, told
    restored: dict[str, Any] = {}
    for piece in (*saved.pieces, b""):

        async def taken(piece: bytes = piece) -> bool:
            nonlocal restored
            try:
                answer = await client.request(told["deliver_subject"], piece, timeout=10)
            except NoRespondersError:  # in a cluster our server hears of the leader's subscription a moment later
                return False
            restored = json.loads(answer.data) if answer.data else {}
            return True

        await until(taken, "the server takes what comes")
    assert "error" not in restored, restored
    return restored
