"""Whom the console's page may talk to."""

import pytest

from gateway.sse.console import publisher_source


@pytest.mark.parametrize(
    ("told", "host", "source"),
    [
        ("", "localhost:8000", "localhost:8001"),
        ("", "127.0.0.1", "127.0.0.1:8001"),
        ("", "App.example.:443", "app.example.:8001"),
        ("", "[::1]:8000", "http: https:"),
        ("", "", ""),
        ("/", "localhost:8080", ""),
        ("http://127.0.0.1:9001", "localhost:8000", "http://127.0.0.1:9001"),
        ("https://api.example/tidegate/", "localhost", "https://api.example"),
        ("https://user:secret@api.example", "localhost", "https://api.example"),
        ("http://[::1]:8001", "[::1]:8000", "http: https:"),
    ],
)
def test_the_page_talks_to_its_gateway_and_to_publisher_api_alone(told: str, host: str, source: str) -> None:
    assert publisher_source(told, host) == source
