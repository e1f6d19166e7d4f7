"""Makes score tables in the background, so that no call of kube-scheduler waits for a prediction.

Made are tables for jobs asked about that have none, for pods that kube-scheduler
may ask about soon (core.ahead), for gangs whose members were just bound, and at each
telemetry epoch anew for all in use. In this order of trust: the predictor; the last
table it made, while that one's telemetry is not too old; the analytic prior.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice

from model.placement import Job
from model.snapshot import TelemetrySnapshot
from scheduler.config import ExtenderSettings
from scheduler.core.ahead import Ahead
from scheduler.core.cluster import Cluster
from scheduler.core.estimate import NOBODY, estimated_table, warm
from scheduler.core.scoring import Basis, table_from_model, table_from_prior
from scheduler.core.types import Fallback, PodFacts, Prediction, ScoreTable, TableKey, key_of
from scheduler.core.waiting_pods import is_near
from scheduler.edge.histories import Histories
from scheduler.edge.score_tables import Entry, ScoreTables
from scheduler.edge.table_inputs import Asked, Inputs, Making
from scheduler.edge.waking import woken_within

WAITING_AT_MOST = 1024
"""Tables that may wait to be made; a further one is dropped, counted, and asked for by its next call."""
MEMBERS_LOOKED_AT = 20
"""Waiting members of a gang that get tables when one of it was bound; most are alike."""
LOOK_S = 0.1
"""How soon a new epoch is noticed."""
RETRY_S = 1.0
RETRY_S_MAX = 15.0

log = logging.getLogger(__name__)


@dataclass(slots=True)
class MakerStats:
    """Counts since start, and how the predictor did."""

    made_by_model: int = 0
    made_by_prior: int = 0
    predictor_failures: int = 0
    not_made: int = 0
    """Dropped because too many were waiting to be made."""
    failure: str = ""
    """Why the predictor was of no use the last time it was asked; empty when it was."""
    model_version: str = ""
    """Of its last answer."""


@dataclass(frozen=True, slots=True)
class _Want:
    """A job whose table is to be made; `asked`: a call needs it."""

    job: Job
    asked: bool


@dataclass(slots=True)
class _Wanted:
    """Tables to be made, each key once; the urgent ones go first."""

    urgent: OrderedDict[TableKey, _Want] = field(default_factory=OrderedDict)
    routine: OrderedDict[TableKey, _Want] = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        return len(self.urgent) + len(self.routine)

    def add(self, key: TableKey, want: _Want, *, urgent: bool) -> None:
        """A call that asks keeps its claim when the same table is wanted ahead as well."""
        known = self.urgent.get(key)
        if known is None or not known.asked:
            (self.urgent if urgent else self.routine)[key] = want

    def again(self, jobs: Iterable[Job]) -> None:
        """Make these when nothing is urgent, instead of what was left to do of that kind."""
        self.routine = OrderedDict((key_of(job), _Want(job, asked=False)) for job in jobs)

    def withdraw(self, key: TableKey) -> None:
        """Not wanted ahead any more."""
        self.routine.pop(key, None)
        if key in self.urgent and not self.urgent[key].asked:
            del self.urgent[key]

    def next(self) -> _Want:
        key, want = (self.urgent or self.routine).popitem(last=False)
        self.routine.pop(key, None)
        return want


class TableMaker:
    """Fills `tables`; `want` asks for one, `estimate` has one at once, `run` makes them."""

    def __init__(
        self,
        tables: ScoreTables,
        cluster: Cluster,
        snapshot: Callable[[], TelemetrySnapshot],
        histories: Histories,
        inputs: Making,
        settings: ExtenderSettings,
        clock: Callable[[], float],
        new_id: Callable[[], str],
        *,
        predicts: bool,
    ) -> None:
        self._tables = tables
        self._cluster = cluster
        self._snapshot = snapshot
        self._histories = histories
        self._inputs = inputs
        self._predicts = predicts
        self._settings = settings
        self._clock = clock
        self._new_id = new_id
        self._wanted = _Wanted()
        self._ahead = Ahead(cluster)
        self._wake = asyncio.Event()
        self._epoch = 0
        self._nodes: tuple[str, ...] = ()
        self._nodes_version = -1
        self._draft: Basis | None = None
        self._ask_again_at_s = 0.0
        self._pause_s = RETRY_S
        self.stats = MakerStats()

    @property
    def waiting(self) -> int:
        """Tables still to be made."""
        return len(self._wanted)

    def want(self, job: Job) -> None:
        """Make the table of `job`, which tells its peers, for a call that asks; histories are added."""
        self._want(_Want(job, asked=True), urgent=True)

    def _want(self, want: _Want, *, urgent: bool) -> None:
        if len(self._wanted) >= WAITING_AT_MOST:
            self.stats.not_made += 1
            return
        self._wanted.add(key_of(want.job), want, urgent=urgent)
        self._wake.set()

    def on_pod(self, pod: PodFacts) -> None:
        """A pod appeared or changed: its own table if it waits, its gang's tables if it was bound."""
        if pod.waits:
            self._want_first(pod)
        elif pod.gang:
            for member in list(islice(self._cluster.waiting.of_gang(pod.gang), MEMBERS_LOOKED_AT)):
                self._want_first(member)

    def _want_first(self, pod: PodFacts) -> None:
        """The table of a pod that waits for our scheduler, unless there is one, or its turn is far."""
        if not self._cluster.is_ours(pod) or (pod.gated and not self._ahead.has_place(pod)):
            return
        job = self._cluster.job_of(pod)
        key = key_of(job)
        if not pod.gated:
            self._ahead.leave(key)
        if self._tables.covers(key) or (pod.gated and self._waits_well(pod, key)):
            return
        if pod.gated and (lost := self._ahead.admit(pod, key)) is not None:
            self._wanted.withdraw(lost)
            self._tables.drop_ahead(lost)
        self._want(_Want(job, asked=False), urgent=not pod.gated or is_near(pod))

    def _waits_well(self, pod: PodFacts, key: TableKey) -> bool:
        """True for a pod that needs no table of its own: its turn is far, and its family has one, or will."""
        return not is_near(pod) and (self._tables.serves(key) or self._ahead.serves(key))

    def estimate(self, job: Job) -> Entry | None:
        """A table of the analytic prior at once, from the epoch's draft; None before there is one."""
        draft, now_s = self._draft, self._clock()
        if draft is None or self._too_old(draft.snapshot):
            return None
        table = estimated_table(draft, self._histories.inform(job), self._new_id(), now_s)
        return self._put(table, asked=True)

    async def run(self) -> None:
        """Make tables until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                if self._snapshot().epoch != self._epoch or self._nodes_changed():
                    await self._begin_epoch()
                    tasks.create_task(self._histories.refresh(self._tables.jobs()))
                if self._wanted:
                    await self._make_safely(self._wanted.next())
                else:
                    await self._rest()

    async def _rest(self) -> None:
        self._wake.clear()
        await woken_within(self._wake, LOOK_S)

    async def _begin_epoch(self) -> None:
        snapshot, nodes = self._snapshot(), self._all_nodes()
        self._epoch = snapshot.epoch
        self._tables.drop_idle(self._clock())
        if nodes and not snapshot.is_empty():
            draft = (await self._inputs(self._asked(NOBODY, nodes, snapshot, predict=False))).basis
            await asyncio.to_thread(warm, draft)
            self._draft = draft
        ahead = self._ahead.choose(self._tables.used(), self._tables.ahead_at_most)
        self._tables.keep_ahead(ahead)
        self._wanted.again([*ahead.values(), *self._tables.jobs()])

    def _asked(
        self, job: Job, nodes: tuple[str, ...], snapshot: TelemetrySnapshot, *, predict: bool
    ) -> Asked:
        facts, version = self._cluster.facts, self._cluster.version
        return Asked(job, nodes, snapshot, facts, version, self._clock(), predict)

    async def _make_safely(self, want: _Want) -> None:
        try:
            await self._make(want)
        except Exception:
            log.exception("the score table of job class %r could not be made", want.job.job_class)

    async def _make(self, want: _Want) -> None:
        job, snapshot, nodes = want.job, self._snapshot(), self._all_nodes()
        if not nodes or snapshot.is_empty() or self._too_old(snapshot):
            return
        if not self._histories.knows(job):
            await self._histories.refresh([job])
        informed = self._histories.inform(job)
        inputs = await self._inputs(self._asked(informed, nodes, snapshot, predict=self._asks()))
        if not self._predicts:
            self._put(self._by_prior(inputs.basis, Fallback.NO_PREDICTOR), want.asked)
        elif (table := self._by_model(inputs)) is not None:
            self._put(table, want.asked)
        elif not self._last_is_good(inputs.basis):
            self._put(self._by_prior(inputs.basis, Fallback.PREDICTOR_DOWN), want.asked)

    def _asks(self) -> bool:
        """False where there is no predictor, or it had no answer just now."""
        pause_s = self._ask_again_at_s - self._clock()  # longer than it can be where the clock was ahead
        return self._predicts and not 0.0 < pause_s <= RETRY_S_MAX

    def _by_model(self, inputs: Inputs) -> ScoreTable | None:
        """The predictor's table; None when it has no answer, or was not asked."""
        if inputs.failure:
            self._failed(inputs.failure)
        if inputs.prediction is None:
            return None
        answer = inputs.prediction
        self._succeeded(answer.model_version)
        prediction = Prediction(answer.p10_s, answer.p50_s, answer.p90_s, answer.model_version)
        return table_from_model(inputs.basis, prediction, self._new_id(), self._clock())

    def _failed(self, why: str) -> None:
        if not self.stats.failure:
            log.warning("the predictor is of no use: %s", why)
        self.stats.failure = why
        self.stats.predictor_failures += 1
        self._ask_again_at_s = self._clock() + self._pause_s
        self._pause_s = min(RETRY_S_MAX, 2 * self._pause_s)

    def _succeeded(self, model_version: str) -> None:
        if self.stats.failure:
            log.info("the predictor answers again, with model %s", model_version)
            for job in self._tables.jobs():  # among them those that the prior answered meanwhile
                self._want(_Want(job, asked=False), urgent=False)
        self.stats.failure, self.stats.model_version = "", model_version
        self._pause_s = RETRY_S

    def _last_is_good(self, basis: Basis) -> bool:
        last = self._tables.peek(basis.key)
        return last is not None and last.from_model and not self._too_old(last.snapshot)

    def _too_old(self, snapshot: TelemetrySnapshot) -> bool:
        return self._clock() - snapshot.taken_at_s > self._settings.max_epoch_age_s

    def _by_prior(self, basis: Basis, reason: Fallback) -> ScoreTable:
        return table_from_prior(basis, reason, self._new_id(), self._clock())

    def _put(self, table: ScoreTable, asked: bool) -> Entry:
        self.stats.made_by_model += table.from_model
        self.stats.made_by_prior += not table.from_model
        return self._tables.put(table, self._clock(), asked=asked)

    def _nodes_changed(self) -> bool:
        return self._nodes_version != self._cluster.nodes_version

    def _all_nodes(self) -> tuple[str, ...]:
        if self._nodes_changed():
            self._nodes = tuple(self._cluster.facts)
            self._nodes_version = self._cluster.nodes_version
        return self._nodes
