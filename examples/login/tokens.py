"""What your back end does for Tidegate, and all that it has to do: it says who a user is, and what they may do."""

import os
import time
from pathlib import Path

from joserfc import jwt
from joserfc.jwk import OctKey

SECRET = OctKey.import_key(Path(os.environ["TIDEGATE_AUTH_SECRET_FILE"]).read_text().split()[0])
SECONDS = int(os.environ.get("TOKEN_SECONDS", "300"))


def token_of(user: str) -> str:
    """A token of `user`, who is logged in here. It is short-lived: the page asks for the next one in time."""
    now = int(time.time())
    claims = {
        "sub": user,  # this user's own stream is always allowed
        "aud": "tidegate",
        "iat": now,
        "exp": now + SECONDS,
        "tidegate": {
            "subscribe": ["topic:news.>", "broadcast"],
            "publish": [f"topic:news.{user}"],
            "jobs": {"kinds": ["chat"], "max_tokens": 256},
        },
    }
    return jwt.encode({"alg": "HS256"}, claims, SECRET)
