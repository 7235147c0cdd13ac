from pathlib import Path

from nats.js.errors import NotFoundError

from tests.integration.ai_worker.support import FAST, desk, worker
from tests.support.waiting import until
from tidegate_common.bus.streams.definitions import StreamLimits, ensure_streams


async def test_a_worker_whose_queue_and_records_were_deleted_takes_jobs_again(tmp_path: Path) -> None:
    async with desk(tmp_path) as (nats, asking), worker(nats, FAST):
        await asking.ask("j1")
        await asking.end("j1")
        jetstream = asking.bus.jetstream
        await jetstream.delete_stream("TG_JOBS")
        await jetstream.delete_key_value("TG_JOBS_STATE")
        await ensure_streams(asking.bus, StreamLimits(), update=False)  # as publisher-api does, within seconds

        async def back() -> bool:
            try:
                await jetstream.consumer_info("TG_JOBS", "workers-3")
            except NotFoundError:
                return False
            return True

        await until(back, "the worker has made its consumers again", 20)
        await asking.ask("j2")
        assert (await asking.end("j2")).data["finish_reason"] == "stop"
