"""Logs are lines with ids, for people and for machines."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scheduler.structured_logs import JsonFormatter, PlainFormatter, event_id


def record(message: str, *values: object) -> logging.LogRecord:
    try:
        raise OSError("gone")
    except OSError:
        return logging.LogRecord("a.part", logging.WARNING, "f", 1, message, values, sys.exc_info())


def test_a_line_for_machines_has_an_id_its_values_and_the_exception() -> None:
    told = json.loads(JsonFormatter().format(record("pod %s waits for %g s\nlong", "a/b", 2.5)))
    assert told["event"] == event_id("a.part", "pod %s waits for %g s\nlong")
    assert told["message"] == "pod a/b waits for 2.5 s\nlong"
    assert told["values"] == ["a/b", 2.5]
    assert told["level"] == "warning"
    assert "OSError: gone" in told["exception"]
    assert "\n" not in JsonFormatter().format(record("two\nlines"))


def test_the_id_is_of_the_sentence_and_not_of_what_it_is_about() -> None:
    lines = [PlainFormatter().format(record("pod %s waits", name)) for name in ("a", "b")]
    ids = {line.split()[3] for line in lines}
    assert ids == {event_id("a.part", "pod %s waits")}
    assert event_id("a.part", "pod %s waits") != event_id("b.part", "pod %s waits")


ENDING = """
import sys, typer
from scheduler.cli.serving import run_serving
from scheduler.config import Settings
async def serve():
    raise {error}
app = typer.Typer()
app.command()(lambda: run_serving("recorder", Settings(log_format=sys.argv[1]), serve()))
app([])
"""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("RuntimeError('a bug')", "the process ends by a fault: a bug"),
        ("OSError('no room')", "fairlane recorder cannot go on: no room"),
    ],
)
def test_a_process_that_ends_by_itself_says_so_in_one_object_like_all_others(error: str, said: str) -> None:
    program = [sys.executable, "-c", ENDING.format(error=error), "json"]
    ended = subprocess.run(program, capture_output=True, text=True, check=False)
    (line,) = ended.stderr.splitlines()
    told = json.loads(line)
    assert (told["message"], ended.returncode) == (said, 1)
    assert told["event"] in (Path(__file__).parents[2] / "docs" / "events.md").read_text()


def test_to_people_it_says_so_in_a_sentence() -> None:
    program = [sys.executable, "-c", ENDING.format(error="OSError('no room')"), "text"]
    ended = subprocess.run(program, capture_output=True, text=True, check=False)
    assert ended.stderr == "fairlane recorder: no room\n"


STRANGE = """
import logging, warnings
from scheduler.structured_logs import set_up_logs
set_up_logs("json")
logging.getLogger("a.part").info("waits for %s s, or %s", float("inf"), float("nan"))
logging.getLogger("a.part").info("job of %s", "j\\xfcrgen")
warnings.warn("a library has something to say")
"""


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_every_line_for_machines_is_an_object_of_json(encoding: str) -> None:
    """Also what libraries warn of, numbers beyond all numbers, and letters that the locale lacks."""

    def refused(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    told = subprocess.run(
        [sys.executable, "-c", STRANGE],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=True,
    )
    lines = told.stderr.decode(encoding).splitlines()
    numbers, user, warned = (json.loads(line, parse_constant=refused) for line in lines)
    assert numbers["values"] == ["inf", "nan"]
    assert user["message"] == "job of j\xfcrgen"
    assert "a library has something to say" in warned["message"]
    assert warned["event"] in (Path(__file__).parents[2] / "docs" / "events.md").read_text()
