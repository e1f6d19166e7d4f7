"""The placing path under a clock of its own: what answers when telemetry, predictor and watch come and go."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from msgspec import structs
from placing_builders import JOB, NODES, a_call, a_pod, a_snapshot, a_table, node_of

from model.features import NEIGHBOURS
from model.snapshot import EMPTY, Floats, TelemetrySnapshot
from scheduler.config import ExtenderSettings
from scheduler.core import candidate_names
from scheduler.core.ahead import GATED_AHEAD
from scheduler.core.candidate_names import OfferedNames
from scheduler.core.cluster import ASSUMED_S, Cluster
from scheduler.core.jobs import Descriptions
from scheduler.core.ranking import NO_EXPLORATION, Exploration
from scheduler.core.records import Batch, BatchReply, DecisionRecord
from scheduler.core.table_records import TableRecord, table_record
from scheduler.core.types import Fallback, PodFacts, ScoreTable, key_of
from scheduler.edge import decisions, prioritizer
from scheduler.edge.decisions import PAUSE_S, DecisionLog
from scheduler.edge.histories import Histories
from scheduler.edge.predictions import PredictionError, Predictions
from scheduler.edge.prioritizer import Prioritizer
from scheduler.edge.recorder_client import RecorderError
from scheduler.edge.score_tables import ScoreTables
from scheduler.edge.table_inputs import inputs_of
from scheduler.edge.table_maker import TableMaker

EPOCH_S = 15.0
UNEVEN = {"cpu_use": {"a": 0.9, "c": 0.9, "d": 0.9}}
"""Readings that make the prior prefer node b."""


class ModelServer:
    """Predicts that node `best` takes 5 s and every other `others_s`; fails while `failure` is set."""

    def __init__(self) -> None:
        self.best = "c"
        self.others_s = 10.0
        self.failure = ""
        self.calls = 0

    async def predict(self, names: Any, features: Floats, job_class: str) -> Predictions:  # noqa: ARG002
        self.calls += 1
        if self.failure:
            raise PredictionError(self.failure)
        p50 = np.array([5.0 if name == self.best else self.others_s for name in names])
        return Predictions("m1", p50 * 0.9, p50, p50 * 1.1)


class Store:
    """Keeps the decisions it is sent; refuses while `failure` is set."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.failure: RecorderError | None = None
        self.missing: list[str] = []

    async def send(self, batch: Batch) -> BatchReply:
        if self.failure is not None:
            raise self.failure
        self.batches.append(batch)
        missing, self.missing = self.missing, []
        return BatchReply(len(batch.decisions), missing)

    @property
    def decisions(self) -> list[DecisionRecord]:
        return [one for batch in self.batches for one in batch.decisions]


