"""`kubectl fairlane` runs where it can; logs are lines with ids, for people and for machines."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from scheduler.cli.plugin import USUALLY, beside, installed
from scheduler.structured_logs import JsonFormatter, PlainFormatter, event_id


def test_what_asks_the_parts_runs_beside_them() -> None:
    assert beside(["status", "-o", "json"], {}, usual) == [
        *("kubectl", "--namespace", "fairlane-system", "exec", "deploy/fairlane-scheduler"),
        *("-c", "extender", "--", "fairlane", "status", "-o", "json"),
    ]
    told = beside(["--context=prod", "-n", "own", "queue", "--user", "alice"], {}, usual)
    assert told is not None
    assert told[:4] == ["kubectl", "--context=prod", "-n", "own"]
    assert told[4:] == [
        *("exec", "deploy/fairlane-controller", "-c", "controller"),
        *("--", "fairlane", "queue", "--user", "alice"),
    ]


@pytest.mark.parametrize(
    ("words", "environment"),
    [
        ([], {}),
        (["--help"], {}),
        (["queue", "--help"], {}),
        (["queue", "--config", "own.yaml"], {}),
        (["status"], {"FAIRLANE_CONFIG": "own.yaml"}),
        (["simulate", "jobs.swf"], {}),
        (["admission", "manifests"], {}),
    ],
)
def test_everything_else_runs_here(words: list[str], environment: dict[str, str]) -> None:
    assert beside(words, environment, usual) is None


@pytest.mark.parametrize(
    ("deployments", "where"),
    [
        (
            "fairlane-scheduler kube-scheduler extender\nfairlane-controller controller",
            "scheduler -c extender",
        ),
        (
            "fairlane-controller controller extender\nfairlane-scheduler kube-scheduler",
            "controller -c extender",
        ),
        ("fairlane-controller controller\nfairlane-recorder recorder\n", "controller -c controller"),
        ("", "scheduler -c extender"),
    ],
)
def test_the_part_is_looked_for_where_it_is_installed(
    deployments: str, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "kubectl"
    program.write_text(f"#!/bin/sh\necho \"$@\" >{tmp_path}/asked\nprintf '{deployments}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    told = beside(["--context", "prod", "doctor"], {}, installed)
    assert told is not None
    assert " ".join(told).endswith(f"--context prod exec deploy/fairlane-{where} -- fairlane doctor")
    assert "--namespace fairlane-system --context prod get deployments" in (tmp_path / "asked").read_text()


def usual(_kubectl: Sequence[str]) -> dict[str, str]:
    return USUALLY


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
