"""What it costs to ask who somebody is: a stream with a token, a send with a key, a refusal, a JWKS that is fetched."""

from __future__ import annotations

import json
import secrets
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from hashlib import sha256
from urllib.parse import urlsplit

from joserfc import jwt
from joserfc.jwk import OctKey

from benchmarks.accounting import cpu_seconds
from benchmarks.fanout import QUIET, Measured, Pace, measure
from benchmarks.figures import Row, Yardstick, beside, held, median
from benchmarks.options import Options
from benchmarks.poster import posted
from benchmarks.tidegate import Tidegate, tidegate
from benchmarks.tools import LoadClient, load_client
from benchmarks.yardsticks import echo
from tests.support.identity import token
from tests.support.provider import provider
from tests.support.signing import jwks, new_key

SECRET = "a secret of the benchmark: 32 bytes or more"
OTHER_SECRET = "a secret that nobody was told: 32 bytes or more"
ISSUER = "https://id.example"
ADMIN = token("bench", secret=SECRET, iss=ISSUER, publish=["broadcast"], admin=["metrics"])
KEY = f"tgk_bench_{secrets.token_urlsafe(32)}"
TOKEN_MODE = {"TIDEGATE_AUTH": "token", "TIDEGATE_LIMIT_AUTH_FAILURES": "1e9/1e9"}
"""A failure is answered with 401, however many there are: that costs more than 429."""
CONNECTS = 5_000
SENDS, SEND_SECONDS = 32, 4.0
PACE = Pace(rate=4, broadcasts=20)
LISTENERS = 1_000
ECHO_US = 60
"""Of a bare echo, where the bars were set in microseconds: 10 more, 20 more than the library's check, 5 more."""
KNOWN_BAR, NEW_BAR, KEY_BAR = 10 / ECHO_US, 20 / ECHO_US, 5 / ECHO_US
REFUSED_BAR, P99_BAR = 1, 1.15


async def run(options: Options) -> list[Row]:
    echoes = [await echo(options)]
    found = Connects()
    env = {**TOKEN_MODE, "TIDEGATE_AUTH_SECRET": SECRET}
    async with tidegate(options) as plain, tidegate(options, env, bearer=ADMIN) as asking:
        await connects(plain, asking, found, options)
    open_us, key_us = await sends(options)
    echoes.append(await echo(options))
    stick = Yardstick("bare echo", tuple(each.cpu_us for each in echoes))
    check = verify_us()
    known, new = more(found.known, found.plain), more(found.new, found.plain_new)
    how = f"{CONNECTS} connects and ends, {median(found.plain):.0f} µs in the mode open; {options.rounds} rounds"
    return [
        held("a stream with a token that is known: CPU more than open", known, KNOWN_BAR, "µs", stick, how=how),
        held(
            "a stream with a new token: CPU more than open and the library's check",
            new - check,
            NEW_BAR,
            "µs",
            stick,
            how=f"{new:.0f} µs more than open; joserfc's jwt.decode takes {check:.0f} µs here; {how}",
        ),
        beside(
            "a connect with a forged token: CPU ÷ one that is accepted", found.forged, found.known, REFUSED_BAR, "µs",
            "accepted", how="another token each time",
        ),
        held(
            "a durable send with an API key: CPU more than open", more(key_us, open_us), KEY_BAR, "µs", stick,
            how=f"{median(open_us):.0f} µs in the mode open; {SENDS} connections, median of {options.rounds} rounds",
        ),
        *await refetching(options),
    ]  # fmt: skip


@dataclass
class Connects:
    """CPU of a gateway for a connect and its end, by round. In the mode open the query says what the token says."""

    plain: list[float] = field(default_factory=list)
    plain_new: list[float] = field(default_factory=list)
    known: list[float] = field(default_factory=list)
    new: list[float] = field(default_factory=list)
    forged: list[float] = field(default_factory=list)


async def connects(plain: Tidegate, asking: Tidegate, found: Connects, options: Options) -> None:
    file = options.folder("tokens") / "tokens"
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(load_client(options.build, each.server.port, each.server.ready))
            for each in (plain, asking)
        ]
        await clients[1].bring([listener("known")], file)
        for whole, client in zip((plain, asking), clients, strict=True):
            await churned(whole, client)  # what the first ones load is no connect's
        for turn in range(options.rounds):
            found.plain.append(await churned(plain, clients[0], "?user_id=known"))
            found.plain_new.append(await churned(plain, clients[0], f"?user_id=new-{turn}-%d"))
            await clients[1].bring([listener("known")], file)
            found.known.append(await churned(asking, clients[1]))
            await clients[1].bring([listener(f"new-{turn}-{number}") for number in range(CONNECTS)], file)
            found.new.append(await churned(asking, clients[1]))
            await clients[1].bring([listener(f"{turn}-{number}", OTHER_SECRET) for number in range(CONNECTS)], file)
            found.forged.append(await churned(asking, clients[1], refused=True))
            told = [each[-1] for each in (found.plain, found.known, found.plain_new, found.new, found.forged)]
            options.say(
                "µs for a connect, open {:.0f}, known {:.0f}; for a user's first, open {:.0f}, new {:.0f}; "
                "forged {:.0f}".format(*told)
            )


