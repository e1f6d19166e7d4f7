"""The links of the kind cluster change as the seed says, and never stand still."""

from __future__ import annotations

from itertools import islice, pairwise

from hypothesis import given
from hypothesis import strategies as st

from testbed.kind.links import RATES_MBIT, schedule

WORKERS = ("a", "b", "c")


@given(st.integers(0, 2**32))
def test_the_same_seed_makes_the_same_states(seed: int) -> None:
    assert list(islice(schedule(seed, WORKERS), 8)) == list(islice(schedule(seed, WORKERS), 8))


@given(st.integers(0, 2**32))
def test_every_step_changes_some_link(seed: int) -> None:
    states = list(islice(schedule(seed, WORKERS), 8))
    assert all(before != after for before, after in pairwise(states))


def test_a_state_that_was_given_out_does_not_change_later() -> None:
    states = schedule(3, WORKERS)
    first = next(states)
    kept = dict(first)
    next(states)
    assert first == kept


def test_links_differ_between_nodes_and_over_time() -> None:
    states = list(islice(schedule(1, WORKERS), 40))
    for node in WORKERS:
        assert {state[node].receive_mbit for state in states} == set(RATES_MBIT)
    best = [max(WORKERS, key=lambda n: state[n].receive_mbit / (1 + state[n].readers)) for state in states]
    assert all(best.count(node) >= 5 for node in WORKERS)
