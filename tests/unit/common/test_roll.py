from tidegate_common.bus.requests.roll import DOUBT_SECONDS, LEARN_SECONDS, SILENCE_SECONDS, LiveGateways
from tidegate_common.contract.gateways import Announcement


def test_a_gateway_that_says_nothing_for_some_time_is_forgotten() -> None:
    now = [0.0]
    live = LiveGateways(lambda: now[0])
    live.said(Announcement("a"))
    live.said(Announcement("b"))
    now[0] = SILENCE_SECONDS - 0.1
    live.said(Announcement("b"))
    assert live.now() == {"a", "b"}
    now[0] = SILENCE_SECONDS + 0.1
    assert live.now() == {"b"}


def test_all_gateways_are_known_once_each_has_had_the_time_to_announce_itself() -> None:
    now = [0.0]
    live = LiveGateways(lambda: now[0])
    assert (live.known,) == (False,)
    now[0] = LEARN_SECONDS
    assert (live.known,) == (True,)
    live.said(Announcement("a"))
    live.start_anew()
    assert (live.known, live.now()) == (False, set())


def test_a_gateway_that_falls_silent_is_doubted_for_a_while_and_one_that_leaves_is_not() -> None:
    now = [0.0]
    live = LiveGateways(lambda: now[0])
    assert (live.doubted,) == (True,)  # there may be one that was silent all the while
    now[0] = DOUBT_SECONDS
    live.said(Announcement("killed"))
    live.said(Announcement("stopped"))
    assert (live.doubted,) == (False,)
    live.said(Announcement("stopped", leaving=True))
    assert (live.now(), live.left, live.doubted) == ({"killed"}, {"stopped"}, False)
    now[0] += SILENCE_SECONDS
    assert (live.now(), live.doubted) == (set(), True)
    now[0] += DOUBT_SECONDS - SILENCE_SECONDS
    assert (live.doubted,) == (False,)
