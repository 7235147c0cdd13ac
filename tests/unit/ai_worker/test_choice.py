import subprocess
import sys

import pytest

from ai_worker.models.choice import choose
from ai_worker.settings import WorkerSettings
from tidegate_common.errors import ConfigError
from tidegate_common.runtime.environment import load


@pytest.mark.parametrize(
    ("environ", "installed", "backend"),
    [
        ({"OPENAI_BASE_URL": "http://127.0.0.1:1/v1"}, True, "openai"),
        ({"OPENAI_API_KEY": "k"}, True, "openai"),
        ({}, True, "local"),
        ({}, False, "scripted"),
        ({"TIDEGATE_AI_BACKEND": "scripted", "OPENAI_API_KEY": "k"}, True, "scripted"),
        ({"TIDEGATE_AI_BACKEND": "local", "OPENAI_API_KEY": "k"}, False, "local"),
    ],
)
def test_the_backend_is_the_best_that_is_there_unless_one_is_named(
    environ: dict[str, str], installed: bool, backend: str
) -> None:
    name, reason = choose(load(WorkerSettings, environ), lambda: "" if installed else "its engine needs libgomp1")
    assert name == backend
    assert reason


@pytest.mark.parametrize(
    "environ",
    [
        {"TIDEGATE_AI_BACKEND": "magic"},
        {"TIDEGATE_AI_BACKEND": "openai"},
        {"OPENAI_BASE_URL": "localhost:1"},
        {"TIDEGATE_AI_CONCURRENCY": "0"},
        {"TIDEGATE_SCRIPTED_TOKEN_SECONDS": "-1"},
    ],
)
def test_settings_that_make_no_sense_are_named(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as error:
        load(WorkerSettings, environ)
    assert next(iter(environ)) in error.value.faults[0]


def test_a_worker_that_asks_no_endpoint_does_not_load_openais_client() -> None:
    """It took more than half of the CPU of a start, and 60 MB."""
    program = "import sys, ai_worker.app, ai_worker.models.local; sys.exit('openai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
