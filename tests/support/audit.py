"""The audit log's lines, as they are written."""

from __future__ import annotations

import json
import logging
from typing import Any

from tidegate_common.telemetry.logging import AUDIT


class Lines(logging.Handler):
    """Hears the log of this process while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.records = 0
        self.text = ""

    @property
    def all(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]

    def emit(self, record: logging.LogRecord) -> None:
        self.records += 1
        self.text += record.getMessage() + "\n"

    def __enter__(self) -> Lines:
        log = logging.getLogger(AUDIT)
        self._level = log.level
        log.setLevel("INFO")
        log.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        log = logging.getLogger(AUDIT)
        log.removeHandler(self)
        log.setLevel(self._level)