class Stage:
    """The parts of an extender around four nodes, driven step by step."""

    def __init__(self, exploration: Exploration = NO_EXPLORATION, **settings: Any) -> None:
        self.now_s = 1000.0
        self.snapshot: TelemetrySnapshot = EMPTY
        self.model, self.store = ModelServer(), Store()
        self.cluster = Cluster()
        self.cluster.set_nodes([node_of(name) for name in NODES])
        own = ExtenderSettings(**settings)
        ids = itertools.count()
        self.tables = ScoreTables(own.max_tables, own.table_idle_s)
        self.maker = TableMaker(
            self.tables,
            self.cluster,
            lambda: self.snapshot,
            Histories(None, self.clock),
            partial(inputs_of, predictor=self.model),  # type: ignore[arg-type]
            own,
            self.clock,
            lambda: f"id{next(ids)}",
            predicts=True,
        )
        self.log = DecisionLog(
            self.store,  # type: ignore[arg-type]
            own.decision_buffer,
            own.decision_batch,
            own.flush_s,
            own.hold_s,
            lambda: self.now_s,
        )
        self.prioritizer = Prioritizer(
            self.cluster,
            Descriptions(),
            self.tables,
            self.maker,
            self.log,
            lambda: self.snapshot,
            max_listed=own.max_listed,
            max_epoch_age_s=own.max_epoch_age_s,
            exploration=exploration,
            clock=self.clock,
            draw=lambda: 0.0,
            new_id=lambda: f"d{next(ids)}",
        )

    def clock(self) -> float:
        return self.now_s

    async def epoch(self, **readings: Any) -> None:
        """A new telemetry snapshot, and time for the tables to follow."""
        self.now_s += EPOCH_S
        number = self.snapshot.epoch + 1
        self.snapshot = a_snapshot(epoch=number, taken_at_s=self.now_s, **readings)
        await self.maker._begin_epoch()
        await self.settle()

    async def settle(self) -> None:
        """Make all tables that are wanted."""
        while self.maker.waiting:
            await self.maker._make_safely(self.maker._wanted.next())

    async def learns(self, others_s: float) -> None:
        """A first pod has asked, and the model's table is there: every node but its best takes so long."""
        self.model.others_s = others_s
        await self.epoch()
        self.place("0")
        await self.settle()

    def place(self, uid: str = "u", nodes: tuple[str, ...] = NODES, **annotations: str) -> list[str]:
        """Nodes listed for a pod, best first."""
        answer = self.prioritizer.prioritize(self.call(uid, nodes, {}, **annotations))
        answer.afterwards()
        return [one["Host"] for one in json.loads(answer.body)]

    def keep(self, uid: str = "u", nodes: tuple[str, ...] = NODES, **spec: Any) -> list[str]:
        """Nodes kept for a pod that kube-scheduler asks to filter."""
        answer = self.prioritizer.filter(self.call(uid, nodes, spec))
        answer.afterwards()
        return list(json.loads(answer.body)["NodeNames"])

    def call(self, uid: str, nodes: tuple[str, ...], spec: dict[str, Any], **annotations: str) -> bytes:
        """What kube-scheduler sends of a pod."""
        given = {"job-class": "etl", **{key.replace("_", "-"): text for key, text in annotations.items()}}
        meta = {
            "name": uid,
            "namespace": "team",
            "uid": uid,
            "annotations": {f"fairlane.dev/{key}": text for key, text in given.items()},
        }
        pod = {"metadata": meta, "spec": {"schedulerName": "fairlane", **spec}}
        return json.dumps({"Pod": pod, "NodeNames": nodes}).encode()

    def sees(self, *pods: PodFacts) -> None:
        """The watch tells of these pods."""
        for pod in pods:
            self.cluster.set_pod(pod)
            self.maker.on_pod(pod)

    def reasons(self) -> dict[str, int]:
        return {str(reason): count for reason, count in self.prioritizer.stats.reasons.items()}


@pytest.fixture(params=[candidate_names.LONG_BYTES, 0], ids=["names-read-first", "names-read-when-needed"])
async def stage(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.setattr(candidate_names, "LONG_BYTES", request.param)
    return Stage()


async def test_nothing_is_said_before_there_is_telemetry(stage: Stage) -> None:
    assert stage.place() == []
    assert stage.reasons() == {Fallback.NO_TELEMETRY: 1}


async def test_the_first_call_of_a_class_is_a_miss_answered_by_the_prior_and_the_next_by_the_model(
    stage: Stage,
) -> None:
    await stage.epoch(cpu_use={"a": 0.9, "c": 0.9, "d": 0.9})
    assert stage.place("1")[0] == "b"
    await stage.settle()
    assert stage.place("2")[0] == "c"
    assert stage.reasons() == {Fallback.MISS: 1, Fallback.NONE: 1}


async def test_who_is_asked_to_filter_keeps_the_node_that_would_be_listed_first(stage: Stage) -> None:
    other = Stage()
    for one in (stage, other):
        one.model.others_s = 6.0
        await one.epoch(cpu_use={"a": 0.5, "c": 0.2, "d": 0.9})
        one.place("0")
        await one.settle()
    several = 0
    for number in range(1, 20):
        nodes = tuple(name for at, name in enumerate(NODES) if number & 1 << at) or NODES
        listed = other.place(f"{number}", nodes)
        assert stage.keep(f"{number}", nodes) == (listed[:1] or list(nodes))
        several += len(listed) > 1
    assert stage.reasons() == other.reasons()
    assert several > 5


near_or_far = pytest.mark.parametrize(
    ("others_s", "kept"), [(5.1, set(NODES)), (8.0, {"c"})], ids=["near ties", "far"]
)
PREFERS = {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1}]}}


@near_or_far
async def test_a_pod_that_prefers_something_is_left_the_near_ties_to_choose_from(
    stage: Stage, others_s: float, kept: set[str]
) -> None:
    await stage.learns(others_s)
    assert set(stage.keep("1", affinity=PREFERS)) == kept
    assert stage.keep("1") == ["c"]


SPARE = {"key": "spare", "value": "yes", "effect": "PreferNoSchedule"}
TOLERATED = [{"key": "spare", "operator": "Exists"}]


