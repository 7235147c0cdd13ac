from tidegate_common.bus.wire.limits import NO_MORE, SPARE_SUBSCRIPTIONS, ConnectionLimits


def test_subscriptions_that_can_be_done_without_leave_room_for_the_others() -> None:
    limits = ConnectionLimits()
    assert limits.refusal(10, 1_000_000, spare=True) == ""
    limits.found(1000)
    assert limits.refusal(10, 999 - SPARE_SUBSCRIPTIONS, spare=True) == ""
    assert limits.refusal(10, 1000 - SPARE_SUBSCRIPTIONS, spare=True) == NO_MORE
    assert limits.refusal(10, 999, spare=False) == ""
    assert limits.refusal(10, 1000, spare=False) == NO_MORE


def test_what_a_server_takes_holds_for_the_next_connection_and_not_for_the_one_after_it() -> None:
    """The next one is made because of what was found: its subscriptions are asked for within that."""
    limits = ConnectionLimits()
    limits.found(100)
    limits.opened()
    assert limits.refusal(10, 100, spare=False) == NO_MORE
    limits.opened()
    assert limits.refusal(10, 100, spare=False) == ""


def test_of_the_lines_that_were_sent_the_longest_was_too_long() -> None:
    limits = ConnectionLimits()
    for size in (100, 400, 200):
        limits.sent(size)
    limits.line_refused()
    assert limits.refusal(399, 0, spare=False) == ""
    assert "max_control_line" in limits.refusal(400, 0, spare=False)
    limits.opened()
    assert "max_control_line" in limits.refusal(400, 0, spare=False), "it is so on every server"
