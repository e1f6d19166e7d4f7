"""The inputs of score tables made by a process of its own, for those who must answer within milliseconds.

Rows of 5,000 nodes keep a core busy for 20 ms, and asking the predictor about them
for as long again; a thread that does so makes the answers of its process wait. Here
finished arrays cross over. While there is no child, the work is done in this process.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from model.placement import Job, NodeFacts
from model.snapshot import EMPTY, Floats, Indices, TelemetrySnapshot
from scheduler.config import Settings
from scheduler.core.cluster import Cluster
from scheduler.core.scoring import Basis
from scheduler.core.types import Mask
from scheduler.edge.children import SPAWN, become_child
from scheduler.edge.crossing import receive, send
from scheduler.edge.memory import keep_freed_memory
from scheduler.edge.predictions import PredictionClient, Predictions
from scheduler.edge.table_inputs import Asked, Inputs, inputs_of

RESTART_S = 10.0
"""So long after the loss of a child the next one is started."""
ANSWER_S_MAX = 30.0
"""A child that takes longer, beside the deadline of the predictor, is stuck."""
_NICENESS = 5
_FACTS_AT_ONCE = 500
"""Facts of nodes in one message: to write 5,000 of them would hold up the answers for long."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _News:
    """What the child does not know yet: another epoch, other nodes, facts (None: the node is gone)."""

    snapshot: TelemetrySnapshot | None = None
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
            self.snapshot = news.snapshot
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
        except Exception as error:  # noqa: BLE001 - whatever it is, what the child knows is not certain any more
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
        self._drop()

    def _news(self, asked: Asked) -> list[_News]:
        told, facts = self._told, self._changed(asked)
        first = _News(
            snapshot=asked.snapshot if asked.snapshot is not told.snapshot else None,
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
            send(pipe, one)
        send(pipe, _Request(asked.job, asked.view_version, asked.now_s, asked.predict))
        if not pipe.poll(ANSWER_S_MAX + self._settings.extender.predict_timeout_s):
            raise OSError("it does not answer")
        made: _Made = receive(pipe)
        return made

    def _start(self) -> Connection:
        ours, theirs = SPAWN.Pipe()
        arguments = (theirs, self._settings)
        child = SPAWN.Process(target=make_for_parent, args=arguments, name="tables", daemon=True)
        child.start()
        theirs.close()
        self._child, self._pipe = child, ours
        return ours

    def _lose(self, error: Exception) -> None:
        code = self._drop()
        if self._stopped:
            return
        self._again_at_s = time.monotonic() + RESTART_S
        self.restarts += 1
        self.failure = (
            f"the process that makes score tables was lost ({str(error) or 'it ended'}, "
            f"exit code {code}); the extender makes them itself until it is started again"
        )
        log.warning("answers may be late: %s", self.failure)

    def _drop(self) -> int | None:
        """End the child, and forget what it knew; its exit code."""
        child, pipe = self._child, self._pipe
        self._child, self._pipe, self._told = None, None, _Known()
        if child is None or pipe is None:
            return None
        child.kill()
        child.join()
        pipe.close()
        return child.exitcode


def make_for_parent(parent: Connection, settings: Settings) -> None:
    """The child: make inputs of what the parent tells and asks, until the parent is gone."""
    become_child(_NICENESS, settings.log_format)
    keep_freed_memory()
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
