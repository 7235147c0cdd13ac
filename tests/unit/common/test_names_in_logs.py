"""No log line names a client, a user or a topic: not in a subject either."""

import pytest
from pythonjsonlogger.json import JsonFormatter

from tidegate_common.bus.unusable import HANDLER, SUBJECT, Unusable
from tidegate_common.bus.wire.connection_log import ConnectionLog
from tidegate_common.bus.wire.server_errors import ServerError

FORMAT = JsonFormatter("%(message)s")

SUBJECTS = ["tg.out.client.ann", "tg.in.user.ann", "tg.out.topic.ann.x", "tg.out.job.ann", "tg.jobs.chat.1.user.ann"]


@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_message_that_is_dropped_is_told_without_its_name(caplog: pytest.LogCaptureFixture, subject: str) -> None:
    unusable = Unusable()
    unusable.add(HANDLER, subject.encode())
    try:
        (subject.encode() + b"\xff").decode()
    except UnicodeDecodeError as error:
        unusable.add(SUBJECT, subject.encode() + b"\xff", error)
    lines = [FORMAT.format(record) for record in caplog.records]
    assert len(lines) == 2
    assert all(".>" in line and "ann" not in line for line in lines), lines


@pytest.mark.parametrize("subject", SUBJECTS)
def test_what_nats_denies_is_told_without_its_name(caplog: pytest.LogCaptureFixture, subject: str) -> None:
    said = ConnectionLog(1).said
    said(ServerError(f'Permissions Violation for Publish to "{subject}"'))
    said(ServerError('Permissions Violation for Publish to "$JS.API.STREAM.INFO.TG_EVENTS"'))
    assert "ann" not in caplog.text
    assert ".>" in caplog.messages[0]
    assert "$JS.API.STREAM.INFO.TG_EVENTS" in caplog.messages[1]
