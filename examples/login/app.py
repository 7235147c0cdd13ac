"""A page with logged-in users: this is its back end. docs/security.md walks through it.

Sessions in memory and passwords in the text are for trying: your framework has its own login.
"""

import os
import secrets
from pathlib import Path

import httpx
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from examples.login.tokens import token_of

HERE = Path(__file__).parent
GATEWAY = os.environ.get("GATEWAY", "http://127.0.0.1:8000")
PUBLISHER = os.environ.get("PUBLISHER", "http://127.0.0.1:8001")
KEY = os.environ["SHOP_KEY"]
COOKIE = os.environ.get("TIDEGATE_AUTH_COOKIE", "tidegate")
PASSWORDS = {"ann": "tide", "bob": "moon"}

sessions: dict[str, str] = {}
"""Who is logged in, by the value of this application's own cookie."""


def user_of(request: Request) -> str:
    """Who is logged in."""
    user = sessions.get(request.cookies.get("session", ""))
    if user is None:
        raise HTTPException(401, "log in first")
    return user


async def login(request: Request) -> Response:
    told = await request.json()
    user, password = str(told.get("user")), str(told.get("password"))
    if not secrets.compare_digest(PASSWORDS.get(user, secrets.token_hex()).encode(), password.encode()):
        raise HTTPException(401, "no such user, or another password")
    session = secrets.token_urlsafe()
    sessions[session] = user
    answer = JSONResponse({"user": user})
    answer.set_cookie("session", session, httponly=True, samesite="lax", secure=request.url.scheme == "https")
    return answer


async def logout(request: Request) -> Response:
    sessions.pop(request.cookies.get("session", ""), None)
    answer = Response(status_code=204)
    answer.delete_cookie("session")
    answer.delete_cookie(COOKIE)
    return answer


async def token(request: Request) -> Response:
    """For the page's client, which sends it as `Authorization: Bearer`, or gets a ticket for it."""
    return PlainTextResponse(token_of(user_of(request)), headers={"Cache-Control": "no-store"})


async def cookie(request: Request) -> Response:
    """The same token, where no script can read it."""
    answer = Response(status_code=204)
    made, secure = token_of(user_of(request)), request.url.scheme == "https"
    answer.set_cookie(COOKIE, made, httponly=True, samesite="lax", secure=secure)
    return answer


async def notify(request: Request) -> Response:
    """Your back end publishes with a service key, which never leaves it."""
    event = {"user_id": user_of(request), "event_type": "greeting", "data": {"text": "Hello from your back end!"}}
    async with httpx.AsyncClient(base_url=PUBLISHER, headers={"Authorization": f"Bearer {KEY}"}) as publisher:
        sent = await publisher.post("/api/sse/send", json=event)
    return JSONResponse(sent.json(), sent.status_code)


async def page(_: Request) -> Response:
    text = (HERE / "page.html").read_text()
    return HTMLResponse(text.replace("{gateway}", GATEWAY).replace("{publisher}", PUBLISHER))


app = Starlette(
    routes=[
        Route("/", page),
        Route("/login", login, methods=["POST"]),
        Route("/logout", logout, methods=["POST"]),
        Route("/token", token, methods=["POST"]),
        Route("/cookie", cookie, methods=["POST"]),
        Route("/notify", notify, methods=["POST"]),
        Mount("/tidegate", StaticFiles(directory=HERE.parents[1] / "clients" / "js" / "src")),
        Mount("/", StaticFiles(directory=HERE)),
    ]
)
