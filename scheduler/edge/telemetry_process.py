"""The telemetry poller in a process of its own, for those who must answer within milliseconds.

Decoding the answers for 5,000 nodes keeps a core busy for a second or two,
and a thread that does so makes every other thread of its process wait. Here
only the finished arrays cross over, which takes a millisecond. A child that
dies is started again; meanwhile the last snapshot stays and grows old.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection

from model.snapshot import EMPTY, TelemetrySnapshot
from scheduler.config import Settings
from scheduler.edge.children import SPAWN, become_child, end
from scheduler.edge.crossing import receive, send
from scheduler.edge.node_mapping import NodeIdentity
from scheduler.edge.readings import ReadingReport
from scheduler.edge.sources import load_sources
from scheduler.edge.telemetry import Nodes, PollerStats, TelemetryPoller

_RESTART_S = (1.0, 30.0)
_NODES_EVERY_S = 1.0
_NICENESS = 10
"""A poll takes a second or two of a core where there are thousands of nodes: it yields to answers."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _State:
    """What the child sends after every poll; the snapshot only when it is new."""

    snapshot: TelemetrySnapshot | None
    reports: tuple[ReadingReport, ...]
    stats: PollerStats


class IsolatedPoller:
    """As `TelemetryPoller`, but its work is done by a child process from `start` to `stop`."""

    def __init__(self, settings: Settings, nodes: Nodes) -> None:
        load_sources(settings)  # a mistake in the sources is raised here, not in the child
        self._settings = settings
        self._nodes = nodes
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.snapshot: TelemetrySnapshot = EMPTY
        self.reports: tuple[ReadingReport, ...] = ()
        self.stats = PollerStats()
        self.restarts = 0
        self.pid: int | None = None

    def __enter__(self) -> IsolatedPoller:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the child, and a thread that passes on what it sends."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the child and the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        wait_s = _RESTART_S[0]
        while not self._stop.is_set():
            begun_s = time.monotonic()
            try:
                end = f"ended with code {self._follow_one_child()}"
            except Exception as error:  # noqa: BLE001 - this thread must outlive every mistake, and tell it
                end = f"could not be followed ({type(error).__name__}: {error})"
            if self._stop.is_set():
                return
            wait_s = (
                _RESTART_S[0]
                if time.monotonic() - begun_s > _RESTART_S[1]
                else min(2 * wait_s, _RESTART_S[1])
            )
            failure = f"The telemetry process {end}; it is started again in {wait_s:.0f} s."
            log.warning("no new telemetry: %s", failure)
            self.stats = replace(self.stats, failures=self.stats.failures + 1, failure=failure)
            self.restarts += 1
            self._stop.wait(wait_s)

    def _follow_one_child(self) -> int | None:
        ours, theirs = SPAWN.Pipe()
        arguments = (theirs, self._settings, self.snapshot.epoch, self.stats)
        child = SPAWN.Process(target=poll_for_parent, args=arguments, name="telemetry", daemon=True)
        child.start()
        theirs.close()
        self.pid = child.pid
        try:
            self._pass_on(ours)
        except (EOFError, OSError):
            pass  # the child is gone
        finally:
            ours.close()
            end(child)
        return child.exitcode

    def _pass_on(self, ours: Connection) -> None:
        sent: tuple[NodeIdentity, ...] | None = None
        while not self._stop.is_set():
            nodes = tuple(self._nodes())
            if nodes != sent:
                ours.send(nodes)
                sent = nodes
            if ours.poll(_NODES_EVERY_S):
                self._take_over(receive(ours))

    def _take_over(self, state: _State) -> None:
        if state.snapshot is not None:
            self.snapshot = state.snapshot
        self.reports = state.reports
        self.stats = state.stats


def poll_for_parent(parent: Connection, settings: Settings, epoch: int, stats: PollerStats) -> None:
    """The child: poll with the nodes that the parent sends, until the parent is gone."""
    become_child(_NICENESS, settings.log_format)
    nodes: Sequence[NodeIdentity] = ()
    sent = epoch

    def tell() -> None:
        nonlocal sent
        new = poller.snapshot if poller.snapshot.epoch != sent else None
        with suppress(OSError):
            send(parent, _State(new, poller.reports, poller.stats))
            sent = poller.snapshot.epoch

    poller = TelemetryPoller(settings, lambda: nodes, after_poll=tell)
    poller.snapshot = replace(EMPTY, epoch=epoch)
    poller.stats = replace(stats, failure="")
    with suppress(EOFError, OSError):
        nodes = parent.recv()
        with poller:
            while True:
                nodes = parent.recv()
