from __future__ import annotations

from pathlib import Path

import msgspec
import openai
import pytest
from openai import AsyncOpenAI

from tests.integration.openai_front.support import front
from tests.support.identity import AUTH, token
from tidegate_common.contract.jobs import Models


async def test_the_models_are_what_a_worker_says_asked_once_for_all_who_want_to_know(tmp_path: Path) -> None:
    async with front(tmp_path) as (_, worker, client):
        bus, asked = worker.bus, []

        async def tell(message: object) -> None:
            asked.append(message)
            answer = Models(models=["tides/large", "tides-small"], default="tides-small")
            await message.respond(msgspec.json.encode(answer))  # type: ignore[attr-defined]

        await bus.client.subscribe(bus.subjects.models, cb=tell)
        await bus.round_trip()
        models = [model async for model in await client.models.list()]
        assert [model.id for model in models] == ["tides-small", "tides/large"]
        assert {(model.object, model.owned_by) for model in models} == {("model", "tidegate")}
        assert (await client.models.retrieve("tides/large")).id == "tides/large"
        with pytest.raises(openai.NotFoundError) as unknown:
            await client.models.retrieve("gpt-none")
        assert unknown.value.code == "model_not_found"
        assert len(asked) == 1


async def test_whoever_may_use_some_models_hears_of_those_alone(tmp_path: Path) -> None:
    key = token("ann", jobs={"models": ["tides-small", "not-there"]})
    async with front(tmp_path, **AUTH) as (gateway, worker, _):

        async def tell(message: object) -> None:
            answer = Models(models=["tides/large", "tides-small"], default="tides/large")
            await message.respond(msgspec.json.encode(answer))  # type: ignore[attr-defined]

        await worker.bus.client.subscribe(worker.bus.subjects.models, cb=tell)
        await worker.bus.round_trip()
        async with AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0) as client:
            assert [model.id async for model in await client.models.list()] == ["tides-small"]
            assert (await client.models.retrieve("tides-small")).id == "tides-small"
            told = []
            for name in ("tides/large", "no-such"):
                with pytest.raises(openai.NotFoundError) as refused:
                    await client.models.retrieve(name)
                told.append(str(refused.value).replace(name, "it"))
            assert told[0] == told[1], "nobody is told that it is there"


async def test_without_a_worker_there_are_no_models_to_tell_of(tmp_path: Path) -> None:
    async with front(tmp_path) as (_, _, client):
        with pytest.raises(openai.InternalServerError) as refused:
            await client.models.list()
        assert (refused.value.status_code, refused.value.type) == (503, "server_error")


@pytest.mark.parametrize("answer", [b"", b"{", b'{"default":"\xff"}', b"[" * 100_000, b'{"models":5}'])
async def test_an_answer_of_somebody_elses_is_none(tmp_path: Path, answer: bytes) -> None:
    """Bytes that are no UTF-8 in it were a 500."""
    async with front(tmp_path) as (_, worker, client):

        async def tell(message: object) -> None:
            await message.respond(answer)  # type: ignore[attr-defined]

        await worker.bus.client.subscribe(worker.bus.subjects.models, cb=tell)
        await worker.bus.round_trip()
        with pytest.raises(openai.InternalServerError) as refused:
            await client.models.list()
        assert refused.value.status_code == 503
