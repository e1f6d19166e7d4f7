"""The inputs of score tables made by a process of its own, for those who must answer within milliseconds.

Rows of 5,000 nodes keep a core busy for 20 ms, and asking the predictor about them
for as long again. A thread that does so makes the answers of its process wait: of
1,000 calls at 5,000 nodes one in a hundred took over 6 ms, and 4 without. Here
finished arrays cross over. While there is no child, the work is done in this process.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

from model.placement import Job, NodeFacts
from model.snapshot import EMPTY, Floats, Indices, TelemetrySnapshot
from scheduler.config import Settings
from scheduler.core.cluster import Cluster
from scheduler.core.scoring import Basis
from scheduler.core.types import Mask
from scheduler.edge.crossing import receive, send
from scheduler.edge.memory import keep_freed_memory
from scheduler.edge.predictions import PredictionClient, Predictions
from scheduler.edge.table_inputs import Asked, Inputs, inputs_of
from scheduler.edge.telemetry_process import end, plain_fields
from scheduler.edge.yielding import yield_processor
from scheduler.structured_logs import set_up_logs

RESTART_S = 10.0
"""So long after the loss of a child the next one is started."""
ANSWER_S_MAX = 30.0
"""A child that takes longer, beside the deadline of the predictor, is stuck."""
_NICENESS = 5
_FACTS_AT_ONCE = 500
"""Facts of nodes in one message: to write 5,000 of them would hold up the answers for long."""
_SPAWN = multiprocessing.get_context("spawn")
"""A fork would copy the locks of the event loop's threads in whatever state they are."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _News:
    """What the child does not know yet: another epoch, other nodes, facts (None: the node is gone)."""

    snapshot: dict[str, Any] | None = None
    nodes: tuple[str, ...] | None = None
    facts: Sequence[tuple[str, NodeFacts | None]] = ()


@dataclass(frozen=True, slots=True)
class _Request:
    """Inputs are wanted, of what the child knows by now."""

    job: Job
    view_version: int
    now_s: float
    predict: bool


@dataclass(frozen=True, slots=True)
class _Made:
    """The inputs, without what the parent has itself; `mistake`: there are none, for a fault of ours."""

    features: Floats | None = None
    in_snapshot: Indices | None = None
    measured: Mask | None = None
    prediction: Predictions | None = None
    failure: str = ""
    mistake: str = ""


@dataclass(slots=True)
class _Known:
    """What the child knows; to the parent, what it was told. Compared by identity: all are immutable."""

    snapshot: TelemetrySnapshot = EMPTY
    nodes: tuple[str, ...] = ()
    version: int | None = None
    facts: dict[str, NodeFacts] = field(default_factory=dict)

    def learn(self, news: _News) -> None:
        """Take over what is new."""
        if news.snapshot is not None:
            self.snapshot = TelemetrySnapshot(**news.snapshot)
        if news.nodes is not None:
            self.nodes = news.nodes
        for name, facts in news.facts:
            if facts is None:
                self.facts.pop(name, None)
            else:
                self.facts[name] = facts


class MistakeError(Exception):
    """The child could not make what it was asked for; its log says more."""