@near_or_far
async def test_of_a_node_that_would_rather_not_have_the_pod_the_near_ties_are_left_too(
    stage: Stage, others_s: float, kept: set[str]
) -> None:
    await stage.learns(others_s)
    stage.cluster.set_node(node_of("c", taints=[SPARE]))
    assert set(stage.keep("1")) == kept
    assert stage.keep("1", tolerations=TOLERATED) == ["c"]
    stage.cluster.set_node(node_of("c"))
    assert stage.keep("1") == ["c"]


async def test_a_node_that_is_drawn_to_explore_is_kept_alone_whatever_the_pod_prefers() -> None:
    stage = Stage(Exploration(rate=1.0, max_regret=0.5))
    await stage.learns(others_s=5.1)
    kept = [stage.keep(str(number), affinity=PREFERS) for number in range(1, 4)]
    assert stage.prioritizer.stats.explored >= 3
    assert {len(nodes) for nodes in kept} == {1}


@pytest.mark.parametrize("missing", ["c", "b"], ids=["the best", "another"])
async def test_only_nodes_that_were_offered_are_listed_or_kept(stage: Stage, missing: str) -> None:
    nodes = tuple("new" if node == missing else node for node in NODES)
    assert stage.keep("0", nodes) == list(nodes)  # there is no telemetry yet
    await stage.epoch()
    stage.place("0")
    await stage.settle()
    assert missing not in stage.place("1", nodes)
    # without the best, the others are predicted alike
    assert stage.keep("2", nodes) == (list(nodes) if missing == "c" else ["c"])


async def test_who_is_asked_to_filter_keeps_all_without_an_opinion(stage: Stage) -> None:
    assert stage.keep() == list(NODES)
    await stage.epoch()
    stage.now_s += 3600.0
    assert stage.keep(nodes=("c", "a")) == ["c", "a"]
    assert stage.reasons() == {Fallback.NO_TELEMETRY: 1, Fallback.STALE_TELEMETRY: 1}


async def test_a_pod_that_waits_in_the_queue_has_its_table_before_kube_scheduler_asks(stage: Stage) -> None:
    await stage.epoch()
    waiting = a_pod("early")
    stage.cluster.set_pod(waiting)
    stage.maker.on_pod(waiting)
    await stage.settle()
    assert key_of(waiting.job) in stage.tables


def gated_classes(count: int) -> list[PodFacts]:
    return [a_pod(f"g{at}", replace(JOB, job_class=f"class-{at}"), gated=True) for at in range(count)]


def gated_sizes(count: int) -> list[PodFacts]:
    jobs = [replace(JOB, job_class="etl", input_bytes=1e6 * 2.0**at) for at in range(count)]
    return [a_pod(f"s{at}", job, gated=True) for at, job in enumerate(jobs)]


async def test_a_thousand_gated_classes_do_not_make_a_thousand_tables(stage: Stage) -> None:
    await stage.epoch()
    stage.sees(*gated_classes(1000))
    await stage.settle()
    assert stage.model.calls == GATED_AHEAD
    for epochs in (2, 3):
        await stage.epoch()
        assert stage.model.calls == epochs * GATED_AHEAD
        assert len(stage.tables) == GATED_AHEAD


async def test_many_gated_sizes_of_one_class_share_a_table(stage: Stage) -> None:
    await stage.epoch()
    stage.sees(*gated_sizes(10))
    await stage.settle()
    stage.sees(*gated_sizes(20))
    await stage.settle()
    assert stage.model.calls == 1
    await stage.epoch()
    assert len(stage.tables) == 1


async def test_a_pod_whose_gate_opens_finds_a_table_of_its_class_and_gets_its_own(stage: Stage) -> None:
    await stage.epoch()
    waiting = gated_sizes(20)
    stage.sees(*waiting)
    await stage.settle()
    await stage.epoch()
    opened = structs.replace(waiting[-1], gated=False)
    opinion = stage.prioritizer.advise(opened, NODES)
    assert opinion.reason is Fallback.SIMILAR
    assert opinion.listed
    stage.sees(opened)
    await stage.settle()
    assert stage.prioritizer.advise(opened, NODES).reason is Fallback.NONE


async def test_a_pod_with_an_open_gate_needs_no_place_among_those_behind_gates(stage: Stage) -> None:
    await stage.epoch()
    *waiting, last = gated_classes(GATED_AHEAD + 1)
    stage.sees(*waiting, structs.replace(last, gated=False))
    await stage.settle()
    assert key_of(last.job) in stage.tables
    assert len(stage.tables) == GATED_AHEAD + 1


