"""Why a gang ended later than the bound: the cluster stood idle, somebody lied, or the order was wrong."""

from __future__ import annotations

from collections import Counter

from queue_harness import SlotCluster, Work
from test_queue_mutants import LastTagFirst

from scheduler.core.queue.actions import ReleaseGang, Settled
from scheduler.core.queue.events import Event
from scheduler.core.queue.lateness import LatenessRecord

FLOOD = [Work("flood", 0.0, 100, 1.0)]
SMALL = [Work("small", float(at), 1, 1.0) for at in range(0, 40, 3)]


class JudgedCluster(SlotCluster):
    """Gangs start `gap_s` after their release until `calm_s`; `beyond` counts late ends by cause."""

    gap_s, calm_s = 0.0, 150.0

    def judge(self) -> Counter[str]:
        """Let all end."""
        self.record, self.beyond = LatenessRecord(), Counter[str]()
        self.play()
        del self.beyond[""]
        return self.beyond

    def _send(self, event: Event, at_s: float) -> None:
        seen = len(self.run.actions)
        super()._send(event, at_s)
        for _, action in self.run.actions[seen:]:
            if isinstance(action, Settled) and (verdict := self.record.ended(action, at_s)) is not None:
                self.beyond[verdict.beyond] += 1
        self.record.follow([event], self.keeper, at_s)

    def _start(self, action: ReleaseGang) -> None:
        decided_s = self.now_s
        self.now_s += self.gap_s if self.now_s < self.calm_s else 0.0
        super()._start(action)
        self.now_s = decided_s


def judged(works: list[Work], gap_s: float = 0.0, **knobs: object) -> Counter[str]:
    cluster = JudgedCluster(4, **knobs)  # type: ignore[arg-type]
    cluster.gap_s = gap_s
    cluster.submit_all(works)
    return cluster.judge()


def test_a_full_cluster_that_was_told_the_truth_keeps_the_bound() -> None:
    assert judged([*FLOOD, *SMALL]) == {}


def test_slots_that_wait_for_their_next_pod_are_the_cause_of_what_they_delay() -> None:
    assert set(judged([*FLOOD, *SMALL], gap_s=0.3)) == {"idle"}


def test_who_ends_late_because_another_one_lied_has_that_as_the_cause() -> None:
    liar = [Work("liar", 0.0, 60, 1.0, told=0.1)]
    assert set(judged([*liar, *FLOOD])) == {"overrun"}


def test_a_wrong_order_is_not_explained_by_some_idle_slots() -> None:
    found = judged([*FLOOD, *SMALL], gap_s=0.05, clock=LastTagFirst)
    assert found["other"] > found["idle"]


def test_what_stood_idle_once_explains_nothing_after_the_cluster_has_caught_up() -> None:
    later = [Work(one.flow, one.at_s + 200.0, one.tasks, one.task_s) for one in [*FLOOD, *SMALL]]
    cluster = JudgedCluster(4, LastTagFirst)
    cluster.submit_all(later)
    idle = JudgedCluster(4, LastTagFirst)
    idle.gap_s = 1.0
    idle.submit_all([*FLOOD, *later])
    assert idle.judge()["other"] == cluster.judge()["other"] > 0
