"""One call of kube-scheduler: look up the table, bring it up to date, rank. No I/O, no waiting.

What need not happen before the answer (the record, the assumed binding) is
handed back as `Answer.afterwards`.
"""

from __future__ import annotations

import logging
import math
import time
from bisect import bisect_left
from collections import ChainMap, Counter
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import cast

import msgspec

from model.placement import Job, NodeFacts
from model.snapshot import Floats, Indices, TelemetrySnapshot
from scheduler.core.candidate_names import CandidateNames, OfferedNames
from scheduler.core.cluster import Cluster
from scheduler.core.estimate import adapted, compared, exact_rows
from scheduler.core.jobs import Descriptions
from scheduler.core.opinions import Advice, Opinion, Silence
from scheduler.core.preferences import has_preferences, would_rather_not
from scheduler.core.ranking import SAME, Exploration, rank
from scheduler.core.records import Decision, Judged, Moment, RowBuilder
from scheduler.core.scoring import bring_up_to_date, tie_break_of
from scheduler.core.types import (
    Candidates,
    Fallback,
    Offered,
    PodFacts,
    Ranking,
    ScoreTable,
    TableKey,
    key_of,
)
from scheduler.core.wire import BadRequest, Pod, decode_extender_args, encode_filtered, encode_priorities
from scheduler.edge.decisions import DecisionLog
from scheduler.edge.score_tables import Entry, ScoreTables
from scheduler.edge.table_maker import TableMaker

LATENCY_BUCKETS_S = (0.00025, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)

LOOKED_UP_AT_MOST = 8
"""Nodes that were not offered and might be now: to look for one takes a tenth of what reading all takes."""
RANKED_AT_MOST = 3
"""Rankings of one call: the best nodes fill up, and are not offered any more."""
FEW_WAIT = 3
"""Where no more pods wait for kube-scheduler, it asks about each of them in a moment."""

log = logging.getLogger(__name__)


class Answer(msgspec.Struct, frozen=True):
    """The body of the answer, and what is left to do once it is sent."""

    body: bytes
    afterwards: Callable[[], None]


Encode = Callable[[Pod, OfferedNames, Opinion | Silence], bytes]
"""The body of an answer, from the pod, the names of its candidates and what is thought of them."""


@dataclass(slots=True)
class CallStats:
    """Counts since start."""

    calls: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    """Answers by fallback reason; the empty reason is a fresh prediction."""
    explored: int = 0
    last_call_s: float = 0.0
    """Unix time of the last call; 0 before the first."""
    latency_sum_s: float = 0.0
    latency_counts: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BUCKETS_S) + 1))
    """Calls per bucket of LATENCY_BUCKETS_S, the last one for slower calls."""

    def count(self, reason: Fallback, latency_s: float, now_s: float, explored: bool) -> None:
        """One answered call."""
        self.calls += 1
        self.reasons[reason] += 1
        self.explored += explored
        self.last_call_s = now_s
        self.latency_sum_s += latency_s
        self.latency_counts[bisect_left(LATENCY_BUCKETS_S, latency_s)] += 1