async def test_those_who_are_next_have_their_tables_though_others_came_first(stage: Stage) -> None:
    await stage.epoch()
    *first, last = gated_classes(3 * GATED_AHEAD)
    stage.sees(*first, last)
    await stage.settle()
    assert key_of(last.job) not in stage.tables
    stage.sees(structs.replace(last, turn=1))
    await stage.settle()
    assert key_of(last.job) in stage.tables
    assert len(stage.tables) == GATED_AHEAD
    calls = stage.model.calls
    await stage.epoch()
    assert key_of(last.job) in stage.tables
    assert stage.model.calls == calls + GATED_AHEAD


async def test_a_gang_whose_turn_is_near_has_a_table_of_its_own_size(stage: Stage) -> None:
    await stage.epoch()
    waiting = gated_sizes(20)
    stage.sees(*waiting)
    await stage.settle()
    stage.prioritizer.advise(waiting[0], NODES)  # there is a table of the class in use
    await stage.epoch()
    assert key_of(waiting[-1].job) not in stage.tables
    stage.sees(structs.replace(waiting[-1], turn=2))
    await stage.settle()
    assert key_of(waiting[-1].job) in stage.tables
    await stage.epoch()
    assert key_of(waiting[-1].job) in stage.tables


@pytest.mark.parametrize("gated", [True, False])
async def test_tables_in_use_are_not_driven_out_by_those_that_wait(gated: bool) -> None:
    small = Stage(max_tables=8)
    await small.epoch(**UNEVEN)
    for number in range(4):
        small.place(f"u{number}", job_class=f"in-use-{number}")
    await small.settle()
    small.sees(*(structs.replace(pod, gated=gated) for pod in gated_classes(100)))
    await small.settle()
    await small.epoch(**UNEVEN)
    for number in range(4):
        small.place(f"v{number}", job_class=f"in-use-{number}")
    assert small.reasons() == {Fallback.MISS: 4, Fallback.NONE: 4}
    assert len(small.tables) == 8


async def test_tables_in_use_leave_half_of_the_room_to_pods_that_may_be_asked_about() -> None:
    small = Stage(max_tables=8)
    await small.epoch(**UNEVEN)
    for number in range(20):
        small.place(f"u{number}", job_class=f"in-use-{number}")
    await small.settle()
    coming = [structs.replace(pod, gated=False) for pod in gated_classes(4)]
    small.sees(*coming)
    await small.settle()
    assert all(key_of(pod.job) in small.tables for pod in coming)


async def test_a_table_made_ahead_goes_with_the_pod_it_was_made_for(stage: Stage) -> None:
    await stage.epoch()
    (pod,) = gated_classes(1)
    stage.sees(pod)
    await stage.settle()
    assert len(stage.tables) == 1
    stage.cluster.remove_pod(pod.uid)
    await stage.epoch()
    assert len(stage.tables) == 0


async def test_a_table_that_a_call_asked_for_outlasts_the_epoch(stage: Stage) -> None:
    await stage.epoch(**UNEVEN)
    stage.place("small", input_bytes="1Mi")
    await stage.settle()
    stage.place("large", input_bytes="1Gi")
    await stage.settle()
    await stage.epoch(**UNEVEN)
    stage.place("again", input_bytes="1Gi")
    assert stage.reasons() == {Fallback.MISS: 1, Fallback.SIMILAR: 1, Fallback.NONE: 1}


async def test_a_predictor_that_dies_leaves_the_last_table_then_the_prior_then_comes_back(
    stage: Stage,
) -> None:
    quiet = {"cpu_use": {"b": 0.0, "a": 0.9, "c": 0.9, "d": 0.9}}
    await stage.epoch(**quiet)
    stage.place()
    await stage.settle()
    stage.model.failure = "gone"
    for _ in range(2):
        await stage.epoch(**quiet)
    assert stage.place("stale")[0] == "c"
    for _ in range(8):  # beyond max_epoch_age_s the last table is no better than none
        await stage.epoch(**quiet)
    assert stage.place("prior")[0] == "b"
    stage.model.failure = ""
    for _ in range(2):
        await stage.epoch(**quiet)
    assert stage.place("back")[0] == "c"
    expected = [Fallback.MISS, Fallback.STALE_TABLE, Fallback.PREDICTOR_DOWN, Fallback.NONE]
    assert stage.reasons() == dict.fromkeys(expected, 1)


