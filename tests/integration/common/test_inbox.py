import asyncio
import signal
from pathlib import Path

import pytest
from nats.aio.msg import Msg

from tests.support.bus import broker
from tests.support.nats import nats_server
from tests.support.waiting import until
from tidegate_common.bus.requests.responder import Responder
from tidegate_common.bus.wire import headers
from tidegate_common.errors import BrokerUnavailable

BLOCK = headers.block({"name": "value"})


async def test_each_question_gets_its_own_answer_in_whatever_order_they_come(tmp_path: Path) -> None:
    async with broker(tmp_path) as (_, bus):
        asked: list[Msg] = []

        async def hear(message: Msg) -> None:
            asked.append(message)

        await bus.client.subscribe("q", cb=hear)
        inbox = bus.new_inbox(bytes.decode, 10)
        answers = [inbox.ask("q", b"%d" % number, BLOCK) for number in range(20)]
        await until(lambda: len(asked) == 20, "all were asked")
        assert [message.data for message in asked] == [b"%d" % number for number in range(20)]
        assert asked[0].headers == {"name": "value"}
        answers[3].cancel()
        for message in reversed(asked):
            await message.respond(b"to " + message.data)
        assert [await each for each in answers if not each.cancelled()] == [f"to {n}" for n in range(20) if n != 3]


async def test_whoever_is_not_answered_gives_up_in_time_and_a_late_answer_harms_nobody(tmp_path: Path) -> None:
    async with broker(tmp_path) as (_, bus):
        asked: list[Msg] = []

        async def hear(message: Msg) -> None:
            asked.append(message)
            if message.data == b"quick":
                await message.respond(b"answer")

        await bus.client.subscribe("q", cb=hear)
        inbox = bus.new_inbox(bytes.decode, 0.2)
        for _ in range(2):  # the timer is there for those who come after it went off, too
            first, quick = inbox.ask("q", b"slow", BLOCK), inbox.ask("q", b"quick", BLOCK)
            async with asyncio.timeout(10):
                assert (await first, await quick) == (None, "answer")
        await asked[0].respond(b"late")
        assert await inbox.ask("q", b"quick", BLOCK) == "answer"


async def test_where_nobody_listens_the_answer_is_read_from_nothing(tmp_path: Path) -> None:
    async with broker(tmp_path) as (_, bus):
        assert await bus.new_inbox(lambda payload: ("read", payload), 10).ask("nobody", b"1", BLOCK) == ("read", b"")


async def test_nats_going_away_ends_the_waiting_and_nothing_is_sent_until_it_is_back(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus):
        asked: list[bytes] = []

        async def hear(message: Msg) -> None:
            asked.append(message.data)
            if message.data == b"after":
                await message.respond(b"answer")

        await bus.client.subscribe("q", cb=hear)
        inbox = bus.new_inbox(bytes.decode, 60)
        before = inbox.ask("q", b"before", BLOCK)
        await until(lambda: asked == [b"before"], "the question is out")
        await server.run.stop(signal.SIGKILL)
        async with asyncio.timeout(10):
            assert await before is None
            assert await inbox.ask("q", b"meanwhile", BLOCK) is None
        async with nats_server(tmp_path, server.port):
            await until(lambda: bus.connected, "NATS is back", 20)
            assert await inbox.ask("q", b"after", BLOCK) == "answer"
            assert asked == [b"before", b"after"]


class Collected:
    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.cut = False

    def take(self, _: bytes, payload: bytes) -> None:
        self.got.append(payload)

    def cut_off(self) -> None:
        self.cut = True


async def test_several_answers_to_one_question_are_collected_until_the_asker_leaves(tmp_path: Path) -> None:
    async with broker(tmp_path) as (_, bus):
        asked: list[Msg] = []

        async def hear(message: Msg) -> None:
            asked.append(message)
            await message.respond(b"1")
            await message.respond(b"2")

        await bus.client.subscribe("q", cb=hear)
        one, other = Collected(), Collected()
        with bus.inbox.collect("q", b"", one):
            await until(lambda: one.got == [b"1", b"2"], "both have come")
        with bus.inbox.collect("q", b"", other):
            await until(lambda: other.got == [b"1", b"2"], "both have come")
            await asked[0].respond(b"late")
            await bus.client.flush()
            assert await bus.ask("q", b"") == b"1"  # what came before it has been heard
        assert (one.got, other.got) == ([b"1", b"2"], [b"1", b"2"])


async def test_whoever_collects_is_told_that_nats_went_away(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus):
        collected = Collected()
        with bus.inbox.collect("nobody", b"", collected):
            await server.run.stop(signal.SIGKILL)
            await until(lambda: collected.cut, "it is told")


async def test_a_question_has_the_answer_of_one_in_the_group_or_none_where_nobody_answers(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus):
        asked: list[bytes] = []

        async def reply(question: bytes) -> bytes:
            asked.append(question)
            return b"to " + question

        async def never(_: bytes) -> bytes:
            await asyncio.Event().wait()
            return b""

        first, second, silent = Responder("q", reply), Responder("q", reply), Responder("silent", never)
        for each in (first, second):
            await each.serve(bus, "group")
        await silent.serve(bus)
        assert await bus.ask("q", b"1") == b"to 1"
        await first.aclose()
        assert await bus.ask("q", b"2") == b"to 2"
        assert asked == [b"1", b"2"]
        await second.aclose()
        assert await bus.ask("q", b"3") == b"" == await bus.ask("silent", b"4", 0.1)
        await server.run.stop(signal.SIGKILL)
        await until(lambda: not bus.connected, "NATS is away")
        with pytest.raises(BrokerUnavailable):
            await bus.ask("q", b"5")


async def test_a_question_whose_connection_is_lost_ends_at_once(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus):
        heard: list[Msg] = []

        async def hear(message: Msg) -> None:
            heard.append(message)

        await bus.client.subscribe("q", cb=hear)
        asking = asyncio.create_task(bus.ask("q", b"1", 60))
        await until(lambda: heard, "it is asked")
        await server.run.stop(signal.SIGKILL)
        with pytest.raises(BrokerUnavailable):
            await asking
