"""For whom a command prints, people or machines, and how it does where terminals cannot show everything."""

import json
import sys
from enum import StrEnum
from typing import Any

import typer

from scheduler.letters import has_all_letters


class Output(StrEnum):
    """For whom the answer is."""

    TEXT = "text"
    JSON = "json"


def print_json(told: Any) -> None:
    """Plain values as JSON, and never anything else: no colours, and no letter that the encoding lacks."""
    typer.echo(json.dumps(told, indent=2, ensure_ascii=not has_all_letters(sys.stdout)))


def write_letters_that_lack_otherwise() -> None:
    """What the locale's encoding has no letters for is written as \\xfc; it would end the command."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure") and not has_all_letters(stream):
            stream.reconfigure(errors="backslashreplace")
