"""`make check` holds the pages to the code: what stands in one alone, or with another value, is named."""

from __future__ import annotations

import pytest

from scripts.checking import files, metrics, settings
from scripts.checking.pages import pages

OPERATIONS = settings.OPERATIONS


def faults(path: str, old: str, new: str) -> list[str]:
    """What is found once `old` in one page reads `new`."""
    read = pages()
    assert old in read[path]
    read[path] = read[path].replace(old, new, 1)
    return [*settings.faults(read), *metrics.faults(read), *files.faults(read)]


@pytest.mark.parametrize(
    ("path", "old", "new", "named"),
    [
        (OPERATIONS, "| `TIDEGATE_LOG_LEVEL` | `INFO` | |\n", "", "TIDEGATE_LOG_LEVEL"),
        (OPERATIONS, "| `TIDEGATE_MAX_TOPICS` |", "| `TIDEGATE_MAX_THEMES` |", "TOPICS is missing"),
        (OPERATIONS, "| `TIDEGATE_REPLICAS` | 1 |", "| `TIDEGATE_REPLICAS` | 3 |", "default 1, not 3"),
        (OPERATIONS, "86400, 1 GiB, 100000", "86400, 1 MiB, 100000", "1073741824, not 1048576"),
        (OPERATIONS, "| `TIDEGATE_PORT` | 8002 |", "| `TIDEGATE_PORT` | 8001 |", "ai-worker: TIDEGATE_PORT"),
        (OPERATIONS, "| `TIDEGATE_READY_SECONDS` | 180 |", "| `TIDEGATE_READY_SECONDS` | 60 |", "default 180"),
        (".env", "TIDEGATE_EDGE_PORT=8080", "TIDEGATE_EDGE_PORT=80", "default 80, not 8080"),
        ("docs/security.md", "TIDEGATE_AUTH=open", "TIDEGATE_OPEN=1", "docs/security.md:"),
        ("compose.yaml", "TIDEGATE_AUTH: $", "TIDEGATE_OPEN: $", "TIDEGATE_OPEN is read by nothing"),
        (OPERATIONS, "| `tidegate_gaps_total{reason}` |", "| `tidegate_gap_total` |", "tidegate_gaps_total"),
        (
            OPERATIONS,
            "`drain`, `idle`, `max_age`, `stalled`",
            "all",
            "the reason max_age is missing",
        ),
        ("docs/ai.md", "client_token_usage", "client_tokens", "no metric gen_ai_client_tokens"),
        (
            files.ARCHITECTURE,
            "`bus/jobs/enqueue.py`",
            "`bus/jobs/queueing.py`",
            "no file bus/jobs/queueing.py",
        ),
        (files.ARCHITECTURE, "`feed/audit.py`", "`sse/audit.py`", "there is no file sse/audit.py"),
        (files.ARCHITECTURE, "budgets, enqueue,", "budgets, queueing,", "bus/jobs/: the page or the folder"),
    ],
)
def test_what_does_not_fit_is_named(path: str, old: str, new: str, named: str) -> None:
    found = faults(path, old, new)
    assert any(named in fault for fault in found), found


def test_every_kind_of_instrument_has_the_name_that_is_exposed() -> None:
    assert (
        metrics.exposed("tidegate.connections.active", "up_down_counter", "{connection}")
        == "tidegate_connections_active"
    )
    assert metrics.exposed("tidegate.gaps", "counter", "{gap}") == "tidegate_gaps_total"
    assert metrics.exposed("tidegate.delivery.duration", "histogram", "s") == "tidegate_delivery_duration_seconds"
    assert metrics.exposed("tidegate.jobs.queued", "gauge", "{job}") == "tidegate_jobs_queued"


@pytest.mark.parametrize(
    "line",
    [
        'meter.create_counter("tidegate.hidden", "{event}")',
        'signals.meter.create_observable_gauge(name="tidegate.hidden")',
        'signals.observe("counter", "tidegate.hidden", read, "{event}", "Hidden")',
    ],
)
def test_a_metric_named_where_it_is_made_is_no_way_around(line: str) -> None:
    """Only the constants of telemetry/names.py are held against docs/: another name would have passed unseen."""
    assert list(metrics.unnamed({"a.py": f"pass\n{line}"})) == [
        "a.py:2: a metric's name is a METRIC_ constant of telemetry/names.py"
    ]
    named = line.replace("name=", "").replace('"tidegate.hidden"', "names.METRIC_GAPS")
    assert not list(metrics.unnamed({"a.py": named}))


def test_a_file_that_a_docstring_names_is_one_of_its_own_library_or_service() -> None:
    """Two names of modules that had been renamed still stood in docstrings, since a file elsewhere had them."""
    read = pages()
    path = "services/gateway/src/gateway/app.py"
    for name, there in (("frame.py", True), ("test_frame.py", True), ("feed/audit.py", True), ("enqueue.py", False)):
        found = list(files.faults({**read, path: f'"""See {name}."""'}))
        assert (f"{path}:1: there is no file {name}" not in found) == there, name
