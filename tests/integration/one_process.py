"""A process of ours on its own, and what it tells of itself."""

from __future__ import annotations

import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml


def told(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


@contextmanager
def serving(name: str, folder: Path, settings: dict[str, Any], *more: str) -> Iterator[None]:
    """A process of ours, on its own."""
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(settings))
    argv = [sys.executable, "-m", "scheduler.cli.main", name, "--config", str(file), "--port", "0", *more]
    process = subprocess.Popen(argv)
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)
