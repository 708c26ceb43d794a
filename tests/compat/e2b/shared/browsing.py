"""Plain requests without the SDK: what a browser sends, and what an attacker might."""

from typing import Any

import httpx


def fetch(url: str, **options: Any) -> httpx.Response:
    """Send a GET request."""
    return httpx.get(url, **options)


def send(url: str, **options: Any) -> httpx.Response:
    """Send a POST request."""
    return httpx.post(url, **options)
