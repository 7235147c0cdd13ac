"""Every setting stands in docs/operations.md with its default, and every one that a page names is read by something."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any, get_type_hints

from msgspec import NODEFAULT
from msgspec.structs import fields

from ai_worker.settings import WorkerSettings
from gateway.settings import GatewaySettings
from publisher_api.settings import PublisherSettings
from scripts.checking.pages import ROOT, Row, named, sources, tables
from tidegate_common.runtime.environment import CommonSettings, is_secret, variable

OPERATIONS = "docs/operations.md"
ALL = "All services:"
SERVICES: dict[str, type[CommonSettings]] = {
    "Gateway:": GatewaySettings,
    "publisher-api:": PublisherSettings,
    "ai-worker:": WorkerSettings,
}
RUN = "`make run` reads these beside the services' own, and passes everything on:"
COMPOSE = "`compose.yaml` reads these from `.env`, where each is explained; a variable of the shell wins:"
NOT_SETTINGS = {
    "TIDEGATE_WORKER": "set by a gateway for its own workers",
    "TIDEGATE_REQUIRE_ALL": "read by the tests",
    "TIDEGATE_TEST_NATS": "read by the tests",
}
_NAME = re.compile(r"\b(?:TIDEGATE|OPENAI)_[A-Z0-9_]*[A-Z0-9]\b")
_UNITS = {"KiB": 10, "MiB": 20, "GiB": 30}


def faults(pages: dict[str, str]) -> Iterator[str]:
    """What does not fit, a line each."""
    documented = tables(pages[OPERATIONS])
    known = set(NOT_SETTINGS)
    common = _defaults(documented.get(ALL, []))
    read_by_services = {name: kind for kind in SERVICES.values() for name in settings(kind)}
    for title, kind in SERVICES.items():
        own = _defaults(documented.get(title, []))
        known |= secret_files(kind)
        for name, default in settings(kind).items():
            known.add(name)
            yield from _compared(name, default, {**common, **own}, title)
        for name in own.keys() - settings(kind).keys():
            yield f"{OPERATIONS}, {title} {name} is no setting of this service"
    for name in common.keys() - read_by_services.keys():
        yield f"{OPERATIONS}, {ALL} {name} is no setting of any service"
    for title, found in ((RUN, read_by_run()), (COMPOSE, read_by_compose(pages))):
        shown = _defaults(documented.get(title, []))
        known |= found.keys()
        for name, value in found.items():
            if name in shown or name not in read_by_services:
                yield from _compared(name, value, shown, title)
        for name in shown.keys() - found.keys():
            yield f"{OPERATIONS}, {title} {name} is not read there"
    for name, place in {**named(pages, _NAME), **named(sources("libs", "services", "scripts/running"), _NAME)}.items():
        if name not in known:
            yield f"{place}: {name} is read by nothing"


def settings(kind: type[CommonSettings]) -> dict[str, str]:
    """The variables of a service with their defaults, as `shown` writes them."""
    hints = get_type_hints(kind, include_extras=True)
    return {variable(field, hints[field.name]): shown(field.default) for field in fields(kind)}


def secret_files(kind: type[CommonSettings]) -> set[str]:
    """The variables that name a secret's file."""
    hints = get_type_hints(kind, include_extras=True)
    secrets = [field for field in fields(kind) if is_secret(hints[field.name])]
    return {f"{variable(field, hints[field.name])}_FILE" for field in secrets}


def read_by_run() -> dict[str, str]:
    """What `make run` reads of its environment: `environ.get(NAME) or DEFAULT`, `_port(environ, NAME, DEFAULT)`."""
    found: dict[str, str] = {}
    for path in sorted((ROOT / "scripts/running").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            values = node.values if isinstance(node, ast.BoolOp) else [node]
            call, default = values[0], values[1] if len(values) > 1 else None
            if not isinstance(call, ast.Call):
                continue
            constants = [part.value for part in call.args if isinstance(part, ast.Constant)]
            if constants and isinstance(constants[0], str) and _NAME.fullmatch(constants[0]) and _reads(call):
                value = constants[1] if len(constants) > 1 else _constant(default)
                found.setdefault(constants[0], shown(value))
    return found


def _reads(call: ast.Call) -> bool:
    return "environ" in {node.id for node in ast.walk(call) if isinstance(node, ast.Name)}


def _constant(node: ast.AST | None) -> Any:
    if isinstance(node, ast.BinOp) and isinstance(node.right, ast.Constant):
        return node.right.value  # a path below the root
    return node.value if isinstance(node, ast.Constant) else ""


def read_by_compose(pages: dict[str, str]) -> dict[str, str]:
    """What `compose.yaml` takes from its environment, with the values of `.env`."""
    lines = [line.partition("=") for line in pages[".env"].splitlines() if "=" in line and not line.startswith("#")]
    given = {name: value for name, _, value in lines}
    taken = re.findall(r"\$\{([A-Z_]+)", pages["compose.yaml"])
    return {name: given.get(name, "") for name in taken if _NAME.fullmatch(name)}


def shown(default: Any) -> str:
    """A default as the tables have it, once spelling is taken off: digits for numbers, a comma list for several."""
    if default is NODEFAULT or default is None:
        return ""
    if isinstance(default, tuple):
        return ",".join(default)
    return f"{default:g}" if isinstance(default, float) else str(default)


def _defaults(rows: list[Row]) -> dict[str, str]:
    """The default of each variable in `rows`; one row may hold several of both, with commas between them."""
    found: dict[str, str] = {}
    for names, cell in rows:
        values = cell.split(", ") if cell and len(names) > 1 else [cell] * len(names)
        for name, value in zip(names, values, strict=False):
            if _NAME.fullmatch(name):
                found[name] = _plain(value)
    return found


def _plain(cell: str) -> str:
    text = "" if cell == "none" else cell.replace("`", "")
    number, _, unit = text.partition(" ")
    if unit in _UNITS and number.isdigit():
        return str(int(number) << _UNITS[unit])
    return text.replace(", ", ",")


def _compared(name: str, default: str, shown: dict[str, str], title: str) -> Iterator[str]:
    if name not in shown:
        yield f"{OPERATIONS}, {title} {name} is missing (default {default or 'none'})"
    elif shown[name] != default:
        yield f"{OPERATIONS}, {title} {name} has the default {default or 'none'}, not {shown[name] or 'none'}"
