import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher_api.bodies import CHAT_BODY, LINE, SEND_BODY, chat_of, event_of, line_target_of, target_of, text_of
from tidegate_common.errors import InvalidField

texts = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=10,
)


@given(texts)
def test_a_string_is_sent_as_it_is(text: str) -> None:
    assert text_of(msgspec.Raw(json.dumps(text).encode())) == text


@given(values.filter(lambda value: not isinstance(value, str)), st.sampled_from([None, 2]))
def test_anything_else_is_sent_as_compact_json_of_the_same_value(value: object, indent: int | None) -> None:
    text = text_of(msgspec.Raw(json.dumps(value, indent=indent).encode()))
    assert json.loads(text) == value
    assert "\n" not in text


def test_numbers_and_the_order_of_keys_stay_as_they_were_written() -> None:
    raw = msgspec.Raw(b'{ "b": 1.00, "a": 123456789012345678901234567890, "b2": 1e400 }')
    assert text_of(raw) == '{"b":1.00,"a":123456789012345678901234567890,"b2":1e400}'


EVENT = '"event_type":"note","data":1'


@pytest.mark.parametrize(
    ("body", "tail"),
    [
        ('{"client_id":"a",%s}', "client.a"),
        ('{"user_id":"ann@example.org",%s}', "user.ann%40example%2Eorg"),
        ('{"topic":"prices.eur",%s}', "topic.prices.eur"),
    ],
)
def test_each_target_has_its_tail(body: str, tail: str) -> None:
    assert target_of(SEND_BODY.decode(body % EVENT)).tail == tail


@pytest.mark.parametrize("targets", ["", '"client_id":"a","topic":"t",', '"client_id":"a","user_id":"u",'])
def test_no_target_and_two_targets_are_refused(targets: str) -> None:
    with pytest.raises(InvalidField, match="exactly one of client_id, user_id and topic"):
        target_of(SEND_BODY.decode("{%s%s}" % (targets, EVENT)))


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ('"event_type":"connected","data":1', "event_type"),
        ('"event_type":"a b","data":1', "event_type"),
        ('"event_type":"a","data":1,"durable":false,"ttl":5', "ttl"),
        ('"event_type":"a","data":1,"ttl":101', "ttl"),
    ],
)
def test_an_event_that_can_t_be_delivered_as_asked_names_its_field(fields: str, field: str) -> None:
    with pytest.raises(InvalidField) as caught:
        event_of(SEND_BODY.decode('{"client_id":"a",%s}' % fields), 100)
    assert caught.value.field == field


def test_a_line_is_a_send_or_a_broadcast() -> None:
    assert line_target_of(LINE.decode('{"broadcast":true,%s}' % EVENT)).tail == "broadcast"
    assert line_target_of(LINE.decode('{"client_id":"a",%s}' % EVENT)) == ("client.a", "client:a")
    with pytest.raises(InvalidField, match="broadcast"):
        line_target_of(LINE.decode('{"broadcast":true,"client_id":"a",%s}' % EVENT))


def test_a_prompt_is_one_message_of_the_user() -> None:
    params = chat_of(CHAT_BODY.decode('{"client_id":"a","prompt":"hi","temperature":0.5}'))
    assert msgspec.to_builtins(params.messages) == [{"role": "user", "content": "hi"}]
    assert params.temperature == 0.5


@pytest.mark.parametrize("body", ['{"client_id":"a"}', '{"prompt":"a","messages":[{"role":"user","content":"b"}]}'])
def test_a_chat_has_a_prompt_or_messages(body: str) -> None:
    with pytest.raises(InvalidField, match="exactly one of prompt and messages"):
        chat_of(CHAT_BODY.decode(body))
