"""What a watcher of one job saw, against what the job had to answer. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from tests.stress.ledger import Verdict
from tests.stress.wire import Frame


@dataclass
class Wanted:
    """A job that was accepted. `cancelled` where somebody asked for its end; `hurried` where it has a deadline."""

    job_id: str
    text: str
    cancelled: bool = False
    hurried: bool = False


@dataclass
class Seen:
    """The events that one watcher got, over all its connections, in the order in which they came."""

    wanted: Wanted
    frames: list[Frame] = field(default_factory=list)
    gaps: int = 0

    @property
    def over(self) -> bool:
        """The job's last event was among them."""
        return any(_data(frame).get("done") for frame in self.frames[-1:])


def _data(frame: Frame) -> dict[str, object]:
    found: dict[str, object] = json.loads(frame.data)
    return found


def judge(seen: Seen) -> tuple[Verdict, list[str]]:
    """Counts of events, and what is wrong in words. A gap excuses nothing."""
    verdict = Verdict(delivered=len(seen.frames), gaps=seen.gaps, surprises=seen.gaps)
    problems: list[str] = []
    wanted = seen.wanted
    text, index, last_id, ended = "", 0, 0, False
    ids: set[str] = set()
    end: dict[str, object] = {}
    for frame in seen.frames:
        data = _data(frame)
        verdict.foreign += ended or data.get("job_id") != wanted.job_id
        if frame.id is not None:
            sequence = int(frame.id.rpartition("-")[2])
            verdict.duplicated += frame.id in ids
            verdict.disordered += frame.id not in ids and sequence < last_id
            ids.add(frame.id)
            last_id = max(last_id, sequence)
        if frame.event == "ai_restart":
            text, index = "", 0
            continue
        if frame.event in ("ai_response", "ai_reasoning"):
            found = int(str(data["index"]))
            verdict.lost += max(0, found - index)
            verdict.duplicated += found < index
            index = found + 1
            text += str(data["content"]) if frame.event == "ai_response" else ""
        if data.get("done"):
            ended, end = True, data
    problems += _end(wanted, ended, end, text)
    return verdict, problems


def _end(wanted: Wanted, ended: bool, end: dict[str, object], text: str) -> list[str]:
    """What is wrong with how the job ended."""
    if not ended:
        return [f"job {wanted.job_id}: no end was seen"]
    reason = end.get("finish_reason") or end.get("code")
    if reason == "cancelled" and wanted.cancelled:
        return [] if wanted.text.startswith(text) else [f"job {wanted.job_id}: cancelled with another text: {text!r}"]
    if reason == "timeout" and wanted.hurried:
        return []
    if reason not in ("stop", "length"):
        return [f"job {wanted.job_id}: ended with {reason}: {end.get('message', '')}"]
    return [] if text == wanted.text else [f"job {wanted.job_id}: {text!r} is not {wanted.text!r}"]
