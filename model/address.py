"""Where a server is, as text; for all of ours, whichever package they are in."""

from __future__ import annotations


def place_of(host: str, port: int) -> str:
    """host:port as a URL has it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
