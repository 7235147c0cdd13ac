"""What a token's or key's rights make of a job."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_worker.handlers.transform import passages
from tidegate_common.bus.jobs.rights import allowed, tokens_of
from tidegate_common.contract.jobs import Job, passage_characters
from tidegate_common.contract.principal import OPEN, JobRights, Principal
from tidegate_common.errors import Forbidden, InvalidField, Unauthenticated

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "x" * 400}], "model": "small"}


def ann(**rights: Any) -> Principal:
    return Principal("user:ann", subject="ann", jobs=JobRights(**rights))


def job(most: int | None = None, **params: Any) -> Job:
    return Job(job_id="j", kind="chat", tail="job.j", params={**CHAT, **params}, created=1, max_tokens=most)


def test_nothing_is_changed_where_nobody_is_asked() -> None:
    assert allowed(OPEN, "chat", CHAT) == (CHAT, JobRights())


def test_who_may_have_no_jobs_is_told_which_right_is_missing() -> None:
    with pytest.raises(Forbidden) as refused:
        allowed(Principal("user:ann", subject="ann"), "chat", CHAT)
    assert refused.value.needed == "jobs"
    with pytest.raises(Unauthenticated) as asked:
        allowed(Principal("anonymous"), "chat", CHAT)
    assert (asked.value.reason, asked.value.needed) == ("missing", "jobs")


def test_kinds_and_models_have_to_be_among_those_that_are_granted() -> None:
    with pytest.raises(Forbidden) as refused:
        allowed(ann(kinds=("transform",)), "chat", CHAT)
    assert refused.value.needed == "jobs kind chat"
    with pytest.raises(Forbidden) as refused:
        allowed(ann(models=("tiny", "smal")), "chat", CHAT)
    assert refused.value.needed == "jobs model small"
    assert allowed(ann(kinds=("chat",), models=("small",)), "chat", CHAT)[0] == CHAT


@pytest.mark.parametrize("kind", ["chat", "transform"])
def test_a_job_that_names_no_model_would_get_the_workers_own(kind: str) -> None:
    with pytest.raises(InvalidField, match="model: one of those that you may use: small, tiny"):
        allowed(ann(models=("small", "tiny")), kind, {})
    assert allowed(ann(models=("small",)), "image.progressive", {})[0] == {}


def test_a_kind_that_is_not_known_here_names_no_model_that_is_not_granted() -> None:
    with pytest.raises(Forbidden):
        allowed(ann(models=("small",)), "summary", {"model": "large"})


def test_the_limit_of_a_token_is_sent_with_a_chat_that_names_none() -> None:
    assert allowed(ann(max_tokens=512), "chat", CHAT)[0] == {**CHAT, "max_tokens": 512}
    asked = {**CHAT, "max_tokens": 100}
    assert allowed(ann(max_tokens=512), "chat", asked)[0] == asked
    with pytest.raises(Forbidden) as refused:
        allowed(ann(max_tokens=512), "chat", {**CHAT, "max_tokens": 513})
    assert refused.value.needed == "jobs max_tokens 513"


def test_a_chat_reserves_its_prompt_and_each_of_its_answers() -> None:
    prompt = tokens_of(job()).all
    assert 100 <= prompt <= 130
    assert tokens_of(job(512, n=3)) == (prompt, 3 * 512)
    assert tokens_of(job(512, max_tokens=10)).all == prompt + 10


def test_a_transform_reserves_each_of_its_passages() -> None:
    params = {"text": "x" * 3_000, "instruction": "y" * 40}
    one = Job(job_id="j", kind="transform", tail="job.j", params=params, created=1, max_tokens=750)
    found = tokens_of(one)
    assert found.answers == 750 * (3_000 // 375 + 1)
    assert found.prompt > 3_000 // 4 + 9 * 10


@given(text=st.text(alphabet="a .\n", max_size=4_000), max_tokens=st.integers(1, 2_000))
def test_a_transform_has_no_more_passages_than_were_reserved(text: str, max_tokens: int) -> None:
    one = Job(job_id="j", kind="transform", tail="job.j", params={"text": text}, created=1, max_tokens=max_tokens)
    assert len(passages(text, passage_characters(max_tokens))) * max_tokens <= tokens_of(one).answers


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 600),
    st.floats(),
    st.text(max_size=3),
    st.lists(st.integers(), max_size=2),
)


@given(wanted=ANYTHING, n=ANYTHING)
def test_nobody_reserves_less_than_a_worker_may_use(wanted: Any, n: Any) -> None:
    """`/api/ai/jobs` takes the parameters of a chat as they are: the worker alone reads them."""
    try:
        params, _ = allowed(ann(max_tokens=500), "chat", {**CHAT, "max_tokens": wanted, "n": n})
    except Forbidden:
        assert wanted > 500
        return
    # What a worker takes: whole numbers, from 1 on, and up to eight answers.
    each = wanted if isinstance(wanted, (int, float)) and wanted == wanted and 1 <= wanted <= 500 else 500
    answers = n if isinstance(n, (int, float)) and n in range(1, 9) else 1
    assert tokens_of(job(500, **params)).answers >= int(each) * answers
