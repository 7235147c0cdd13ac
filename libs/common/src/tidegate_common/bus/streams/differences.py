"""In what a stream differs from what it should be, field by field, and whether that can be changed. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

Config = Mapping[str, Any]
"""A stream's configuration as JetStream's API has it (times in nanoseconds)."""

USUAL: dict[str, Any] = {
    "retention": "limits",
    "max_consumers": -1,
    "max_msgs": -1,
    "max_bytes": -1,
    "max_age": 0,
    "max_msgs_per_subject": -1,
    "max_msg_size": -1,
    "discard": "old",
    "discard_new_per_subject": False,
    "storage": "file",
    "num_replicas": 1,
    "no_ack": False,
    "mirror": None,
    "sources": None,
    "sealed": False,
    "deny_delete": False,
    "deny_purge": False,
    "allow_rollup_hdrs": False,
    "allow_direct": False,
    "allow_msg_ttl": False,
    "allow_msg_counter": False,
    "subject_transform": None,
    "republish": None,
    "subject_delete_marker_ttl": 0,
    "persist_mode": None,
}
"""What a field is if nobody says otherwise. What is not here (descriptions, metadata, placement, compression) is the
operator's own."""

KEPT = frozenset({"max_age", "max_bytes", "max_msgs", "max_msgs_per_subject", "num_replicas", "duplicate_window"})
"""How much is kept, and how often: the settings say it, to publisher-api alone, and any value works."""

_LASTING = frozenset({"storage", "retention", "mirror", "sources", "sealed", "max_consumers", "persist_mode"})
"""JetStream changes these for no stream, or makes another stream of it."""

_NEVER_AGAIN = frozenset({"deny_delete", "deny_purge", "allow_msg_ttl", "allow_msg_counter"})
"""Once on, these stay."""

_TIMES = frozenset({"max_age", "duplicate_window", "subject_delete_marker_ttl"})

_COUNTS = frozenset({"max_consumers", "max_msgs", "max_bytes", "max_msgs_per_subject", "max_msg_size"})
"""0 and -1 mean the same: no limit."""


class Difference(NamedTuple):
    """One field: what it is, and what it should be."""

    field: str
    found: Any
    wanted: Any

    @property
    def fixed(self) -> bool:
        """Whether it can't be changed on the stream that there is."""
        return self.field in _LASTING or (self.field in _NEVER_AGAIN and bool(self.found))

    @property
    def of_what_is_kept(self) -> bool:
        return self.field in KEPT

    def __str__(self) -> str:
        return f"{self.field} is {self._shown(self.found)}, not {self._shown(self.wanted)}"

    def _shown(self, value: Any) -> str:
        if self.field in _TIMES and value:
            return f"{value / 1e9:g} s"
        if self.field in _COUNTS and value == -1:
            return "without a limit"
        if self.field == "republish" and value:
            return f"from {value.get('src') or '>'} to {value.get('dest')}"
        if isinstance(value, list):
            return ", ".join(str(each.get("name", each)) if isinstance(each, dict) else str(each) for each in value)
        if isinstance(value, dict):
            return str(value.get("name") or value)
        if isinstance(value, bool):
            return "on" if value else "off"
        return "none" if value is None else str(value)


def differences(wanted: Config, found: Config) -> list[Difference]:
    """Where `found` is not as `wanted`, in which what is missing is meant to be as usual."""
    wanted = {**USUAL, **wanted}
    return [
        Difference(field, found.get(field, USUAL.get(field)), value)
        for field, value in wanted.items()
        if field != "name" and _plain(field, found.get(field, USUAL.get(field))) != _plain(field, value)
    ]


def _plain(field: str, value: Any) -> Any:
    if field in _COUNTS and (value is None or value <= 0):
        return -1
    if field in ("mirror", "sources", "republish", "subject_transform") and not value:
        return None
    if field == "republish":
        return value.get("src") or ">", value.get("dest"), bool(value.get("headers_only"))
    if field == "persist_mode" and value == "default":
        return None
    if field == "subjects":
        return sorted(value or ())
    return value