async def test_the_predictor_is_asked_again_after_the_clock_was_ahead(stage: Stage) -> None:
    stage.now_s += 7200.0
    stage.model.failure = "it starts"
    await stage.epoch()
    stage.place("first", job_class="one")
    await stage.settle()
    stage.now_s -= 7200.0
    await stage.epoch()
    assert stage.model.calls == 2


async def test_a_predictor_that_fails_is_not_asked_at_every_turn(stage: Stage) -> None:
    stage.model.failure = "gone"
    await stage.epoch()
    for number in range(20):
        stage.place(f"u{number}", job_class=f"class-{number}")
    await stage.settle()
    assert stage.model.calls == 1
    assert stage.maker.stats.failure == "gone"


async def test_telemetry_that_stops_is_believed_for_a_while_and_no_longer(stage: Stage) -> None:
    await stage.epoch()
    stage.place()
    await stage.settle()
    stage.now_s += 119.0
    assert stage.place("old")
    stage.now_s += 2.0
    assert stage.place("too old") == []
    assert stage.reasons()[Fallback.STALE_TELEMETRY] == 1
    await stage.epoch()
    assert stage.place("fresh")[0] == "c"


async def test_candidates_that_telemetry_does_not_know_get_no_opinion(stage: Stage) -> None:
    await stage.epoch(nodes=("a", "b"))
    assert stage.place(nodes=("c", "d")) == []
    assert stage.reasons() == {Fallback.NO_TELEMETRY: 1}


async def test_a_member_of_a_gang_follows_the_one_before_it_before_the_watch_tells(stage: Stage) -> None:
    near = {("c", "b"): 1e9, ("b", "c"): 1e9}
    far = {pair: 1e6 for pair in itertools.permutations(NODES, 2) if pair not in near}
    await stage.epoch(throughput=far | near)
    gang = {"gang": "g", "gang_size": "2", "shuffle_bytes": "10Gi"}
    stage.place("warm", **gang | {"gang": "other"})
    await stage.settle()
    assert stage.place("1", **gang)[0] == "c"
    stage.model.best = "nowhere"  # the prior alone decides what follows
    assert stage.place("2", nodes=("a", "b", "d"), **gang)[0] == "b"
    assert stage.reasons()[Fallback.PEERS] == 1


async def test_what_placed_pods_still_fetch_is_known_before_the_watch_tells(stage: Stage) -> None:
    await stage.epoch()
    for number, size in enumerate(("1G", "1G", "1200M")):  # a miss, a table of its own, one of a similar size
        chosen = stage.place(f"{number}", nodes=("a",), data_nodes="d", input_bytes=size)
        await stage.settle()
        assert chosen == ["a"]
    assert set(stage.reasons()) == {Fallback.MISS, Fallback.NONE, Fallback.SIMILAR}
    fact = stage.cluster.facts["a"]
    assert fact.transfer_left_s(stage.now_s) == pytest.approx(32.0), "three inputs at 1e8 bytes/s"
    assert fact.transfer_left_s(stage.now_s + 30.0) == pytest.approx(2.0)


async def test_of_a_pod_that_also_shuffles_nobody_knows_when_it_moves_data(stage: Stage) -> None:
    await stage.epoch()
    stage.place("1", nodes=("a",), data_nodes="d", input_bytes="1G", shuffle_bytes="1G")
    assert np.isnan(stage.cluster.facts["a"].transfer_left_s(stage.now_s))


async def test_a_table_for_the_placed_gang_is_made_after_the_binding(stage: Stage) -> None:
    await stage.epoch()
    first, second = (a_pod(uid, gang="team/g") for uid in ("1", "2"))
    stage.cluster.set_pods([structs.replace(first, node="b"), second])
    stage.maker.on_pod(structs.replace(first, node="b"))
    await stage.settle()
    key = key_of(stage.cluster.job_of(second))
    assert key.peers == ("b",)
    assert key in stage.tables


