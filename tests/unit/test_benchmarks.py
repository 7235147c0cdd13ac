"""What the benchmark makes of numbers: medians of its own measuring are no use where this is wrong."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.__main__ import parse
from benchmarks.accounting import cpu_seconds, family, resident_kib, rollup_kib, stat_ticks
from benchmarks.comparison import Pairs, collect, interpreter, told
from benchmarks.figures import (
    MET,
    MISSED,
    UNKNOWN,
    Row,
    Yardstick,
    beside,
    bounded,
    held,
    missing,
    number,
    quantile,
    shown,
    table,
)
from benchmarks.profiled import summary
from benchmarks.rows.tokens import lateness


def test_user_and_system_ticks_are_found_behind_any_process_name() -> None:
    assert stat_ticks("7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 31 11 0 0 20 0 1 0 5 6 7") == 42


def test_proportional_memory_is_read_and_its_absence_is_an_error() -> None:
    assert rollup_kib("0-1 ---p 0 0:0 0 [rollup]\nRss:  90 kB\nPss:    40 kB\nPss_Dirty: 2 kB\n") == 40
    with pytest.raises(ValueError):
        rollup_kib("Rss: 90 kB\n")


def test_a_family_is_a_process_and_all_below_it(tmp_path: Path) -> None:
    for pid, children in (("1", "2 3 "), ("2", "4 "), ("3", ""), ("4", ""), ("9", "")):
        folder = tmp_path / pid / "task" / pid
        folder.mkdir(parents=True)
        (folder / "children").write_text(children)
    assert sorted(family(1, tmp_path)) == [1, 2, 3, 4]
    assert family(77, tmp_path) == []


def test_this_process_has_used_processor_and_memory() -> None:
    assert cpu_seconds([os.getpid()]) > 0
    assert resident_kib([os.getpid()]) > 1000


@pytest.mark.parametrize(
    ("value", "bar", "least", "verdict"),
    [(1.3, 1.3, False, MET), (1.301, 1.3, False, MISSED), (2500, 2500, True, MET), (2499.9, 2500, True, MISSED)],
)
def test_a_bar_is_held_to_the_number_and_not_to_its_rounding(
    value: float, bar: float, least: bool, verdict: str
) -> None:
    assert held("x", value, bar, "µs", Yardstick("one", (1,)), least=least).verdict == verdict


def test_what_is_measured_in_rounds_is_held_by_the_median_of_their_ratios() -> None:
    row = beside("x", [6, 60, 8], [5, 50, 5], 1.25, "µs", "limit", how="4/s")
    assert (row.ratio, row.verdict, row.measured, row.yardstick) == ("1.2", MET, "8 µs", "limit: 5 µs")
    assert row.how == "median of 3 rounds, 1.20 to 1.60; 4/s"


@pytest.mark.parametrize("slower", [1, 2])
def test_a_machine_that_is_slower_at_everything_meets_the_same_bars(slower: float) -> None:
    echo = Yardstick("echo", (60 * slower,))
    assert held("x", 120 * slower, 2, "µs", echo).verdict == MET
    assert held("x", 121 * slower, 2, "µs", echo).verdict == MISSED


def test_a_yardstick_is_the_mean_of_before_and_after_and_shows_both() -> None:
    echo = Yardstick("echo", (50.0, 70.0))
    row = held("x", 120, 1.9, "µs", echo)
    assert (row.ratio, row.bar, row.measured, row.yardstick) == ("2", "≤ 1.9", "120 µs", "echo: 50 → 70 µs")
    assert row.verdict == MISSED


def test_more_than_the_yardstick_can_be_asked_for() -> None:
    chats = Yardstick("direct", (500,), "chats")
    assert [held("x", value, 0.4, "chats", chats, least=True).verdict for value in (200, 199)] == [MET, MISSED]


def test_a_size_is_held_against_no_yardstick() -> None:
    assert [bounded("x", value, 3, "KiB").verdict for value in (3, 3.01)] == [MET, MISSED]
    assert bounded("x", 2.7, 3, "KiB").bar == "≤ 3 KiB"


def test_what_could_not_be_measured_counts_as_short() -> None:
    assert missing("x", "no Nchan here", "≤ 0.7").short
    assert Row("x", "1", UNKNOWN).short
    assert not Row("x", "1").short


def test_numbers_have_two_decimals_without_last_zeros_and_a_unit() -> None:
    assert [number(each) for each in (12345.6, 47.26, 1.3, 0.0456)] == ["12,346", "47.26", "1.3", "0.046"]
    assert number(3, "KiB") == "3 KiB"


def test_a_quantile_is_a_value_that_was_measured() -> None:
    assert [quantile([5.0, 1.0, 9.0], share) for share in (0, 0.5, 1)] == [1, 5, 9]


def test_a_table_has_a_line_for_each_row() -> None:
    lines = table([held("cost", 6, 1.3, "µs", Yardstick("limit", (5,)), how="run")]).splitlines()
    assert lines[2] == "| cost | ≤ 1.3 | 1.2 | 6 µs | limit: 5 µs | met | run |"


def test_a_token_is_late_against_the_pace_of_its_own_stream() -> None:
    ms = 1_000_000
    thought_then_three = [(7, 9, 0), (7, 1, 100 * ms), (7, 2, 150 * ms)]
    punctual = [(8, 9, 0), (8, 1, 500 * ms), (8, 1, 520 * ms)]
    assert lateness([*thought_then_three, *punctual], 20, before=9) == [0, 30, 10, 0, 0]


def test_a_profile_adds_up_packages_and_functions() -> None:
    seen = Counter({("nats", "nats.client:publish"): 30, ("nats", "nats.client:read"): 10, ("loop", "run"): 60})
    told = json.loads(summary(seen))
    assert told["packages"] == [["loop", 0.6], ["nats", 0.4]]
    assert told["functions"][1] == ["nats.client:publish", 0.3]


def test_an_unknown_question_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        parse(["--only", "broadcast,nonsense"])
    assert error.value.code == 2
    assert "nonsense" in capsys.readouterr().err


def test_two_checkouts_are_compared_within_each_round() -> None:
    found: dict[str, Pairs] = {}
    for other, this in ((10, 12), (100, 110), (10, 9)):
        collect(found, [shown("cost", other, "µs"), Row("x", "1")], [shown("cost", this, "µs"), shown("new", 1, "µs")])
    assert told(found).splitlines()[2:] == ["| cost | 10 | 12 | 1.1 | 0.90 to 1.20 |"]


def test_a_checkout_that_is_not_set_up_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="make setup"):
        interpreter(tmp_path)
