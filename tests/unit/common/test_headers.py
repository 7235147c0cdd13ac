from tidegate_common.bus import headers

BLOCK = (
    b"NATS/1.0\r\nTidegate-Event: note\r\nNats-Msg-Id: Nats-Sequence: 7\r\n"
    b"Nats-Sequence: 1001\r\nNats-Last-Sequence: 1000\r\n\r\n"
)


def test_a_field_is_found_by_its_whole_name_at_a_line_s_start() -> None:
    assert headers.field(BLOCK, headers.SEQUENCE) == b"1001"
    assert headers.field(BLOCK, headers.EVENT_TYPE) == b"note"


def test_a_missing_field_and_a_missing_block_are_none() -> None:
    assert headers.field(BLOCK, headers.TRACE_PARENT) is None
    assert headers.field(b"", headers.SEQUENCE) is None


def test_the_status_of_a_control_message_is_read_and_others_have_none() -> None:
    assert headers.status(b"NATS/1.0 204 EOB\r\nNats-Num-Pending: 0\r\n\r\n") == 204
    assert headers.status(b"NATS/1.0 404\r\n\r\n") == 404
    assert headers.status(BLOCK) is None
