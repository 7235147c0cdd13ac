"""The trace context of a caller: all of it is theirs, so it is bounded before it goes any further."""

from hypothesis import given
from hypothesis import strategies as st

from tidegate_common.telemetry.propagation import LONG_MEMBER, STATE_CHARACTERS, bounded, caller, extract, inject

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@given(st.lists(st.text("ab=,", max_size=200) | st.just("x" * 300), max_size=40).map(",".join))
def test_a_tracestate_keeps_whole_members_from_the_left_and_no_more_than_has_to_be_kept(state: str) -> None:
    kept = bounded(state)
    assert len(kept) <= max(STATE_CHARACTERS, 0)
    if len(state) <= STATE_CHARACTERS:
        assert kept == state
    else:
        short = [member for member in state.split(",") if len(member) <= LONG_MEMBER]
        assert kept.split(",") == short[: len(kept.split(","))] or not kept


def test_what_goes_on_to_nats_is_bounded_whoever_has_read_it() -> None:
    """A `tracestate` of 5 kB made a message too large for NATS that was not too large itself."""
    state = ",".join(f"vendor{number}={'x' * 90}" for number in range(30))
    headers = {"traceparent": PARENT, "tracestate": state, "baggage": "b=" + "x" * 5000}
    for context in (extract(headers), caller(headers)):
        carrier: dict[str, str] = {}
        inject(carrier, context)
        assert carrier == {"traceparent": PARENT, "tracestate": bounded(state)}
        assert state.startswith(carrier["tracestate"])
    assert 400 < len(bounded(state)) <= 512
