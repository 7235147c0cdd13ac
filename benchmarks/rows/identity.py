"""What it costs to ask who somebody is: a stream with a token, a send with a key, a refusal, a JWKS that is fetched."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from hashlib import sha256
from statistics import fmean
from urllib.parse import urlsplit

from joserfc import jwt
from joserfc.jwk import OctKey

from benchmarks.accounting import cpu_seconds
from benchmarks.fanout import QUIET, Measured, Pace, measure
from benchmarks.figures import Row, Yardstick, beside, held, median, shown
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
CONNECTS, PASSES = 1_500, 4
"""Of each kind, one kind after the other, in each round; its processes are that round's own."""
SENDS, SEND_SECONDS, SEND_PASSES = 32, 1.5, 2
PACE = Pace(rate=4, broadcasts=20)
LISTENERS = 1_000
ECHO_US = 60
"""Of a bare echo, where the bars were set in microseconds: 10 more, 20 more than the library's check, 5 more."""
KNOWN_BAR, NEW_BAR, KEY_BAR = 10 / ECHO_US, 20 / ECHO_US, 5 / ECHO_US
REFUSED_BAR, P99_BAR = 1, 1.15


async def run(options: Options) -> list[Row]:
    echoes = [await echo(options)]
    found = Connects()
    for turn in range(options.rounds):
        await connects(turn, found, options)
    plain_sends, keyed_sends = await sends(options)
    echoes.append(await echo(options))
    stick = Yardstick("bare echo", tuple(each.cpu_us for each in echoes))
    check = verify_us()
    known, new = differences(found.known, found.plain), differences(found.new, found.plain_new)
    keyed = differences(keyed_sends, plain_sends)
    how = f"{CONNECTS * PASSES} connects and ends, {median(found.plain):.0f} µs in the mode open"
    return [
        held(
            "a stream with a token that is known: CPU more than open", median(known), KNOWN_BAR, "µs", stick,
            how=f"{spread(known)}; {how}",
        ),
        held(
            "a stream with a new token: CPU more than open and the library's check",
            median(new) - check,
            NEW_BAR,
            "µs",
            stick,
            how=f"{spread(new)} more than open; joserfc's jwt.decode takes {check:.0f} µs here; {how}",
        ),
        beside(
            "a connect with a forged token: CPU ÷ one that is accepted", found.forged, found.known, REFUSED_BAR, "µs",
            "accepted", how="another token each time",
        ),
        held(
            "a durable send with an API key: CPU more than open", median(keyed), KEY_BAR, "µs", stick,
            how=f"{spread(keyed)}; {median(plain_sends):.0f} µs in the mode open; {SENDS} connections",
        ),
        shown(
            "two gateways in the mode open differ by", median([abs(each) for each in found.noise()]), "µs",
            f"{spread(found.noise())}: what is less than that of the rows above can't be told from noise",
        ),
        *await refetching(options),
    ]  # fmt: skip


@dataclass
class Connects:
    """CPU of a gateway for a connect and its end, by round. In the mode open the query says what the token says."""

    plain: list[float] = field(default_factory=list)
    plain_twin: list[float] = field(default_factory=list)
    """Of another gateway of the same round."""
    plain_new: list[float] = field(default_factory=list)
    known: list[float] = field(default_factory=list)
    new: list[float] = field(default_factory=list)
    forged: list[float] = field(default_factory=list)

    def noise(self) -> list[float]:
        return differences(self.plain_twin, self.plain)


async def connects(turn: int, found: Connects, options: Options) -> None:
    """One round, on processes of its own: two of the same code differ for as long as they run."""
    file = options.folder("tokens") / "tokens"
    env = {**TOKEN_MODE, "TIDEGATE_AUTH_SECRET": SECRET}
    async with tidegate(options) as plain, tidegate(options) as twin, tidegate(options, env, bearer=ADMIN) as asking:
        wholes = (plain, twin, asking)
        async with AsyncExitStack() as stack:
            one, two, three = [
                await stack.enter_async_context(load_client(options.build, each.server.port, each.server.ready))
                for each in wholes
            ]

            async def with_tokens(tokens: list[str], *, refused: bool = False) -> float:
                await three.bring(tokens, file)
                return await churned(asking, three, refused=refused)

            def kinds(part: str) -> list[tuple[list[float], Callable[[], Awaitable[float]]]]:
                def each(secret: str = SECRET) -> list[str]:
                    return [listener(f"{part}-{number}", secret) for number in range(CONNECTS)]

                return [
                    (found.plain, lambda: churned(plain, one, "?user_id=known")),
                    (found.known, lambda: with_tokens([listener("known")])),
                    (found.plain_twin, lambda: churned(twin, two, "?user_id=known")),
                    (found.forged, lambda: with_tokens(each(OTHER_SECRET), refused=True)),
                    (found.plain_new, lambda: churned(plain, one, f"?user_id={part}-%d")),
                    (found.new, lambda: with_tokens(each())),
                ]

            for _, measured in kinds("first"):
                await measured()  # what the first ones load is no connect's
            sums: dict[int, float] = {}
            for number in range(PASSES):
                order = kinds(f"{turn}-{number}")
                for place, (_, measured) in enumerate(order) if number % 2 else reversed([*enumerate(order)]):
                    sums[place] = sums.get(place, 0.0) + await measured() / PASSES
            for place, (values, _) in enumerate(kinds("")):
                values.append(sums[place])
    told = [each[-1] for each in (found.plain, found.plain_twin, found.known, found.plain_new, found.new, found.forged)]
    options.say(
        "µs for a connect, open {:.0f} and {:.0f}, known {:.0f}; for a user's first, open {:.0f}, new {:.0f}; "
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
    """CPU of publisher-api for a durable send: in the mode open, and with a key. Each round has its own processes."""
    path = options.folder("keys") / "keys.json"
    entry = {"id": "bench", "sha256": sha256(KEY.encode()).hexdigest(), "publish": ["client:*"], "metrics": True}
    path.write_text(json.dumps({"key": [entry]}))
    env = {**TOKEN_MODE, "TIDEGATE_API_KEYS_FILE": str(path)}
    plain: list[float] = []
    keyed: list[float] = []
    for _ in range(options.rounds):
        async with tidegate(options) as one, tidegate(options, env, bearer=KEY) as other:
            pair = [(one, ""), (other, KEY)]
            for whole, key in pair:
                await send_us(whole, key)
            found: dict[str, list[float]] = {"": [], KEY: []}
            for number in range(SEND_PASSES):
                for whole, key in pair if number % 2 else reversed(pair):  # who is second finds the machine warm
                    found[key].append(await send_us(whole, key))
        plain.append(fmean(found[""]))
        keyed.append(fmean(found[KEY]))
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


def differences(mine: list[float], plain: list[float]) -> list[float]:
    """Within each round: what disturbs the machine for a minute disturbs both."""
    return [one - other for one, other in zip(mine, plain, strict=True)]


def spread(found: list[float]) -> str:
    return f"median of {len(found)} rounds, {min(found):.0f} to {max(found):.0f} µs"
