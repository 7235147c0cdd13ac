"""What all test processes have in common."""

import os
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# Tests talk to this machine alone. Without this, httpx would read all of its authorities' certificates for each client.
os.environ.pop("SSL_CERT_FILE", None)
os.environ["SSL_CERT_DIR"] = os.devnull

# How long an example takes depends on what else runs: as for other tests, there is the limit of the whole test.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

PROCESSES = 8

WHOLE = (
    "tests/e2e/test_console.py",  # one browser and one stack for all
    "tests/e2e/test_console_page.py",
    "tests/integration/ai_worker/test_local_model.py",  # the model takes memory and cores
)
"""Modules whose tests one test process runs, one after another."""


class Scheduling(LoadScopeScheduling):
    """Each test goes to whichever process is free, but for the modules that go as a whole, which begin first."""

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        return module if module in WHOLE else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Of `-n auto`. Tests wait more than they compute, so that each of two cores has work for four of them.

    One by one is sooner if single files are asked for: eight processes take ten seconds to read all tests.
    """
    single = all(Path(arg.partition("::")[0]).is_file() for arg in config.args)
    return 0 if single else PROCESSES


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    return Scheduling(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Several processes get the tests of each folder evenly spread: else all browsers and stacks would start at once.

    Unit tests, which are the shortest, come last as well, so that no process ends long after the others.
    """
    if not hasattr(config, "workerinput"):
        return
    folders = defaultdict[Path, list[pytest.Item]](list)
    for item in items:
        folders[item.path.parent].append(item)
    places = {}
    for folder, tests in folders.items():
        share = 1.0 if "unit" in folder.parts else 0.8
        places.update({item: share * number / len(tests) for number, item in enumerate(tests)})
    items.sort(key=lambda item: places[item])
