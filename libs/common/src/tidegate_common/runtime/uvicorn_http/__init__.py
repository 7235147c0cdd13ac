"""All of ours that rests on uvicorn's private names; tests/unit/common/test_uvicorn_http.py fails when they move.

`protocol` is uvicorn's HTTP/1.1 protocol with limits. `exchange` is one request's way through the app. `http_server` is
what a protocol that stands before uvicorn's own needs of it.
"""