def listener(sub: str, secret: str = SECRET) -> str:
    return token(sub, secret=secret, iss=ISSUER, subscribe=["broadcast"])


async def churned(whole: Tidegate, client: LoadClient, query: str = "", *, refused: bool = False) -> float:
    """Microseconds of the gateway for each connect and its end."""
    before = whole.server.cpu()
    if refused:
        await client.turned_away(CONNECTS, whole.server.path, 401)
    else:
        await client.churn(CONNECTS, whole.server.path + query)
    await whole.until_active(0)
    return (whole.server.cpu() - before) / CONNECTS * 1e6


async def sends(options: Options) -> tuple[list[float], list[float]]:
    """CPU of publisher-api for a durable send: in the mode open, and with a key."""
    path = options.folder("keys") / "keys.json"
    entry = {"id": "bench", "sha256": sha256(KEY.encode()).hexdigest(), "publish": ["client:*"], "metrics": True}
    path.write_text(json.dumps({"key": [entry]}))
    env = {**TOKEN_MODE, "TIDEGATE_API_KEYS_FILE": str(path)}
    plain: list[float] = []
    keyed: list[float] = []
    async with tidegate(options) as one, tidegate(options, env, bearer=KEY) as other:
        for turn in range(options.rounds):
            pair = [(one, "", plain), (other, KEY, keyed)]
            for whole, key, found in pair if turn % 2 else reversed(pair):  # who is second finds the machine warm
                found.append(await send_us(whole, key))
            options.say(f"a send takes {plain[-1]:.0f} µs, with a key {keyed[-1]:.0f} µs")
    return plain, keyed


async def send_us(whole: Tidegate, bearer: str) -> float:
    port = urlsplit(whole.publisher_url).port
    assert port is not None
    before = cpu_seconds([whole.pid("publisher-api")])
    result = await posted(port, SENDS, SEND_SECONDS, 0, bearer)
    return (cpu_seconds([whole.pid("publisher-api")]) - before) / result.events * 1e6


async def refetching(options: Options) -> list[Row]:
    """Two gateways with a JWKS, of which one fetches it each second."""
    few = replace(options, connections=LISTENERS)
    async with provider() as idp, AsyncExitStack() as stack:
        keys = [new_key("RS256") for _ in range(4)]
        idp.serve(jwks(*((str(number), key) for number, key in enumerate(keys))))
        env = {
            **TOKEN_MODE,
            **QUIET,
            "TIDEGATE_AUTH_SECRET": SECRET,
            "TIDEGATE_AUTH_JWKS_URL": idp.url,
            "TIDEGATE_AUTH_ISSUER": ISSUER,
        }
        joined = []
        for module in ("gateway", "benchmarks.refetching"):
            whole = await stack.enter_async_context(tidegate(few, env, gateway_module=module, bearer=ADMIN))
            client = await stack.enter_async_context(load_client(few.build, whole.server.port, whole.server.ready))
            await client.bring([listener("listener")], few.folder("tokens") / "tokens")
            await client.open(LISTENERS, whole.server.path)
            joined.append(Measured(whole.server, client, 0, 0))
        asked = 0
        for turn in range(options.rounds):
            for each in joined if turn % 2 else reversed(joined):
                before = idp.asked
                idp.serve(jwks(*((f"{turn}-{number}", key) for number, key in enumerate(keys))))
                await measure(each, PACE, few)
                asked += idp.asked - before
    still, busy = (each.rounds[PACE].p99_ms for each in joined)
    how = f"{LISTENERS} connections, {PACE.rate:g} broadcasts/s; fetched {asked} times, another set in each round"
    return [beside("broadcast p99 while the JWKS is fetched ÷ without", busy, still, P99_BAR, "ms", "without", how=how)]


def verify_us() -> float:
    """CPU of joserfc's own reading of such a token."""
    key = OctKey.import_key(SECRET)
    made = listener("ann")
    rounds = []
    for _ in range(5):
        before = time.process_time()
        for _ in range(2_000):
            jwt.decode(made, key, algorithms=["HS256"])
        rounds.append((time.process_time() - before) / 2_000 * 1e6)
    return median(rounds)


def more(mine: list[float], plain: list[float]) -> float:
    """The median of the differences within a round: what disturbs the machine for a minute disturbs both."""
    return median([one - other for one, other in zip(mine, plain, strict=True)])
