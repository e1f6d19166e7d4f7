"""g. The release in its life: upgraded, rolled back, uninstalled, installed again, with jobs in flight.

There is no earlier version of the chart yet, so the previous one is the chart as it is under a lower version,
with other settings: every process starts anew at each step. Before every step two users submit a Job each, as
before faults, so that some pods run and some wait when it happens.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from testbed.chart.helm import CHART, NAMESPACE
from testbed.kind import release
from testbed.kind.workloads import chaos
from testbed.kind.workloads.ground import Ground
from testbed.kind.workloads.journal import Life

PREVIOUS = "0.0.9"
THEN = {"settings": {**release.SETTINGS, "epoch_s": 4.0}}
"""Values of the previous release: a change of settings restarts every process."""
WEIGHTS = [{"user": "alice", "weight": 2}]
QUEUE = {
    "apiVersion": "fairlane.dev/v1alpha1",
    "kind": "FairQueue",
    "metadata": {"name": "default"},
    "spec": {"defaultWeight": 1, "weights": WEIGHTS},
}
NOBODY_S = 5.0
"""How long it is looked whether anything happens without us."""
LOOK_S = 0.5
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/fairlane-controller"

Step = Callable[[Ground, Path], Awaitable[None]]


async def run(ground: Ground) -> None:
    """Each step with jobs in flight; at the end the release is as it was."""
    await ground.load(ground.cluster.images.transfer)
    people = [await ground.person(name) for name in ("alice", "bob")]
    await ground.apply([QUEUE])
    steps: list[Step] = [_upgraded, _rolled_back, _away_and_back]
    with previous_chart() as chart:
        await ground.in_thread(lambda: release.install(ground.cluster, chart=chart, other=THEN))
        try:
            for number, step in enumerate(steps):
                await chaos.submit_both(ground, people, number)
                await step(ground, chart)
        finally:
            await ground.in_thread(lambda: release.install(ground.cluster))
            await ground.kubectl("delete", "fairqueue", "default", "--ignore-not-found")
    await chaos.all_completed(ground, people, len(steps))


@contextmanager
def previous_chart() -> Iterator[Path]:
    """A folder with the chart under a lower version, until the block ends."""
    with tempfile.TemporaryDirectory(prefix="fairlane-chart-") as folder:
        chart = Path(folder) / CHART.name
        shutil.copytree(CHART, chart)
        about = chart / "Chart.yaml"
        text, count = re.subn(r"(?m)^(version|appVersion): .*", rf'\1: "{PREVIOUS}"', about.read_text())
        if count != 2:
            raise ValueError(f"{about} has no version and appVersion of its own")
        about.write_text(text)
        yield chart


async def _upgraded(ground: Ground, _chart: Path) -> None:
    counts = chaos.counts(ground)
    alone_s = await _without_leader_s(ground, lambda: release.install(ground.cluster))
    await _see(ground, f"upgraded from {PREVIOUS} ({counts}), nobody led the queue for {alone_s:.1f} s")


async def _rolled_back(ground: Ground, _chart: Path) -> None:
    counts = chaos.counts(ground)
    alone_s = await _without_leader_s(ground, lambda: release.roll_back(ground.cluster))
    await _see(ground, f"rolled back to {PREVIOUS} ({counts}), nobody led the queue for {alone_s:.1f} s")


async def _away_and_back(ground: Ground, chart: Path) -> None:
    """Who waits goes on waiting, who runs goes on running; queue objects and their kind stay."""
    counts, waiting = chaos.counts(ground), _waiting(ground)
    await ground.in_thread(lambda: release.remove(ground.cluster))
    gated = [life for life in waiting if not life.was_open]
    kept = await ground.read("fairqueue", "default")
    await asyncio.sleep(NOBODY_S)
    lost = [life.name for life in waiting if life.gone]
    opened = [life.name for life in gated if life.was_open]
    ground.expect(
        not lost and not opened and kept["spec"]["weights"] == WEIGHTS,
        f"uninstalled ({counts}): {len(gated)} pods go on waiting, the queue's object and its kind are kept",
        f"uninstalled: lost {lost}, opened while nobody was there {opened}, queue {kept['spec']}",
    )
    await ground.in_thread(lambda: release.install(ground.cluster, chart=chart, other=THEN))
    await _see(ground, "installed again")


def _waiting(ground: Ground) -> list[Life]:
    pods = [life for namespace in ground.namespaces for life in ground.journal.pods(namespace)]
    return [life for life in pods if not life.was_open and not life.ended]


async def _without_leader_s(ground: Ground, act: Callable[[], None]) -> float:
    """Seconds in which the Lease had no holder while `act` went on, as it was looked at."""
    acting, seconds, before_s = asyncio.create_task(ground.in_thread(act)), 0.0, time.monotonic()
    while not acting.done():
        await asyncio.wait([acting], timeout=LOOK_S)
        lease = msgspec.json.decode(await ground.kube.get(LEASE))
        now_s = time.monotonic()
        seconds += (now_s - before_s) * (not lease["spec"].get("holderIdentity"))
        before_s = now_s
    await acting
    return seconds


async def _see(ground: Ground, what: str) -> None:
    """What was done, and which version the queue's process has now."""
    label = r"jsonpath={.metadata.labels.app\.kubernetes\.io/version}"
    version = await ground.kubectl("-n", NAMESPACE, "get", "deploy", "fairlane-controller", "-o", label)
    ground.see(f"{what}; the release is of version {version.strip()}")
