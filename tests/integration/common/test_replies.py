import asyncio
import signal
from pathlib import Path

from nats.aio.msg import Msg

from tests.support.bus import broker
from tests.support.nats import nats_server
from tests.support.waiting import until
from tidegate_common.bus.requests.replies import Replies
from tidegate_common.bus.wire import headers

BLOCK = headers.block({"name": "value"})


async def test_each_question_gets_its_own_answer_in_whatever_order_they_come(tmp_path: Path) -> None:
    async with broker(tmp_path) as (_, bus):
        asked: list[Msg] = []

        async def hear(message: Msg) -> None:
            asked.append(message)

        await bus.client.subscribe("q", cb=hear)
        replies = Replies(bus, bytes.decode, 10)
        answers = [replies.ask("q", BLOCK, b"%d" % number) for number in range(20)]
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
        replies = Replies(bus, bytes.decode, 0.2)
        for _ in range(2):  # the timer is there for those who come after it went off, too
            first, quick = replies.ask("q", BLOCK, b"slow"), replies.ask("q", BLOCK, b"quick")
            async with asyncio.timeout(10):
                assert (await first, await quick) == (None, "answer")
        await asked[0].respond(b"late")
        assert await replies.ask("q", BLOCK, b"quick") == "answer"


async def test_where_nobody_listens_the_answer_is_read_from_nothing(tmp_path: Path) -> None:
    async with broker(tmp_path) as (_, bus):
        assert await Replies(bus, lambda payload: ("read", payload), 10).ask("nobody", BLOCK, b"1") == ("read", b"")


async def test_nats_going_away_ends_the_waiting_and_nothing_is_sent_until_it_is_back(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus):
        asked: list[bytes] = []

        async def hear(message: Msg) -> None:
            asked.append(message.data)
            if message.data == b"after":
                await message.respond(b"answer")

        await bus.client.subscribe("q", cb=hear)
        replies = Replies(bus, bytes.decode, 60)
        before = replies.ask("q", BLOCK, b"before")
        await until(lambda: asked == [b"before"], "the question is out")
        await server.run.stop(signal.SIGKILL)
        async with asyncio.timeout(10):
            assert await before is None
            assert await replies.ask("q", BLOCK, b"meanwhile") is None
        async with nats_server(tmp_path, server.port):
            await until(lambda: bus.connected, "NATS is back", 20)
            assert await replies.ask("q", BLOCK, b"after") == "answer"
            assert asked == [b"before", b"after"]