class Prioritizer:
    """Answers calls of kube-scheduler from what is in memory; keeps `stats`."""

    def __init__(
        self,
        cluster: Cluster,
        descriptions: Descriptions,
        tables: ScoreTables,
        maker: TableMaker,
        decisions: DecisionLog,
        snapshot: Callable[[], TelemetrySnapshot],
        *,
        max_listed: int,
        max_epoch_age_s: float,
        exploration: Exploration,
        clock: Callable[[], float],
        draw: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        self._cluster = cluster
        self._descriptions = descriptions
        self._tables = tables
        self._maker = maker
        self._decisions = decisions
        self._snapshot = snapshot
        self._max_listed = max_listed
        self._max_epoch_age_s = max_epoch_age_s
        self._exploration = exploration
        self._clock = clock
        self._draw = draw
        self._new_id = new_id
        self._names = CandidateNames()
        self._offered = Offered()
        self.stats, self.advised = CallStats(), CallStats()

    def filter(self, body: bytes) -> Answer:
        """The best node of the call in `body`, so that nothing is left to score; all without an opinion.

        Where the pod has preferences, or the node would rather not have it (PreferNoSchedule), the near
        ties are left too, for kube-scheduler to weigh them.

        Raises:
            BadRequest: it is not a usable call.
        """

        def kept(pod: Pod, names: OfferedNames, opinion: Opinion | Silence) -> bytes:
            if isinstance(opinion, Silence):
                return encode_filtered(names.all())
            first = opinion.first
            weighed = has_preferences(pod.spec) or would_rather_not(pod.spec, self._cluster.taints(first))
            return encode_filtered(opinion.near() if weighed else [first])

        return self._answer(body, kept)

    def prioritize(self, body: bytes) -> Answer:
        """The best nodes of the call in `body` with scores, to be weighed against those of other plugins.

        Raises:
            BadRequest: it is not a usable call.
        """
        return self._answer(body, lambda _pod, _names, opinion: encode_priorities(opinion.listed()))

    def _answer(self, body: bytes, encode: Encode) -> Answer:
        begun_s = time.perf_counter()
        args = decode_extender_args(body)
        now_s = self._clock()
        pod = self._descriptions.of(args.Pod).pod
        names = self._names.of(args)
        opinion = self._safe_opinion(pod, names, now_s)
        answer = encode(args.Pod, names, opinion)
        latency_s = time.perf_counter() - begun_s
        self._count(self.stats, opinion, latency_s, now_s)

        def afterwards() -> None:
            self._record(pod, opinion, names, now_s, latency_s, at_release=False)
            self._assume(pod, opinion, now_s)

        return Answer(answer, afterwards)

    def advise(self, pod: PodFacts, names: tuple[str, ...]) -> Advice:
        """The same for a pod that is about to be released, recorded and assumed at once.

        So the next one that is asked about sees it where it will be.
        """
        begun_s, now_s = time.perf_counter(), self._clock()
        offered = OfferedNames.of(names)
        opinion = self._safe_opinion(pod, offered, now_s)
        listed = opinion.listed()
        latency_s = time.perf_counter() - begun_s
        self._count(self.advised, opinion, latency_s, now_s)
        self._record(pod, opinion, offered, now_s, latency_s, at_release=True)
        self._assume(pod, opinion, now_s)
        return Advice(listed, opinion.reason)

    def prepare(self, pod: PodFacts) -> None:
        """Before kube-scheduler asks about a pod that just came, do what its answer would have to do first.

        Its table is brought up to date. Where many wait that would be in vain: others are bound before it.
        """
        if not pod.waits or pod.gated or self._cluster.waiting.open_count > FEW_WAIT:
            return
        now_s = self._clock()
        if self._cluster.is_ours(pod) and (
            found := self._tables.find(key_of(self._cluster.job_of(pod)), now_s)
        ):
            self._bring_up_to_date(found, now_s)

    def _assume(self, pod: PodFacts, opinion: Opinion | Silence, now_s: float) -> None:
        """The pod counts on the best node, until the watch tells where it went."""
        if isinstance(opinion, Opinion):
            self._cluster.assume(pod, opinion.first, now_s, opinion.link_s())

    @staticmethod
    def _count(stats: CallStats, opinion: Opinion | Silence, latency_s: float, now_s: float) -> None:
        explored = isinstance(opinion, Opinion) and opinion.ranking.explored
        stats.count(opinion.reason, latency_s, now_s, explored)

    def _safe_opinion(self, pod: PodFacts, names: OfferedNames, now_s: float) -> Opinion | Silence:
        try:
            return self._opinion(pod, names, now_s)
        except BadRequest:
            raise
        except Exception:  # a fault of ours may cost the opinion, never the placement
            log.exception("no opinion on %s/%s", pod.namespace, pod.name)
            return Silence(Fallback.ERROR)

    def _opinion(self, pod: PodFacts, names: OfferedNames, now_s: float) -> Opinion | Silence:
        self._cluster.expire(now_s)
        snapshot = self._snapshot()
        if self._is_old(snapshot, now_s):
            return Silence(Fallback.STALE_TELEMETRY if snapshot.epoch else Fallback.NO_TELEMETRY)
        job = self._cluster.job_of(pod)
        key = key_of(job)
        found, reason = self._look_up(job, key, now_s)
        if found is None:
            return Silence(Fallback.NO_TELEMETRY if snapshot.is_empty() else Fallback.MISS)
        self._bring_up_to_date(found, now_s)
        corrections, is_own = found.corrections, found.table.key == key
        if not is_own:
            corrections = adapted(found.table, corrections, job)
        log_s = found.table.ranked + corrections.shift
        ranking = self._at_once(found.table, names, log_s, pod)
        if ranking is None:
            candidates = self._offered.of(found.table, names.all())
            if not len(candidates.rows):
                return Silence(Fallback.NO_CANDIDATES)
            ranking = self._ranking(found.table, candidates, log_s, pod)
            if not _is_measured(found.table, candidates, ranking):
                return Silence(Fallback.NO_TELEMETRY)
            if ranking is None:
                return Silence(Fallback.NO_DIFFERENCE)
        estimated = not is_own or reason is Fallback.MISS
        return Opinion(reason, job, estimated, found.table, ranking, corrections)

    def _look_up(self, job: Job, key: TableKey, now_s: float) -> tuple[Entry | None, Fallback]:
        """The table to read, and why it is not simply the right one."""
        found = self._tables.find(key, now_s)
        if found is not None and not self._is_old(found.table.snapshot, now_s):
            stale = found.table.from_model and self._snapshot().epoch > found.table.snapshot.epoch + 1
            return found, Fallback.STALE_TABLE if stale else found.table.reason
        if not self._tables.covers(key):
            self._maker.want(job)
        near = self._tables.nearest(key, now_s)
        if near is not None and not self._is_old(near.table.snapshot, now_s):
            other = Fallback.SIMILAR if near.table.key.placed_alike(key) else Fallback.PEERS
            return near, near.table.reason or other
        return self._maker.estimate(job), Fallback.MISS

    def _is_old(self, snapshot: TelemetrySnapshot, now_s: float) -> bool:
        return now_s - snapshot.taken_at_s > self._max_epoch_age_s

    def _bring_up_to_date(self, found: Entry, now_s: float) -> None:
        since = found.corrections.view_version
        if since == self._cluster.version:
            return
        changed = self._cluster.changes_since(since)
        if changed is None:  # too many to go through one by one: a new table costs less
            self._maker.want(found.table.job)
            changed = ()
        facts, version = self._cluster.facts, self._cluster.version
        bring_up_to_date(found.corrections, found.table, changed, facts, version, now_s)

    def _at_once(
        self, table: ScoreTable, names: OfferedNames, log_s: Floats, pod: PodFacts
    ) -> Ranking | None:
        """The ranking, without reading all names: that takes longer than all the rest of an answer.

        It is that of the candidates of the call before, without the best that are not offered any more, where
        nobody better is new. None where that is not so, or where it depends on the others if there is one.
        """
        last = self._offered.last(table)
        if names.are_read or last is None or self._exploration.rate > 0:
            return None
        candidates, others = last
        ranking = self._held(table, names, candidates, log_s, pod)
        if ranking is None or not table.measured[ranking.order[0]]:
            return None
        listed = log_s[ranking.order].tolist()
        is_full = len(listed) == self._max_listed
        if listed[-1] - listed[0] <= SAME and (is_full or len(listed) > 1):
            return None  # perhaps all are alike, and there is no opinion
        better = others.rows[others.of(log_s) <= (listed[-1] + SAME if is_full else math.inf)]
        if len(better) > LOOKED_UP_AT_MOST or any(names.hold(table.nodes[row]) for row in better.tolist()):
            return None
        return ranking

    def _held(
        self,
        table: ScoreTable,
        names: OfferedNames,
        candidates: Candidates,
        log_s: Floats,
        pod: PodFacts,
    ) -> Ranking | None:
        """The ranking of the candidates without the best of them that are not offered any more."""
        for _ in range(RANKED_AT_MOST):
            ranking = self._ranking(table, candidates, log_s, pod)
            if ranking is None:
                return None
            gone = [row for row in ranking.order.tolist() if not names.hold(table.nodes[row])]
            if not gone:
                return ranking
            candidates = self._offered.leave_out(gone)
        return None

    def _ranking(
        self, table: ScoreTable, candidates: Candidates, log_s: Floats, pod: PodFacts
    ) -> Ranking | None:
        """Of the candidates, in rows of the table."""
        ranking = rank(
            candidates.of(log_s),
            candidates.of(table.sigma),
            lambda some: tie_break_of(table, candidates.rows[some], pod.uid),
            self._max_listed,
            self._exploration,
            (self._draw(), self._draw()),
        )
        return ranking if ranking is None or candidates.everyone else ranking.in_rows(candidates.rows)

    def _record(
        self,
        pod: PodFacts,
        opinion: Opinion | Silence,
        names: OfferedNames,
        now_s: float,
        latency_s: float,
        *,
        at_release: bool,
    ) -> None:
        snapshot = opinion.table.snapshot if isinstance(opinion, Opinion) else self._snapshot()
        moment = Moment(
            decision_id=self._new_id(),
            at_s=now_s,
            latency_ms=latency_s * 1000.0,
            epoch=snapshot.epoch,
            epoch_age_s=now_s - snapshot.taken_at_s,
            reason=opinion.reason,
            at_release=at_release,
        )
        judged = None if isinstance(opinion, Silence) else self._judged(opinion, now_s)
        self._names.put_off(names)
        self._decisions.add(Decision(pod, moment, partial(_all_of, names), judged))

    def _judged(self, opinion: Opinion, now_s: float) -> Judged:
        table, shift, facts = opinion.table, opinion.corrections.shift, self._cluster.facts
        rows = opinion.rows
        names = [table.nodes[row] for row in rows.tolist()]
        # the pod itself will count on its node in a moment, but did not when it was judged
        residents = {name: facts[name] for name in names if name in facts}
        shifted = shift.nonzero()[0]
        exact = self._exact_rows(opinion, rows, names, residents, now_s) if opinion.estimated else None
        return Judged(table, opinion.ranking, shifted, shift[shifted], residents, exact)

    def _exact_rows(
        self,
        opinion: Opinion,
        rows: Indices,
        names: Sequence[str],
        residents: MutableMapping[str, NodeFacts],
        now_s: float,
    ) -> RowBuilder:
        """How to build the rows of the listed nodes, of which the answer only had an estimate."""
        table, past = opinion.table, opinion.table.job
        seen = compared(table, opinion.corrections, rows)
        informed = replace(opinion.job, class_history=past.class_history, user_history=past.user_history)
        facts = ChainMap(residents, cast(MutableMapping[str, NodeFacts], self._cluster.facts))
        return lambda: (rows.tolist(), exact_rows(seen, informed, names, table.snapshot, facts, now_s))


def _all_of(names: OfferedNames) -> tuple[str, ...]:
    """All names of a call that is answered; none where they prove not to be names."""
    try:
        return names.all()
    except BadRequest as error:
        log.warning("a call was answered and its candidates are not recorded: %s", error)
        return ()


def _is_measured(table: ScoreTable, candidates: Candidates, ranking: Ranking | None) -> bool:
    """Whether anything is known of any candidate; mostly it is of the first."""
    if ranking is not None and table.measured[ranking.order[0]]:
        return True
    return bool(candidates.of(table.measured).any())
