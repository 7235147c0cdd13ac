"""Tokens and key sets in the shapes that identity providers give them, as docs/security.md sets them up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from tests.support.bus import broker
from tests.support.gateway import open_stream, running_gateway
from tests.support.identity import bearer
from tests.support.provider import provider
from tests.support.signing import claims, new_key, signed

KEY, FOR_ENCRYPTION = new_key("RS256"), new_key("RS256")


class Shape(NamedTuple):
    """What one kind of provider puts around the claims that count."""

    issuer: str
    header: dict[str, Any]
    claims: dict[str, Any]
    keys: list[dict[str, Any]]


def published(key: Any, **more: Any) -> dict[str, Any]:
    return {**key.as_dict(private=False), **more}


SHAPES = {
    "Auth0": Shape(
        "https://tenant.auth0.com/",
        {"alg": "RS256", "typ": "JWT", "kid": "Njk4x"},
        {
            "sub": "auth0|5f7c8ec7c33c6c004bbafe82",
            "aud": ["tidegate", "https://tenant.auth0.com/userinfo"],
            "azp": "3b1PXqz0MUiF5wRv",
            "scope": "openid profile email",
            "permissions": [],
        },
        [published(KEY, use="sig", kid="Njk4x", alg="RS256", x5t="Njk4x", x5c=["MIIDBz"])],
    ),
    "Auth0 by RFC 9068": Shape(
        "https://tenant.auth0.com/",
        {"alg": "RS256", "typ": "at+jwt", "kid": "Njk4x"},
        {"sub": "google-oauth2|1034", "aud": "tidegate", "client_id": "3b1PXqz0", "jti": "a1B2", "scope": "openid"},
        [published(KEY, use="sig", kid="Njk4x", alg="RS256")],
    ),
    "Keycloak": Shape(
        "https://id.example/realms/shop",
        {"alg": "RS256", "typ": "JWT", "kid": "FJ86GcF3"},
        {
            "sub": "f1888f4d-5172-4359-be0c-af338505d86c",
            "aud": ["tidegate", "account"],
            "typ": "Bearer",
            "azp": "page",
            "sid": "b1d0ad4c",
            "jti": "onrtac:88a0bcd2",
            "auth_time": 1,
            "acr": "1",
            "allowed-origins": ["https://app.example"],
            "realm_access": {"roles": ["offline_access"]},
            "resource_access": {"account": {"roles": ["view-profile"]}},
            "scope": "openid email profile",
            "email_verified": True,
            "preferred_username": "ann",
        },
        [
            published(FOR_ENCRYPTION, use="enc", kid="x1", alg="RSA-OAEP"),
            published(KEY, use="sig", kid="FJ86GcF3", alg="RS256", x5c=["MIICmz"], **{"x5t#S256": "x"}),
        ],
    ),
}
GRANTS = {"subscribe": ["broadcast", "topic:news.>"], "jobs": {"kinds": ["chat"]}}


@pytest.mark.parametrize("name", SHAPES)
async def test_an_access_token_opens_a_stream_and_an_id_token_does_not(tmp_path: Path, name: str) -> None:
    shape = SHAPES[name]
    told = claims(iss=shape.issuer, **shape.claims)
    async with provider() as found, broker(tmp_path) as (server, _):
        found.serve(json.dumps({"keys": shape.keys}).encode())
        settings: dict[str, Any] = {"auth": "token", "auth_issuer": shape.issuer, "auth_jwks_url": found.url}
        async with running_gateway(server.url, **settings) as running, httpx.AsyncClient() as client:
            access = bearer(signed({**told, "tidegate": GRANTS}, shape.header, KEY))
            async with open_stream(running.url, {"topic": "news.eu"}, access) as stream:
                listening = (await stream.connected())["listening"]
                assert set(listening) >= {"broadcast", f"user:{told['sub']}", "topic:news.eu"}
            async with open_stream(running.url, headers=bearer(signed(told, shape.header, KEY))) as stream:
                listening = (await stream.connected())["listening"]
                assert f"user:{told['sub']}" in listening
                assert "broadcast" not in listening, "without the claim a user hears what is sent to them"
            for odd, reason in (({"aud": "3b1PXqz0MUiF5wRv"}, "audience"), ({"iss": "https://id.example"}, "issuer")):
                other = bearer(signed({**told, **odd}, shape.header, KEY))
                answer = await client.get(f"{running.url}/api/sse", headers=other)
                assert (answer.status_code, answer.json()["reason"]) == (401, reason)
