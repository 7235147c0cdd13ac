"""What a watcher of one job saw, against what the job had to answer. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import takewhile

from tests.stress.ledger import Verdict
from tests.stress.wire import Frame

WHOLE = frozenset({"stop", "length"})
"""How an answer ends that is all there."""

THOUGHTS = 2
"""Events of thinking that come before an answer."""


@dataclass
class Wanted:
    """A job that was accepted. `ends`: how it may end, by its finish reason or its error's code."""

    job_id: str
    text: str
    ends: frozenset[str] = WHOLE
    goes_on: bool = False
    """Its model goes on from what an earlier attempt has shown: no text is taken back."""


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

    @property
    def restarts(self) -> int:
        return sum(frame.event == "ai_restart" for frame in self.frames)

    @property
    def shown(self) -> int:
        """Events with text since the last restart."""
        latest = takewhile(lambda frame: frame.event != "ai_restart", reversed(self.frames))
        return sum(frame.event == "ai_response" for frame in latest)


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
            if wanted.goes_on and text:
                problems.append(f"job {wanted.job_id}: {text!r} was taken back")
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
    problems += _end(wanted, end, text) if ended else [f"job {wanted.job_id}: no end was seen"]
    return verdict, problems


def _end(wanted: Wanted, end: dict[str, object], text: str) -> list[str]:
    """What is wrong with how the job ended."""
    reason = str(end.get("finish_reason") or end.get("code"))
    if reason not in wanted.ends:
        return [f"job {wanted.job_id}: ended with {reason}: {end.get('message', '')}"]
    if not (text == wanted.text if reason in WHOLE else wanted.text.startswith(text)):
        return [f"job {wanted.job_id}: {text!r} is not {wanted.text[: len(text) + 9]!r}"]
    usage = end.get("usage")
    used = int(usage.get("completion_tokens", 0)) if isinstance(usage, dict) else 0
    # A character is a token; of what an earlier attempt has shown an event counts as one, a thought too.
    if reason in WHOLE and not (used == len(text) or (wanted.goes_on and 0 < used <= len(text) + THOUGHTS)):
        return [f"job {wanted.job_id}: {used} tokens are told for {len(text)}"]
    if reason == "cancelled" and text and not used:
        return [f"job {wanted.job_id}: no usage is told for {text!r}"]
    return []
