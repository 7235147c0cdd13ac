"""Every metric stands in docs/operations.md under the name that /metrics shows, and no page names another one."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry, generate_latest

from gateway.hub.endings import Ending
from scripts.checking.pages import named, sources, tables
from tidegate_common.telemetry import names

OPERATIONS = "docs/operations.md"
ENDED = "tidegate_connections_closed_total"
PACKAGES = {"tidegate_common", "tidegate_client"}
_NAME = re.compile(r"(?<![./\w-])(?:tidegate|gen_ai)_[a-z0-9_]+\b")
_MAKES = re.compile(r"create_(?:observable_)?(?:counter|up_down_counter|histogram|gauge)")
_KINDS = {"counter": "counter", "gauge": "gauge", "updown": "up_down_counter"}


class Metric(NamedTuple):
    """One instrument that the code makes: `kind` as in the meter's `create_<kind>`."""

    constant: str
    kind: str
    unit: str
    place: str


def faults(pages: dict[str, str]) -> Iterator[str]:
    """What does not fit, a line each."""
    rows = [row for table in tables(pages[OPERATIONS]).values() for row in table]
    documented = {name for row in rows for name in row.names}
    known: set[str] = set()
    used: set[str] = set()
    for metric in made():
        used.add(metric.constant)
        name = exposed(getattr(names, metric.constant), metric.kind, metric.unit)
        known.add(name)
        if name not in documented:
            yield f"{metric.place}: {name} is in no table of {OPERATIONS}"
    yield from unnamed(sources("libs", "services"))
    for constant in sorted(name for name in vars(names) if name.startswith("METRIC_")):
        if constant not in used:
            yield f"telemetry/names.py: nothing makes a metric of {constant}"
    ended = next((row.value for row in rows if ENDED in row.names), "")
    for reason in (ending.reason for ending in Ending if ending is not Ending.REFUSED):
        if f"`{reason}`" not in ended:
            yield f"{OPERATIONS}, {ENDED}: the reason {reason} is missing"
    for name, place in named(pages, _NAME).items():
        if name not in known | PACKAGES:
            yield f"{place}: there is no metric {name}"


def made() -> Iterator[Metric]:
    """Every instrument that a service or the library makes, found in the code."""
    for path, call in _calls(sources("libs", "services")):
        metric = _metric(call, path)
        if metric:
            yield metric


def unnamed(code: dict[str, str]) -> Iterator[str]:
    """Instruments whose name stands where they are made: nothing would hold that against docs/."""
    for path, call in _calls(code):
        method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
        first = next((part.value for part in call.args if isinstance(part, ast.Constant)), None)
        makes = _MAKES.fullmatch(method) or (method == "observe" and first in _KINDS)
        if makes and not any(_constant_name(part) for part in call.args):
            yield f"{path}:{call.lineno}: a metric's name is a METRIC_ constant of telemetry/names.py"


def _calls(code: dict[str, str]) -> Iterator[tuple[str, ast.Call]]:
    for path, text in code.items():
        for call in _calls_in(text):
            yield path, call


@cache
def _calls_in(text: str) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]


def _metric(call: ast.Call, path: str) -> Metric | None:
    at = next((i for i, part in enumerate(call.args) if _constant_name(part)), None)
    if at is None:
        return None
    texts = [part.value for part in call.args if isinstance(part, ast.Constant) and isinstance(part.value, str)]
    if at and texts and texts[0] in _KINDS:  # Telemetry.observe: kind, name, read, unit, text
        return Metric(_constant_name(call.args[at]), _KINDS[texts[0]], texts[1], f"{path}:{call.lineno}")
    method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    if not method.startswith("create_"):
        return None
    named = {word.arg: word.value for word in call.keywords}
    unit = named.get("unit", call.args[1] if len(call.args) > 1 else None)
    text = unit.value if isinstance(unit, ast.Constant) and isinstance(unit.value, str) else ""
    kind = method.removeprefix("create_").removeprefix("observable_")
    return Metric(_constant_name(call.args[at]), kind, text, f"{path}:{call.lineno}")


def _constant_name(node: ast.expr) -> str:
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    return name if name.startswith("METRIC_") else ""


def exposed(name: str, kind: str, unit: str) -> str:
    """The name on /metrics, by making such an instrument and looking."""
    registry = CollectorRegistry()
    provider = MeterProvider(metric_readers=[PrometheusMetricReader(disable_target_info=True, registry=registry)])
    instrument = getattr(provider.get_meter("check"), f"create_{kind}")(name, unit=unit)
    getattr(instrument, {"gauge": "set", "histogram": "record"}.get(kind, "add"))(1)
    text = generate_latest(registry).decode()
    provider.shutdown()
    return next(line.split()[2] for line in text.splitlines() if line.startswith("# TYPE"))
