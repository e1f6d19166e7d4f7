"""Each part of the clock is needed: a clock without it is caught by the property that it serves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from queue_harness import SlotCluster, Work, play

from scheduler.core.queue.events import Estimate
from scheduler.core.queue.fair_clock import Charge, FairClock, Flow, Key
from scheduler.core.queue.slots import slots_gang

Clock = Callable[[float], FairClock]


class NoLift(FairClock):
    """Absence is banked."""

    def _lift(self, flow: Flow) -> None:
        del flow

    def _known(self, key: Key, weight: float, tier: int) -> Flow:
        return self.flows.setdefault(key, Flow(weight, tier, 0.0))


class RefundsNotVoided(FairClock):
    """A refund counts in full after a lift."""

    def _effective(self, flow: Flow, charge: Charge, change: float) -> float:
        del flow, charge
        return change


class NoSettlement(FairClock):
    """The estimate is believed for ever."""

    def settle(self, key: Key, uid: str, actual: float) -> None:
        super().settle(key, uid, self.flows[key].charges[uid].work)
        del actual


class NoWeight(FairClock):
    """Everybody counts the same."""

    def arrive(self, key: Key, work: float, weight: float = 1.0, tier: int = 0) -> None:
        del weight
        super().arrive(key, work, 1.0, tier)


class NoOverrun(FairClock):
    """Who outlives his estimate pays at the end only."""

    def overrun(self, key: Key, uid: str, so_far: float) -> None:
        """Nothing."""


class LastTagFirst(FairClock):
    """The order is upside down."""

    def _enqueue(self, key: Key, flow: Flow) -> None:
        super()._enqueue(key, flow)
        if not flow.drawn:
            self._by_tag.put(key, (-flow.tier, -self.tag(key), flow.head_order))


class CreditKept(FairClock):
    """What V granted and nobody got stays a debt of the others."""

    def _give_up_credit(self, key: Key, flow: Flow) -> None:
        del flow
        self._refresh(key)


def absence_is_not_banked(clock: Clock) -> None:
    works = [Work("back", 0.0, 1, 1.0), Work("back", 40.0, 20, 1.0)]
    honest = [Work("honest", float(at), 2, 1.0) for at in range(60)]
    run = play([*works, *honest], 2, clock, backfill=False, invariants_every=0)
    assert run.finish_s[1] > 55.0


def no_credit_from_an_inflated_charge(clock: Clock) -> None:
    keeper = clock(1e9)
    for work in (100.0, 1.0):
        keeper.arrive("cheat", work)
        keeper.set_head("cheat", work, (0.0, "c"))
        if work == 100.0:
            keeper.charge("cheat", "inflated", work)
            keeper.arrive("other", 1e6)
            keeper.advance(150.0)
    keeper.settle("cheat", "inflated", 1.0)
    assert keeper.meter("cheat") >= keeper.virtual_time - 26.0


def shares_do_not_follow_estimates(clock: Clock) -> None:
    run = SlotCluster(1, clock, backfill=False, invariants_every=0)
    run.submit_all([Work("low", 0.0, 1, 1.0, told=0.2) for _ in range(30)] + [Work("true", 0.0, 1, 1.0)] * 30)
    held = run.play(30.0).held
    assert held["low"] == pytest.approx(held["true"], abs=3.0)


def shares_follow_weights(clock: Clock) -> None:
    weights: Any = {("b",): 3.0}
    run = SlotCluster(1, clock, backfill=False, invariants_every=0, weights=weights)
    run.submit_all([Work(flow, 0.0, 1, 1.0) for _ in range(30) for flow in ("a", "b")])
    held = run.play(24.0).held
    assert held["b"] == pytest.approx(3 * held["a"], abs=4.0)


def who_outlives_his_estimate_pays_meanwhile(clock: Clock) -> None:
    cluster = SlotCluster(2, clock, backfill=False, invariants_every=0)
    cluster.submit(slots_gang("endless", "cheat", 0.0, Estimate.exactly(1.0)), 200.0)
    cluster.submit_all([Work(flow, 5.0, 1, 30.0) for _ in range(20) for flow in ("cheat", "true")])
    released = cluster.play(180.0).released
    assert sum(uid.startswith("j") for uid in released if _flow(uid) == "cheat") <= 2


def _flow(uid: str) -> str:
    return ("cheat", "true")[int(uid[1:5]) % 2] if uid.startswith("j") else ""


def small_jobs_go_before_large_ones(clock: Clock) -> None:
    works = [Work("large", 0.0, 30, 1.0), Work("small", 0.0, 2, 1.0)]
    assert play(works, 1, clock, backfill=False, invariants_every=0).finish_s[1] <= 5.0


def withdrawing_gains_nothing(clock: Clock) -> None:
    keeper = clock(1e9)
    for key, work in (("bait", 1e5), ("honest", 1.0)):
        keeper.arrive(key, work)
        keeper.set_head(key, work, (0.0, key))
    keeper.charge("honest", "h", 1.0)
    keeper.settle("honest", "h", 40.0)
    keeper.advance(40.0)
    keeper.withdraw("bait", 1e5)
    keeper.arrive("bait", 1.0)
    assert keeper.meter("bait") == pytest.approx(keeper.meter("honest"))


CAUGHT_BY: list[tuple[type[FairClock], Callable[[Clock], None]]] = [
    (NoLift, absence_is_not_banked),
    (RefundsNotVoided, no_credit_from_an_inflated_charge),
    (NoSettlement, shares_do_not_follow_estimates),
    (NoWeight, shares_follow_weights),
    (NoOverrun, who_outlives_his_estimate_pays_meanwhile),
    (LastTagFirst, small_jobs_go_before_large_ones),
    (CreditKept, withdrawing_gains_nothing),
]
NAMES = [mutant.__name__ for mutant, _ in CAUGHT_BY]


@pytest.mark.parametrize(("mutant", "holds"), CAUGHT_BY, ids=NAMES)
def test_a_clock_without_one_of_its_parts_is_caught(mutant: Clock, holds: Callable[[Clock], None]) -> None:
    holds(FairClock)
    with pytest.raises(AssertionError):
        holds(mutant)
