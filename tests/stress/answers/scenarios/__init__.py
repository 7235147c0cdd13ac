"""What is done to the answers, by the scenario's name."""

from __future__ import annotations

from typing import NamedTuple

from tests.stress.answers.scenarios import cancels, completions, crashes, leaving, queueing, relaying, watching
from tests.stress.answers.world import Run


class AiScenario(NamedTuple):
    """`run` gets the world without a job yet, and the seconds that it has. `env` is for all services."""

    run: Run
    env: dict[str, str] = {}  # noqa: RUF012  # never changed


AI_SCENARIOS = {
    "ai_crash": AiScenario(crashes.crash),
    "ai_continue": AiScenario(crashes.go_on, crashes.CONTINUING),
    "ai_attempts": AiScenario(crashes.attempts, crashes.FEW_ATTEMPTS),
    "ai_watch": AiScenario(watching.watch),
    "ai_cancel": AiScenario(cancels.cancel),
    "ai_leave": AiScenario(leaving.leave, leaving.UNHURRIED),
    "ai_queue": AiScenario(queueing.queue, queueing.BOUNDED),
    "ai_shares": AiScenario(queueing.shares),
    "ai_relay": AiScenario(relaying.relay),
    "ai_completions": AiScenario(completions.complete),
}
