"""Packs the JavaScript client, whose source is clients/js/src, into the wheel: the console runs on it.

An editable install serves the source's folder itself (sse/console.py) and packs nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ClientHook(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version != "editable":
            source = Path(self.root).parents[1] / "clients" / "js" / "src"
            build_data["force_include"][str(source)] = "gateway/console/client"
