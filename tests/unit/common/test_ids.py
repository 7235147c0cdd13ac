import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_common.contract.ids import (
    RESERVED_EVENT_TYPES,
    EventId,
    check_event_type,
    check_name,
    is_job_id,
    keyed_id,
    new_client_id,
    new_job_id,
)
from tidegate_common.errors import InvalidField


@given(st.from_regex(r"[a-z0-9]{1,32}", fullmatch=True), st.integers(min_value=0, max_value=2**63))
def test_an_event_id_reads_back_as_it_was_written(epoch: str, sequence: int) -> None:
    assert EventId.parse(str(EventId(epoch, sequence))) == EventId(epoch, sequence)


@pytest.mark.parametrize(
    "text", ["", "12", "abc", "abc-", "-1", "abc--1", "abc-01", "ABC-1", "abc-1 ", "abc-1\n", "a.b-1"]
)
def test_what_is_no_event_id_of_ours_is_none(text: str) -> None:
    assert EventId.parse(text) is None


@pytest.mark.parametrize(
    ("words", "made"),
    [
        (("job", "k"), "9a5d4adca82fbf8d97d233d3355774ac"),
        (("chat", "key.abc", "k"), "07b34bd8c5cac861b0823703d3e79903"),
        (("again", "j1", "1.5"), "a795affdb69e2b9593b1bffb205c8713"),
        (("event", "k"), "62df9c855c83daa85891a7b81e2413ad"),
    ],
)
def test_the_id_of_a_key_is_what_earlier_releases_made_of_it(words: tuple[str, ...], made: str) -> None:
    """A job or an event is asked for again across an upgrade, and is to be found."""
    assert keyed_id(*words) == made


def test_made_ids_are_128_random_bits() -> None:
    assert len({new_client_id() for _ in range(1000)}) == 1000
    assert len(new_client_id()) == 22
    assert len(new_job_id()) == 32
    assert is_job_id(new_job_id())


def test_an_id_of_a_job_is_a_token_that_every_service_takes() -> None:
    for text in ("f" * 32, "j1", "Report_7-b", "x" * 64):
        assert is_job_id(text), text
    for text in ("", "a b", "a.b", "a*", ">", "a\n", "ö", "٣", "x" * 65, "\ud800"):
        assert not is_job_id(text), text


@pytest.mark.parametrize("name", ["", "a" * 201, "é" * 101, "a\nb", "a\x00", "a\x7f", "\ud800", "a\u2028b", "\x85"])
def test_a_name_that_could_break_a_subject_or_a_frame_is_refused_by_field(name: str) -> None:
    with pytest.raises(InvalidField) as caught:
        check_name("user_id", name)
    assert caught.value.field == "user_id"


@pytest.mark.parametrize("name", ["ann@example.org", "a b", "名前", "*", "a.b", ">", "é" * 100])
def test_any_other_text_is_a_name(name: str) -> None:
    assert check_name("user_id", name) == name


@pytest.mark.parametrize("kind", ["", "two words", "a\r", "\ud800", "x" * 129, *sorted(RESERVED_EVENT_TYPES)])
def test_an_event_type_that_a_client_could_mistake_is_refused(kind: str) -> None:
    with pytest.raises(InvalidField):
        check_event_type("event_type", kind)
