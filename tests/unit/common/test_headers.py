from tidegate_common.bus.wire import headers

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


def test_a_block_that_is_written_is_read_as_it_was() -> None:
    block = headers.block({"Tidegate-Event": "grüße", "traceparent": ""})
    assert block.startswith(b"NATS/1.0\r\n")
    assert block.endswith(b"\r\n\r\n")
    assert headers.field(block, headers.EVENT_TYPE) == "grüße".encode()
    assert headers.field(block, headers.TRACE_PARENT) == b""


def test_no_value_ends_its_line_and_makes_a_field_of_its_own() -> None:
    for end in ("\r\n", "\n", "\r"):
        block = headers.block({"tracestate": f"a=b{end}Nats-Sequence: 7{end}{end}", "x": "y"})
        assert headers.field(block, headers.SEQUENCE) is None
        assert len(block.split(b"\n")) == len(block.split(b"\r")) == 5
