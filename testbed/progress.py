"""What is being done and for how long: a live display on a terminal, plain lines elsewhere.

A build takes minutes, and continuous integration takes silence for a hang:
without a terminal, a running task prints a line at least every 20 s.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich import progress as rich_progress
from rich.console import Console

LINE_EVERY_S = 20.0


@dataclass
class Task:
    """One thing that takes time; `done` of `total` steps, where that is known (total > 0)."""

    text: str
    done: int = 0
    total: int = 0
    unit: str = "packages"
    started_s: float = field(default_factory=time.monotonic)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the task began."""
        return time.monotonic() - self.started_s

    def advance(self, to: int) -> None:
        """Say that `to` steps are done."""
        self.done = min(to, self.total) if self.total else to

    def sentence(self) -> str:
        """The task as a plain line, e.g. `etcd: 210 of 640 packages, 31 s`."""
        steps = f": {self.done:,} of {self.total:,} {self.unit}" if self.total else ""
        return f"{self.text}{steps}, {self.elapsed_s:.0f} s"


class Progress:
    """Reports steps and tasks of one command to standard error."""

    def __init__(self, console: Console | None = None, quiet: bool = False) -> None:
        self._console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._quiet = quiet
        self._started_s = time.monotonic()

    def say(self, text: str) -> None:
        """Print one lasting line with the seconds since the command began."""
        if not self._quiet:
            elapsed_s = time.monotonic() - self._started_s
            self._console.print(f"[{elapsed_s:5.1f} s] {text}", markup=False)

    @contextmanager
    def task(self, text: str, total: int = 0, unit: str = "packages") -> Iterator[Task]:
        """Show a task until the block ends; the block moves it with `Task.advance`."""
        task = Task(text, total=total, unit=unit)
        shown = self._live(task) if self._console.is_terminal and not self._quiet else self._lines(task)
        with shown:
            yield task

    @contextmanager
    def _live(self, task: Task) -> Iterator[None]:
        columns = (
            rich_progress.SpinnerColumn(),
            rich_progress.TextColumn("{task.description}"),
            rich_progress.BarColumn(),
            rich_progress.TaskProgressColumn(),
            rich_progress.TimeElapsedColumn(),
        )
        with rich_progress.Progress(*columns, console=self._console, transient=True) as live:
            row = live.add_task(task.text, total=task.total or None)
            with _every(0.2, lambda: live.update(row, completed=task.done, total=task.total or None)):
                yield

    @contextmanager
    def _lines(self, task: Task) -> Iterator[None]:
        with _every(LINE_EVERY_S, lambda: self.say(task.sentence())):
            yield


class Phases:
    """How long each part of a run took, in seconds, in the order in which they began."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Count the block's time for `name`, however it ends; a name may come again."""
        started_s = time.monotonic()
        self.seconds.setdefault(name, 0.0)
        try:
            yield
        finally:
            self.seconds[name] += time.monotonic() - started_s

    def sentence(self) -> str:
        """All of it in a line, e.g. `cluster 61 s, train 12 s`."""
        return ", ".join(f"{name} {seconds:.0f} s" for name, seconds in self.seconds.items())


@contextmanager
def _every(interval_s: float, act: Callable[[], None]) -> Iterator[None]:
    """Call `act` every `interval_s` from a thread while the block runs."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(interval_s):
            act()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
