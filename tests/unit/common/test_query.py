"""How much of a query is read."""

from __future__ import annotations

import pytest

from gateway.sse.request import Fields, Listener, of_query
from tests.support.counting import calls
from tidegate_common.auth.client_ids import ClientIds
from tidegate_common.contract.principal import OPEN
from tidegate_common.errors import InvalidField
from tidegate_common.runtime.query import MOST_PARAMETERS, Ignored, read_query

IGNORED = Ignored()
ANYBODY = Listener(OPEN, ClientIds())


@pytest.mark.parametrize("parameter", [b"a", b"_=1", b"topic=a", b"%41", b""])
def test_thousands_of_parameters_are_refused_before_they_are_read(parameter: bytes) -> None:
    """A head holds 16,000 of them: 10 ms in which no event was delivered, whatever the answer was."""
    query = b"&".join([parameter] * 8_000)

    def read() -> None:
        with pytest.raises(InvalidField, match="at most 200 parameters"):
            of_query(query, Fields.of([]), ANYBODY, 100, IGNORED)

    assert calls(read) < 1_000


def test_as_many_as_may_be_are_read() -> None:
    read_query(b"&".join([b"_=1"] * MOST_PARAMETERS), (), IGNORED)
    with pytest.raises(InvalidField, match="at most 100 parameters"):
        read_query(b"&".join([b"_=1"] * (MOST_PARAMETERS + 1)), (), IGNORED)
    query = b"&".join(b"topic=t%d" % number for number in range(150)) + b"&_=1"
    assert len(of_query(query, Fields.of([]), ANYBODY, 150, IGNORED).tails) == 152