async def test_a_failure_of_ours_costs_the_opinion_and_not_the_call(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.epoch()
    monkeypatch.setattr(stage.tables, "find", lambda *_: 1 / 0)
    assert stage.place() == []
    assert stage.reasons() == {Fallback.ERROR: 1}


async def test_tables_out_of_use_are_dropped_and_their_number_is_bounded() -> None:
    small = Stage(max_tables=3)
    await small.epoch()
    for number in range(10):
        small.place(f"u{number}", job_class=f"class-{number}")
    await small.settle()
    assert len(small.tables) == 3
    small.now_s += 601.0
    await small.epoch()
    assert len(small.tables) == 0


async def test_exploration_puts_another_node_first_and_is_recorded_with_its_propensity() -> None:
    stage = Stage(Exploration(1.0, everywhere=True))
    await stage.epoch()
    stage.place("warm")
    await stage.settle()
    assert stage.place("explorer")[:2] == ["a", "c"]  # the draw of 0 takes the first candidate
    await _recorded(stage, 2)
    decision = stage.store.decisions[-1]
    assert decision.explored
    assert np.frombuffer(decision.propensity, "<f4").tolist() == pytest.approx([0.25] * 4)
    assert stage.prioritizer.stats.explored >= 1


async def test_decisions_name_their_table_and_send_it_once(stage: Stage) -> None:
    await stage.epoch(cpu_use={"a": 0.5})
    stage.place("miss")
    await _recorded(stage, 1)
    await stage.settle()
    for number in range(3):
        stage.place(f"u{number}")
        await _recorded(stage, 1)
    tables = [table.table_id for batch in stage.store.batches for table in batch.tables]
    assert len(tables) == len(set(tables)) == 2
    assert {decision.table_id for decision in stage.store.decisions} == set(tables)


async def test_candidates_that_are_predicted_alike_get_no_opinion(stage: Stage) -> None:
    await stage.epoch()
    assert stage.place() == []  # all readings are the same, and only the prior can answer yet
    assert stage.reasons() == {Fallback.NO_DIFFERENCE: 1}


async def test_a_table_that_the_recorder_lost_is_sent_again(stage: Stage) -> None:
    await stage.epoch()
    stage.place("miss")
    await stage.settle()
    stage.place("1")
    await _recorded(stage, 1)
    lost = stage.store.decisions[-1].table_id
    stage.store.missing = [lost]
    stage.place("2")
    await _recorded(stage, 1)
    stage.place("3")
    await _recorded(stage, 1)
    assert [table.table_id for table in stage.store.batches[-1].tables] == [lost]


async def test_a_full_buffer_drops_the_oldest_decisions_and_counts_them() -> None:
    stage = Stage(decision_buffer=3)
    stage.store.failure = RecorderError(0, "away")
    for number in range(5):
        stage.place(f"u{number}")
    assert not await stage.log.flush()
    assert (len(stage.log), stage.log.stats.dropped) == (3, 2)
    stage.store.failure = None
    assert await stage.log.flush()
    assert [decision.pod_uid for decision in stage.store.decisions] == ["u2", "u3", "u4"]


@asynccontextmanager
async def _sending(stage: Stage) -> AsyncIterator[None]:
    """The log sends by itself until the block ends."""
    sending = asyncio.create_task(stage.log.run())
    try:
        yield
    finally:
        sending.cancel()


async def _some_turns(stage: Stage) -> None:
    """Long enough for a decision to be sent, were it not held."""
    await asyncio.sleep(3 * PAUSE_S)
    assert not stage.store.decisions


async def _stored(stage: Stage) -> None:
    for _ in range(1000):
        if stage.store.decisions:
            return
        await asyncio.sleep(0.03)
    raise AssertionError("nothing was sent")


async def test_decisions_of_a_burst_are_sent_once_calls_pause() -> None:
    stage = Stage(flush_s=0.01)
    async with _sending(stage):
        stage.place("u1")  # the clock stands still: the next call comes at once
        await _some_turns(stage)
        stage.now_s += PAUSE_S
        await _stored(stage)


async def test_in_a_burst_that_does_not_end_decisions_are_sent_after_a_while() -> None:
    stage = Stage(flush_s=0.01, hold_s=10.0)
    async with _sending(stage):
        stage.place("u1")
        await _some_turns(stage)
        stage.now_s += 10.0
        stage.place("u2")  # still in the burst
        await _stored(stage)


async def test_a_buffer_that_fills_in_a_burst_is_sent() -> None:
    stage = Stage(flush_s=0.01, decision_buffer=4)
    async with _sending(stage):
        stage.place("u1")
        await _some_turns(stage)
        stage.place("u2")
        await _stored(stage)


async def test_decisions_that_the_recorder_will_never_take_do_not_block_the_others(stage: Stage) -> None:
    stage.place("bad")
    stage.store.failure = RecorderError(400, "not a batch")
    assert await stage.log.flush()
    assert (stage.log.stats.refused, len(stage.log)) == (1, 0)


async def test_a_long_absence_of_the_recorder_does_not_take_all_cores(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, at_once = itertools.count(1), [0]
    under_way: set[int] = set()

    def packed(table: ScoreTable) -> TableRecord:
        number = next(begun)
        under_way.add(number)
        at_once.append(len(under_way))
        time.sleep(0.01)
        under_way.discard(number)
        return table_record(table)

    monkeypatch.setattr(decisions, "table_record", packed)
    for number in range(5):
        stage.log.add(a_call(f"u{number}", table=a_table(table_id=f"t{number}")))
    while len(stage.log):
        assert await stage.log.flush()
    assert max(at_once) == 1
    assert max(len(batch.tables) for batch in stage.store.batches) == decisions.TABLES_PER_BATCH
    assert [one.pod_uid for one in stage.store.decisions] == [f"u{number}" for number in range(5)]


async def test_a_decision_is_recorded_as_it_was_though_written_down_later(stage: Stage) -> None:
    await stage.epoch()
    for uid in ("miss", "1", "2", "3"):
        stage.place(uid, nodes=("a",), input_bytes="1G", data_nodes="d")
        await stage.settle()
    await _recorded(stage, 4)
    (shift,) = np.frombuffer(stage.store.decisions[-2].shift, "<f4")
    (more,) = np.frombuffer(stage.store.decisions[-1].shift, "<f4")
    heavy = NEIGHBOURS.index("residents_network_heavy")
    rows = [np.frombuffer(one.corrected_rows, "<f4") for one in stage.store.decisions[-2:]]
    assert 0.0 < shift < more
    assert [row[heavy] for row in rows] == [2.0, 3.0]


async def test_a_decision_that_cannot_be_written_down_costs_no_other(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    def unbuilt() -> tuple[list[int], Floats]:
        raise ZeroDivisionError("a fault of ours")

    sound = a_call("sound")
    broken = structs.replace(sound, judged=structs.replace(sound.judged, ranking=None))
    rowless = structs.replace(sound, judged=structs.replace(sound.judged, exact=unbuilt))
    for number, one in enumerate((broken, rowless, sound)):
        stage.log.add(structs.replace(one, moment=structs.replace(one.moment, decision_id=f"d{number}")))
    assert await stage.log.flush()
    assert [one.decision_id for one in stage.store.decisions] == ["d1", "d2"]
    stats = stage.log.stats
    assert (stats.sent, stats.unwritten, stats.dropped, len(stage.log)) == (2, 1, 0, 0)
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [
        "decision d0 could not be written down",
        "the feature rows of decision d1 could not be built",
    ]


async def test_rows_of_an_estimated_answer_are_recorded_as_training_would_build_them(stage: Stage) -> None:
    await stage.epoch()
    stage.place("miss", data_nodes="d", input_bytes="1Gi")  # d itself needs no transfer
    await _recorded(stage, 1)
    decision = stage.store.decisions[-1]
    assert decision.reason == Fallback.MISS
    assert len(np.frombuffer(decision.corrected, "<u4")) == len(decision.listed)


async def _recorded(stage: Stage, least: int) -> None:
    """Flush until at least so many more decisions are stored."""
    wanted = len(stage.store.decisions) + least
    for _ in range(500):
        await stage.log.flush()
        if len(stage.store.decisions) >= wanted:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the decisions were not recorded")


@hypothesis.given(
    use=st.lists(st.sampled_from([0.1, 0.1, 0.5, 0.9, np.nan]), min_size=len(NODES), max_size=len(NODES)),
    offered=st.lists(st.lists(st.sampled_from(NODES), min_size=1, unique=True), min_size=1, max_size=4),
    listed=st.integers(1, 5),
)
@hypothesis.example(use=[0.1, 0.1, 0.9, 0.9], offered=[["a", "b"]], listed=2)
@hypothesis.example(use=[np.nan, np.nan, np.nan, 0.9], offered=[["a", "b"], ["a"]], listed=2)
def test_reading_the_names_only_when_they_are_needed_changes_no_answer_and_no_record(
    use: list[float], offered: list[list[str]], listed: int
) -> None:
    async def answers(long_bytes: int) -> list[Any]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(candidate_names, "LONG_BYTES", long_bytes)
            patch.setattr(prioritizer, "LOOKED_UP_AT_MOST", 1)
            stage = Stage(max_listed=listed)
            stage.model.failure = "gone"  # the prior tells nodes apart by their load
            await stage.epoch(cpu_use=dict(zip(NODES, use, strict=True)))
            kept = [stage.place(f"p{number}", tuple(names)) for number, names in enumerate(offered)]
            await stage.log.flush()
        told = [(one.listed, one.offered, one.reason, one.candidates) for one in stage.store.decisions]
        return [kept, told]

    assert asyncio.run(answers(0)) == asyncio.run(answers(1_000_000))


@pytest.mark.parametrize(("offered", "best"), [(NODES[1:], "b"), (NODES[2:], "c")])
async def test_where_the_best_nodes_filled_up_the_next_best_is_found_without_reading_all_names(
    offered: tuple[str, ...], best: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidate_names, "LONG_BYTES", 0)
    stage = Stage(max_listed=2)
    stage.model.failure = "gone"
    await stage.epoch(cpu_use=dict(zip(NODES, (0.1, 0.3, 0.6, 0.9), strict=True)))
    for _ in range(2):  # the second call finds a table
        assert stage.place("first")[0] == "a"
        await stage.settle()
        stage.now_s += ASSUMED_S  # it was never bound
    monkeypatch.setattr(OfferedNames, "all", _unexpected)
    answer = stage.prioritizer.filter(stage.call("second", offered, {}))
    assert json.loads(answer.body)["NodeNames"] == [best]


def _unexpected(_self: OfferedNames) -> tuple[str, ...]:
    raise AssertionError("all names were read")


@pytest.mark.parametrize("listed", [5, 1])
async def test_two_nodes_alike_give_no_opinion_though_a_hopeless_third_was_offered_before(
    listed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidate_names, "LONG_BYTES", 0)
    stage = Stage(max_listed=listed)
    stage.model.failure = "gone"
    await stage.epoch(throughput={("d", "c"): 1e5})
    hints = {"data_nodes": "d", "input_bytes": "1Gi"}
    for _ in range(2):  # the second call finds a table
        assert "c" not in stage.place("first", ("a", "b", "c"), **hints)
        await stage.settle()
        stage.now_s += ASSUMED_S  # it was never bound
    assert stage.place("second", ("a", "b"), **hints) == []
    assert stage.reasons()[Fallback.NO_DIFFERENCE] == 1


@pytest.mark.parametrize(("others", "is_current"), [(0, True), (prioritizer.FEW_WAIT, False)])
async def test_a_pod_that_comes_has_its_table_brought_up_to_date_unless_many_wait(
    stage: Stage, others: int, is_current: bool
) -> None:
    await stage.learns(others_s=8.0)
    (job,) = stage.tables.jobs()
    stage.sees(a_pod("resident", node="b"), *(a_pod(f"waits-{number}", job) for number in range(others)))
    pod = a_pod("new", job)
    stage.sees(pod)
    stage.prioritizer.prepare(pod)
    found = stage.tables.find(key_of(job), stage.now_s)
    assert found is not None
    assert (found.corrections.view_version == stage.cluster.version) == is_current
    assert bool(found.corrections.shift[NODES.index("b")]) == is_current


@pytest.mark.parametrize(("limit", "read"), [(candidate_names.UNREAD_BYTES_MAX, 0), (0, 3)])
async def test_the_names_for_the_record_are_read_when_it_is_written_unless_too_many_wait(
    limit: int, read: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidate_names, "LONG_BYTES", 0)
    monkeypatch.setattr(candidate_names, "UNREAD_BYTES_MAX", limit)
    stage, reads = Stage(), []
    reading = stage.prioritizer._names._read
    monkeypatch.setattr(stage.prioritizer._names, "_read", lambda raw: reads.append(raw) or reading(raw))
    await stage.learns(others_s=8.0)
    reads.clear()
    for uid in ("1", "2", "3"):
        stage.place(uid)
    assert len(reads) == read
    await stage.log.flush()
    assert len(reads) == 3
    assert [one.candidates for one in stage.store.decisions[-3:]] == [4, 4, 4]


async def test_a_number_among_many_names_costs_the_record_of_the_candidates_and_not_the_answer(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidate_names, "LONG_BYTES", 0)
    stage = Stage()
    await stage.learns(others_s=8.0)
    assert stage.place("strange", (*NODES, 7))[0] == "c"  # type: ignore[arg-type]
    await stage.log.flush()
    assert "its candidates are not recorded" in caplog.text
    assert [one.candidates for one in stage.store.decisions] == [4, 0]
