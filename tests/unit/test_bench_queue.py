"""The queue's benchmark: both walks are told the same, and a walk that decides otherwise is found out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks import queue
from benchmarks.commands import app
from benchmarks.plain_walk import plain_walk
from scheduler.core.queue.actions import Action
from scheduler.core.queue.backfill import Reservation
from scheduler.core.queue.book import Book
from scheduler.core.queue.line import Candidate


def lazy_walk(book: Book, reservation: Reservation, newcomer: Candidate | None = None) -> list[Action]:
    """Sees to newcomers only."""
    return plain_walk(book, reservation, newcomer) if newcomer is not None else []


def test_so_many_wait_and_the_nodes_are_full() -> None:
    driver = queue.Driver(queue.Size(5, 40, 3), plain_walk)
    driver.play(30)
    view = driver.keeper.dump()
    assert view.waiting == driver.waiting
    assert abs(view.waiting - 40) < 20
    assert view.held > 0.8


def test_both_walks_release_the_same() -> None:
    found = queue.measure([3, 9], 40, 3, 30, lambda _: None)
    ours, plain = found.of("fairlane"), found.of("plain walk")
    assert [one.released for one in ours] == [one.released for one in plain]
    assert all(one.backfilled for one in ours)
    assert {taken.calls for one in ours for kind, taken in one.events.items() if kind == "GangEnded"} == {30}


def test_a_walk_that_decides_otherwise_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "WALKS", {"fairlane": queue.WALKS["fairlane"], "lazy": lazy_walk})
    with pytest.raises(queue.DifferenceError, match="3 users"):
        queue.measure([3], 40, 3, 60, lambda _: None)


def test_the_command_writes_its_figures(tmp_path: Path) -> None:
    options = ["--users", "2,4", "--waiting", "20", "--nodes", "2", "--ends", "20", "--out", str(tmp_path)]
    answer = CliRunner().invoke(app, ["queue", *options])
    assert answer.exit_code == 0, answer.output
    written = json.loads((tmp_path / "queue-20.json").read_text())
    assert [(row["walk"], row["size"]["users"]) for row in written["sizes"]] == [
        ("fairlane", 2), ("plain walk", 2), ("fairlane", 4), ("plain walk", 4)
    ]  # fmt: skip
    assert (tmp_path / "queue-20.png").stat().st_size > 1000


def test_a_number_of_users_that_is_none_is_explained() -> None:
    answer = CliRunner().invoke(app, ["queue", "--users", "many"])
    assert answer.exit_code == 2
    assert "'many' is not a list of numbers" in answer.output
