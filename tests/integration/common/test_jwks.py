"""The keys of an identity provider: fetched beside, and used as long as they count."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import certificates
from tests.support.identity import SECRET
from tests.support.provider import Provider, provider
from tests.support.signing import claims, jwks, new_key, signed
from tests.support.waiting import until
from tidegate_common.auth.jwks import Jwks
from tidegate_common.auth.settings import AuthSettings
from tidegate_common.auth.tokens import Tokens
from tidegate_common.errors import Unauthenticated
from tidegate_common.runtime.tasks import end

ISSUER = "https://id.example"
OLD, NEW = new_key("RS256"), new_key("ES256")
OLD_TOKEN = signed(claims(iss=ISSUER), {"alg": "RS256", "kid": "old"}, OLD)
NEW_TOKEN = signed(claims(iss=ISSUER), {"alg": "ES256", "kid": "new"}, NEW)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Reader:
    """Tokens with the keys of a provider; nothing runs beside unless `run` is called."""

    def __init__(self, url: str, **pauses: Any) -> None:
        settings = AuthSettings(auth="token", auth_secret=(SECRET,), auth_issuer=ISSUER)
        self.tokens = Tokens(settings, settings.signing_keys())
        self.clock = Clock()
        self.jwks = Jwks(url, self.tokens.use, self.clock, **pauses)
        self.tokens.on_unknown_key = self.jwks.want

    def reason(self, token: str) -> str:
        try:
            self.tokens.principal(token)
        except Unauthenticated as error:
            return error.reason
        return "ok"


@asynccontextmanager
async def following(url: str, **pauses: Any) -> AsyncIterator[Reader]:
    """One that keeps up."""
    async with reading(url, **pauses) as reader:
        running = asyncio.create_task(reader.jwks.run())
        try:
            yield reader
        finally:
            await end([running])


@asynccontextmanager
async def reading(url: str, **pauses: Any) -> AsyncIterator[Reader]:
    """One that has fetched once."""
    reader = Reader(url, **pauses)
    await reader.jwks.start()
    try:
        yield reader
    finally:
        await reader.jwks.aclose()


async def test_keys_come_and_go_with_the_set() -> None:
    async with provider() as idp:
        idp.serve(jwks(("old", OLD)))
        async with reading(idp.url) as reader:
            assert (reader.reason(OLD_TOKEN), reader.reason(NEW_TOKEN)) == ("ok", "kid")
            idp.serve(jwks(("old", OLD), ("new", NEW)))
            await reader.jwks.refresh()
            assert (reader.reason(OLD_TOKEN), reader.reason(NEW_TOKEN)) == ("ok", "ok")
            idp.serve(jwks(("new", NEW)))
            await reader.jwks.refresh()
            assert (reader.reason(OLD_TOKEN), reader.reason(NEW_TOKEN)) == ("kid", "ok")
            assert reader.reason(signed(claims(iss=ISSUER))) == "ok"


async def test_a_storm_of_unknown_keys_makes_one_fetch() -> None:
    """Each of them names a key that nobody has, and all want the set to be fetched."""
    async with provider() as idp, following(idp.url, least_seconds=3600) as reader:
        assert idp.asked == 1
        # The last fetch was long ago, so one is allowed. The clock stands still then, so no other is.
        reader.clock.now = 3600
        for number in range(2000):
            assert reader.reason(signed(claims(), {"alg": "ES256", "kid": f"made up {number}"}, by="none")) == "kid"
        await until(lambda: idp.asked == 2, "the set is fetched for them")
        for number in range(2000):
            assert reader.reason(signed(claims(), {"alg": "RS256", "kid": str(number)}, by="none")) == "kid"
            await asyncio.sleep(0)
        assert idp.asked == 2


async def test_a_new_key_is_found_because_a_token_names_it() -> None:
    async with provider() as idp:
        idp.serve(jwks(("old", OLD)))
        async with following(idp.url, least_seconds=0) as reader:
            idp.serve(jwks(("old", OLD), ("new", NEW)))
            assert reader.reason(OLD_TOKEN) == "ok"
            assert reader.reason(NEW_TOKEN) == "kid"  # nobody waits for a fetch
            await until(lambda: reader.reason(NEW_TOKEN) == "ok", "the new key is there")


async def test_the_set_is_fetched_again_and_again() -> None:
    async with provider() as idp:
        idp.serve(jwks(("old", OLD)))
        async with following(idp.url, every_seconds=0.01):
            await until(lambda: idp.asked > 3, "it is fetched again")


async def test_a_set_that_was_away_is_there_soon() -> None:
    async with provider() as idp:
        idp.serve(b"", "500 Internal Server Error")
        async with following(idp.url, least_seconds=0.01) as reader:
            assert not reader.jwks.had_one
            idp.serve(jwks(("old", OLD)))
            await until(lambda: reader.reason(OLD_TOKEN) == "ok", "the set is there")


async def test_the_last_good_set_counts_for_a_day(caplog: pytest.LogCaptureFixture) -> None:
    async with provider() as idp:
        idp.serve(jwks(("old", OLD)))
        async with reading(idp.url) as reader:
            idp.serve(b"away", "503 Service Unavailable")
            for hours in (1, 12, 24):
                reader.clock.now = hours * 3600
                await reader.jwks.refresh()
                assert reader.reason(OLD_TOKEN) == "ok"
                assert reader.jwks.age == hours * 3600
            reader.clock.now += 1
            await reader.jwks.refresh()
            assert reader.reason(OLD_TOKEN) == "kid"
            assert (reader.jwks.age, reader.jwks.had_one) == (-1, True)
            said = [record.message for record in caplog.records if record.levelno == logging.WARNING]
            assert len(said) == 1
            assert "503" in said[0]
            idp.serve(jwks(("old", OLD)))
            await reader.jwks.refresh()
            assert (reader.reason(OLD_TOKEN), reader.jwks.age) == ("ok", 0)


def redirecting(idp: Provider) -> None:
    idp.serve(b"", "302 Found", f"Location: {idp.url}?again")


def huge(idp: Provider) -> None:
    idp.serve(jwks(("new", NEW)) + b" " * 65_536)


def endless(idp: Provider) -> None:
    idp.answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + (b"10000\r\n" + b" " * 65_536 + b"\r\n") * 8
    idp.holds = True


def dripping_head(idp: Provider) -> None:
    """No pause is long enough to be noticed."""
    idp.answer, idp.drips = b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"


def dripping_body(idp: Provider) -> None:
    idp.answer, idp.drips = b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n", b" "


def slow_head(idp: Provider) -> None:
    idp.answer, idp.holds = b"HTTP/1.1 200 OK\r\nContent-", True


def slow_body(idp: Provider) -> None:
    idp.answer, idp.holds = b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"keys"', True


def broken_off(idp: Provider) -> None:
    idp.answer = b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"keys"'


def no_http(idp: Provider) -> None:
    idp.answer = b"SSH-2.0-OpenSSH\r\n\r\n"


def packed(idp: Provider) -> None:
    idp.serve(b"\x1f\x8b" + b"x" * 50, "200 OK", "Content-Encoding: gzip")


def no_set(idp: Provider) -> None:
    idp.serve(b"<html>")


def symmetric(idp: Provider) -> None:
    idp.serve(b'{"keys": [{"kty": "oct", "kid": "old", "k": "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0IA"}]}')


def private(idp: Provider) -> None:
    idp.serve(b'{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "old", "x": "AA", "d": "AA"}]}')


def not_found(idp: Provider) -> None:
    idp.serve(jwks(("new", NEW)), "404 Not Found")


@pytest.mark.parametrize(
    "bad",
    [
        redirecting, huge, endless, slow_head, slow_body, dripping_head, dripping_body, broken_off, no_http, packed,
        no_set, symmetric, private, not_found,
    ],
)  # fmt: skip
async def test_a_bad_provider_changes_nothing(bad: Any) -> None:
    async with provider() as idp:
        idp.serve(jwks(("old", OLD)))
        async with reading(idp.url, fetch_seconds=1) as reader:
            bad(idp)
            await reader.jwks.refresh()
            assert idp.asked == 2
            assert (reader.reason(OLD_TOKEN), reader.reason(NEW_TOKEN)) == ("ok", "kid")
            idp.holds, idp.drips = False, b""
            idp.serve(jwks(("new", NEW)))
            await reader.jwks.refresh()
            assert (reader.reason(OLD_TOKEN), reader.reason(NEW_TOKEN)) == ("kid", "ok")


async def test_a_set_may_have_keys_for_something_else() -> None:
    """Keycloak's has one to encrypt, Google's are of one kind, and others will have kinds that nobody knows yet."""
    other = b'{"kty": "AKP", "kid": "pq", "alg": "ML-DSA-44"}, {"kty": "RSA", "use": "enc", "n": "", "e": ""}, 7, '
    async with provider() as idp:
        idp.serve(jwks(("old", OLD)).replace(b'"keys": [', b'"keys": [' + other))
        async with reading(idp.url) as reader:
            assert reader.reason(OLD_TOKEN) == "ok"


async def test_tls_is_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = certificates(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(made.server, made.server_key)
    async with provider(tls) as idp:
        idp.serve(jwks(("old", OLD)))
        async with reading(idp.url) as reader:
            assert reader.reason(OLD_TOKEN) == "kid"
            assert "certificate" in caplog.text
        monkeypatch.setenv("SSL_CERT_FILE", str(made.ca))
        async with reading(idp.url) as reader:
            assert reader.reason(OLD_TOKEN) == "ok"


async def test_nobody_answers() -> None:
    async with provider() as idp:
        url = idp.url
    async with reading(url) as reader:
        assert reader.reason(OLD_TOKEN) == "kid"
        assert not reader.jwks.had_one
        assert reader.reason(signed(claims(iss=ISSUER))) == "ok"


async def test_an_error_that_nobody_foresaw_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The task that follows the set would be gone, and its keys those of that moment."""
    used: list[int] = []

    def broken(keys: list[Any]) -> None:
        used.append(len(keys))
        if len(used) == 2:
            raise RuntimeError("broken")

    async with provider() as idp:
        idp.serve(jwks(("old", OLD)))
        fetcher = Jwks(idp.url, broken, every_seconds=0.01, least_seconds=0.01)
        await fetcher.start()
        running = asyncio.create_task(fetcher.run())
        try:
            idp.serve(jwks(("old", OLD), ("new", NEW)))
            await until(lambda: used == [1, 2, 2], "the set is used after all")
        finally:
            await end([running])
            await fetcher.aclose()
    assert "RuntimeError" in caplog.text
