"""What all test processes have in common."""

import os

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# Tests talk to this machine alone. Without this, httpx would read all of its authorities' certificates for each client.
os.environ.pop("SSL_CERT_FILE", None)
os.environ["SSL_CERT_DIR"] = os.devnull

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
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    return Scheduling(config, log)
