"""The benchmark of the queue's promises: what it counts, and that a broken promise is told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.live_jobs import GATE, Ask, Life, manifest
from benchmarks.replicas import Takeover
from benchmarks.shares import SLOTS, Shares, shares_of, small_jobs, whole
from benchmarks.shares_report import sentences


def life(user: str, bound_s: float, ended_s: float, created_s: float = 0.0) -> Life:
    return Life(Ask(user, 1.0, 1.0), created_s, "", bound_s, bound_s, bound_s, ended_s)


def fair(off_s: float = 0.0) -> list[Life]:
    """One second for weight one, and so on; `off_s` more for the first."""
    return [life("one", 10, 11 + off_s), life("two", 10, 12), life("four", 10, 14)]


def test_a_share_is_what_was_held_inside_the_window() -> None:
    before_and_after = [life("one", 0, 5), life("four", 20, 90), life("somebody else", 10, 14)]
    found = shares_of([*fair(), *before_and_after], 10.0, 20.0, {"one": 0.5})
    assert [one.share for one in found] == pytest.approx([1 / 7, 2 / 7, 4 / 7])
    assert [one.off for one in found] == pytest.approx([0.0] * 3)
    assert (found[0].ledger_s, found[0].held_in_all_s) == (0.5 * SLOTS, 6.0)


def test_a_gang_of_which_a_pod_ended_before_another_began_was_not_whole() -> None:
    together = [life("u", 10.0 + number, 30.0) for number in range(3)]
    found = whole("gang", together, together)
    assert (found.waited_s, found.spread_s, found.whole) == (10.0, 2.0, True)
    late = [*together, life("u", 31.0, 40.0)]
    assert not whole("gang", late, late).whole
    never = [*together, Life(Ask("u", 1, 1), 0.0)]
    assert not whole("gang", never, never).whole


def test_executors_count_from_when_they_were_asked_for() -> None:
    driver = [life("u", 10.0, 40.0)]
    executors = [life("u", 12.5, 30.0, created_s=12.0), life("u", 13.0, 30.0, created_s=12.0)]
    found = whole("Spark", driver, executors)
    assert (found.pods, found.waited_s, found.spread_s, found.whole) == (3, 10.0, 1.0, True)
    assert not whole("Spark", driver, []).whole


def test_the_bound_of_a_small_job_is_the_fluid_and_two_of_the_longest_runs() -> None:
    """Alone on half of the slots it is done at once; the flood's longest pod runs for 7 s."""
    flood = [life("flooder", 0, 7) for _ in range(2 * SLOTS)]
    (found,) = small_jobs(flood, [life("small", 3.0, 4.0)])
    assert found.took_s == 4.0
    assert found.fluid_s == pytest.approx(1.0 / (SLOTS / 2))
    assert found.allowed_s == pytest.approx(found.fluid_s + 2 * 7.0 + 7.0 / SLOTS)


def test_a_broken_promise_is_told() -> None:
    gangs = tuple(whole("gang", one, one) for one in ([life("u", 1, 5)], [life("u", 1, 5), life("u", 6, 9)]))
    shares = shares_of(fair(), 0.0, 20.0, {"one": 1 / SLOTS, "two": 2 / SLOTS, "four": 4 / SLOTS})
    small = tuple(small_jobs([life("flooder", 0, 7)], [life("small", 3.0, 4.0)]))
    kept = Shares(10.0, SLOTS, 1.0, SLOTS, shares, gangs[:1], (Takeover(3.0, 9.0, "x"),), 1, 7.0, small, {})
    assert "missed" not in " ".join(sentences(kept))
    off = shares_of(fair(off_s=0.1), 0.0, 20.0, {"one": 1.0})
    late = tuple(replace(one, took_s=one.allowed_s + 1.0) for one in small)
    for broken in (replace(kept, shares=off), replace(kept, gangs=gangs), replace(kept, small=late)):
        assert " ".join(sentences(broken)).count("missed") == 1
    assert "terms_failed" in " ".join(sentences(replace(kept, status={"terms_failed": 1})))


def test_a_pod_waits_behind_the_gate_and_says_of_its_run_time_what_it_is_told_to() -> None:
    pod = manifest("a", Ask("ann", 6.0, 0.6, annotations={"fairlane.dev/gang": "g"}))
    assert pod["spec"]["schedulingGates"] == [{"name": GATE}]
    assert pod["metadata"]["annotations"]["fairlane.dev/expected-duration"] == "0.6s"
    assert pod["metadata"]["annotations"]["fairlane.dev/gang"] == "g"
