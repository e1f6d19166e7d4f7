"""The process that works out expected starts, as the controller runs it; no cluster is needed."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable

import pytest

from scheduler.core.queue.events import Estimate, GangArrived, GangStarted, NodeSet, QueuePaused, QueueResumed
from scheduler.core.queue.expected import StartSource
from scheduler.core.queue.gatekeeper import Gatekeeper
from scheduler.core.queue.slots import slots_gang, slots_node, slots_settings
from scheduler.edge.expected_starts import ExpectedStarts

ESTIMATE = Estimate(20.0, 30.0, 60.0)
pytestmark = [pytest.mark.alone, pytest.mark.timeout(120)]


def busy_queue(now_s: float) -> Gatekeeper:
    """Two slots, two gangs that run and three that wait."""
    keeper = Gatekeeper(slots_settings(2))
    keeper.handle(NodeSet(slots_node(2)), now_s)
    keeper.handle_all([GangArrived(slots_gang(f"g{at}", "alice", now_s, ESTIMATE)) for at in range(5)], now_s)
    keeper.handle_all([GangStarted("g0"), GangStarted("g1")], now_s)
    return keeper


@pytest.fixture
def keeper() -> Gatekeeper:
    return busy_queue(time.time())


@pytest.fixture
async def expected(keeper: Gatekeeper) -> AsyncIterator[ExpectedStarts]:
    made = ExpectedStarts(lambda: keeper, time.time(), gangs=2, every_s=0.2, share=1.0)
    running = asyncio.create_task(made.run())
    yield made
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def until(condition: Callable[[], bool], within_s: float = 60.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110  the process says nothing but its answers
            await asyncio.sleep(0.05)


async def test_gangs_near_the_front_get_an_interval_and_those_behind_a_bound(
    expected: ExpectedStarts, keeper: Gatekeeper
) -> None:
    await until(lambda: expected.outlook is not None)
    receipts = {one.uid: one for one in keeper.gangs()}
    first, third = expected.of(receipts["g2"]), expected.of(receipts["g4"])
    assert first is not None
    assert third is not None
    assert time.time() < first.p10_s <= first.p50_s <= first.p90_s < time.time() + 120
    assert first.source is StartSource.NO_ARRIVALS  # watched for too short a time
    assert not third.known
    assert third.later_than_s >= first.p50_s
    assert expected.of(receipts["g0"]) is None  # it runs


async def test_a_process_that_is_killed_is_started_again_and_the_last_outlook_stays(
    expected: ExpectedStarts,
) -> None:
    await until(lambda: expected.outlook is not None)
    (child,) = _children()
    os.kill(child, signal.SIGKILL)
    await until(lambda: expected.restarts == 1)
    assert expected.outlook is not None
    known = expected.outlooks
    await until(lambda: expected.outlooks > known)
    assert _children() != [child]


async def test_its_niceness_counts_beside_other_processes(expected: ExpectedStarts) -> None:
    """In the controller's session it would only yield to that, where the kernel weighs sessions."""
    await until(lambda: expected.outlook is not None)
    (child,) = _children()
    assert os.getsid(child) == child
    assert os.getpriority(os.PRIO_PROCESS, child) == 19


async def test_a_paused_queue_promises_nothing(expected: ExpectedStarts, keeper: Gatekeeper) -> None:
    await until(lambda: expected.outlook is not None)
    keeper.handle(QueuePaused(), time.time())
    await until(lambda: expected.outlook is None)
    keeper.handle(QueueResumed(), time.time())
    await until(lambda: expected.outlook is not None)


async def test_what_was_told_first_is_compared_with_the_release(
    expected: ExpectedStarts, keeper: Gatekeeper
) -> None:
    await until(lambda: expected.outlook is not None)
    first = expected.of(next(one for one in keeper.gangs() if one.uid == "g2"))
    assert first is not None
    expected.released("g2", first.p10_s - 1.0)
    expected.released("g3", first.p10_s + 1e6)
    expected.released("g4", first.p10_s)  # too far back to have been told anything but a bound
    assert dict(expected.verdicts) == {"early": 1, "late": 1}


def _children() -> list[int]:
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as listed:
        return [int(pid) for pid in listed.read().split() if _is_ours(int(pid))]


def _is_ours(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", encoding="ascii") as line:
            return "expected_starts_process" in line.read()
    except OSError:
        return False
