"""Tokens (JWT, RFC 7519): signatures and claims are checked once, and the principal is kept until the token's end."""

from __future__ import annotations

import time

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from tidegate_common.auth.claims import principal_of
from tidegate_common.auth.settings import AuthSettings
from tidegate_common.contract.principal import Principal
from tidegate_common.errors import Unauthenticated


class Tokens:
    """Reads tokens as the settings say."""

    def __init__(self, settings: AuthSettings) -> None:
        self._settings = settings
        self._secrets = [OctKey.import_key(secret) for secret in settings.auth_secret]

    def principal(self, token: str) -> Principal:
        """Raises Unauthenticated."""
        for key in self._secrets:
            try:
                claims = jwt.decode(token, key, algorithms=["HS256"]).claims
            except (JoseError, ValueError):
                continue
            found = principal_of(claims, self._settings.auth_leeway_seconds)
            if time.time() >= found.expires:
                raise Unauthenticated("expired")
            return found
        raise Unauthenticated("signature")