class IsolatedInputs:
    """As `inputs_of` with the facts of `cluster`, but its work is done by a child process until `stop`.

    `failure` says why it is not, and is empty otherwise. One call at a time.
    """

    def __init__(self, settings: Settings, cluster: Cluster, predictor: PredictionClient | None) -> None:
        self._settings, self._cluster, self._predictor = settings, cluster, predictor
        self._child: SpawnProcess | None = None
        self._pipe: Connection | None = None
        self._told = _Known()
        self._again_at_s = 0.0
        self._stopped = False
        self.restarts = 0
        self.failure = ""

    @property
    def pid(self) -> int | None:
        """Of the child; None while there is none."""
        return None if self._child is None else self._child.pid

    async def __call__(self, asked: Asked) -> Inputs:
        """The inputs of a table.

        Raises:
            MistakeError: a fault of ours; asking again would bring the same.
        """
        if time.monotonic() < self._again_at_s or self._stopped:
            return await inputs_of(asked, self._predictor)
        news = self._news(asked)  # before anything else can change the cluster
        try:
            made = await asyncio.to_thread(self._exchange, news, asked)
        except (EOFError, OSError) as error:
            self._lose(error)
            return await inputs_of(asked, self._predictor)
        self.failure = ""
        if made.features is None or made.in_snapshot is None or made.measured is None:
            raise MistakeError(made.mistake)
        rows = (made.in_snapshot, made.measured, made.features)
        basis = Basis(asked.job, asked.snapshot, asked.nodes, *rows, asked.view_version)
        return Inputs(basis, made.prediction, made.failure)

    def stop(self) -> None:
        """End the child; it keeps nothing that would be lost."""
        self._stopped = True
        child, pipe = self._child, self._pipe
        self._child = self._pipe = None
        if child is not None and pipe is not None:
            child.kill()
            child.join()
            pipe.close()

    def _news(self, asked: Asked) -> list[_News]:
        told, facts = self._told, self._changed(asked)
        first = _News(
            snapshot=plain_fields(asked.snapshot) if asked.snapshot is not told.snapshot else None,
            nodes=asked.nodes if asked.nodes is not told.nodes else None,
        )
        told.snapshot, told.nodes, told.version = asked.snapshot, asked.nodes, asked.view_version
        starts = range(0, len(facts), _FACTS_AT_ONCE)
        return [first, *(_News(facts=facts[start : start + _FACTS_AT_ONCE]) for start in starts)]

    def _changed(self, asked: Asked) -> list[tuple[str, NodeFacts | None]]:
        told, facts = self._told, asked.facts
        names = None if told.version is None else self._cluster.changes_since(told.version)
        changed = facts if names is None else names
        gone = [] if asked.nodes is told.nodes else [name for name in told.nodes if name not in facts]
        return [(name, facts.get(name)) for name in (*changed, *gone)]

    def _exchange(self, news: Sequence[_News], asked: Asked) -> _Made:
        pipe = self._pipe or self._start()
        for one in news:
            send(pipe, replace(one, facts=[(name, _portable(facts)) for name, facts in one.facts]))
        send(pipe, _Request(asked.job, asked.view_version, asked.now_s, asked.predict))
        if not pipe.poll(ANSWER_S_MAX + self._settings.extender.predict_timeout_s):
            raise OSError("it does not answer")
        made: _Made = receive(pipe)
        return made

    def _start(self) -> Connection:
        self._pipe, theirs = _SPAWN.Pipe()
        self._child = _SPAWN.Process(
            target=make_for_parent, args=(theirs, self._settings), name="tables", daemon=True
        )
        self._child.start()
        theirs.close()
        return self._pipe

    def _lose(self, error: Exception) -> None:
        child, pipe = self._child, self._pipe
        self._child, self._pipe, self._told = None, None, _Known()
        if child is None or pipe is None:  # stopped meanwhile, on purpose
            return
        child.kill()
        end(child)
        pipe.close()
        self._again_at_s = time.monotonic() + RESTART_S
        self.restarts += 1
        self.failure = (
            f"the process that makes score tables was lost ({error or 'it ended'}, "
            f"exit code {child.exitcode}); the extender makes them itself until it is started again"
        )
        log.warning("answers may be late: %s", self.failure)


def _portable(facts: NodeFacts | None) -> NodeFacts | None:
    """Read-only views do not cross."""
    if facts is None:
        return None
    return replace(facts, residents_by_framework=dict(facts.residents_by_framework))


def make_for_parent(parent: Connection, settings: Settings) -> None:
    """The child: make inputs of what the parent tells and asks, until the parent is gone."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the parent decides; its end closes the pipe
    os.setsid()  # a session of its own, whose niceness counts beside other processes too
    yield_processor(_NICENESS)
    keep_freed_memory()
    set_up_logs(settings.log_format)
    with suppress(EOFError, OSError):
        asyncio.run(_make(parent, settings))


async def _make(parent: Connection, settings: Settings) -> None:
    known = _Known()
    async with AsyncExitStack() as stack:
        predictor = None
        if settings.predictor_address:
            client = PredictionClient.to(settings, settings.extender.predict_timeout_s)
            predictor = await stack.enter_async_context(client)
        while True:
            what = await asyncio.to_thread(receive, parent)
            if isinstance(what, _News):
                known.learn(what)
            else:
                await asyncio.to_thread(send, parent, await _made(what, known, predictor))


async def _made(request: _Request, known: _Known, predictor: PredictionClient | None) -> _Made:
    here = (known.nodes, known.snapshot, known.facts)
    asked = Asked(request.job, *here, request.view_version, request.now_s, request.predict)
    try:
        inputs = await inputs_of(asked, predictor)
    except Exception as error:
        log.exception("the inputs of the score table of job class %r", request.job.job_class)
        return _Made(mistake=f"{type(error).__name__}: {error}")
    basis = inputs.basis
    return _Made(basis.features, basis.in_snapshot, basis.measured, inputs.prediction, inputs.failure)
