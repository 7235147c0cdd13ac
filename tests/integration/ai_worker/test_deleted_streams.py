from pathlib import Path

from nats.js.errors import NotFoundError

from tests.integration.ai_worker.support import FAST, desk, worker
from tests.support.waiting import until


async def test_a_worker_whose_queue_and_records_were_deleted_takes_jobs_again(tmp_path: Path) -> None:
    async with desk(tmp_path) as (nats, asking), worker(nats, FAST):
        await asking.ask("j1")
        await asking.end("j1")
        jetstream = asking.bus.jetstream
        await jetstream.delete_stream("TG_JOBS")
        await jetstream.delete_key_value("TG_JOBS_STATE")

        async def back() -> bool:
            try:
                await jetstream.consumer_info("TG_JOBS", "workers-3")
                await jetstream.key_value("TG_JOBS_STATE")
            except NotFoundError:
                return False
            return True

        await until(back, "the worker has made them again", 20)
        await asking.ask("j2")
        assert (await asking.end("j2")).data["finish_reason"] == "stop"
