"""`python -m benchmarks.refetching`: a gateway that fetches its JWKS each second, not every 300 s."""

from __future__ import annotations

from functools import partial

from gateway.__main__ import start
from gateway.settings import GatewaySettings
from tidegate_common.auth import authenticator
from tidegate_common.auth.jwks import Jwks
from tidegate_common.runtime.process import run

EVERY_SECONDS = 1.0

if __name__ == "__main__":
    vars(authenticator)["Jwks"] = partial(Jwks, every_seconds=EVERY_SECONDS)
    run("gateway", GatewaySettings, start)
