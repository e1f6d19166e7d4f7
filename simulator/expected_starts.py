"""How good expected starts are: told at instants of a replayed trace, compared with what then happened.

The replay is the production core's; at each of some instants it is
photographed, futures of the photograph are run as the controller runs them,
once with arrivals drawn from the replay's own past and once without, and for
every gang that waited it is noted where its true start fell. The estimates
that the core and the futures see are the truth with a log-normal error, and
they say how large it is; or there are none, and past runs must do.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from scheduler.core.queue.arrivals import Past, RecentArrivals
from scheduler.core.queue.events import Estimate, Event, GangArrived
from scheduler.core.queue.expected import ExpectedStart, Verdict, futures_of, outlook
from scheduler.core.queue.photograph import Photograph
from simulator.cluster import Cluster
from simulator.comparison import Setting
from simulator.engine import Simulation
from simulator.estimates import errors_of
from simulator.policies.fairlane import TICK_S, FairlaneScheduler
from simulator.state import Run, Submission

TENTH = 1.2815515655446004
"""Standard deviations from the median to p10 and p90 of a normal distribution."""
PART = 0.75
"""Of the time of submissions in which photographs are taken: at its end a trace has no future."""
HORIZONS_S = (60.0, 600.0, math.inf)


@dataclass(frozen=True, slots=True)
class Plan:
    """`photographs` at so many instants, each with `gangs` that wait at most and `futures` run.

    `sigma`: of the log-normal error of estimates; None: no estimates, only past runs.
    """

    photographs: int = 20
    futures: int = 30
    gangs: int = 300
    sigma: float | None = 0.5


@dataclass(frozen=True, slots=True)
class Told:
    """One expected start, when it was told, and the true one."""

    at_s: float
    expected: ExpectedStart
    start_s: float


@dataclass(frozen=True, slots=True)
class Coverage:
    """Of `told` expected starts: parts inside p10 to p90, before, after; `open`: of p90 nothing is known.

    `error_part`: median of the distance of p50 from the truth, as a part of the true wait;
    `width_part`: median of p90 - p10, likewise.
    """

    told: int
    inside: float
    early: float
    late: float
    open: float
    error_part: float
    width_part: float


def coverage(told: Sequence[Told]) -> Coverage:
    """What these say together; NaN where there is nothing to say."""
    if not told:
        return Coverage(0, *(math.nan for _ in range(6)))
    verdicts = Counter(each.expected.verdict(each.start_s) for each in told)
    early, late = verdicts[Verdict.EARLY], verdicts[Verdict.LATE]
    closed = [each for each in told if math.isfinite(each.expected.p90_s)]
    waits = [(each, max(each.start_s - each.at_s, 1.0)) for each in closed]
    return Coverage(
        len(told),
        1.0 - (early + late) / len(told),
        early / len(told),
        late / len(told),
        1.0 - len(closed) / len(told),
        median(abs(each.expected.p50_s - each.start_s) / wait_s for each, wait_s in waits)
        if waits
        else math.nan,
        median((each.expected.p90_s - each.expected.p10_s) / wait_s for each, wait_s in waits)
        if waits
        else math.nan,
    )


def by_horizon(told: Iterable[Told]) -> Mapping[float, Coverage]:
    """By how long the gangs were told to wait (p50) from then on: up to each of `HORIZONS_S`."""
    groups: dict[float, list[Told]] = {edge: [] for edge in HORIZONS_S}
    for each in told:
        groups[next(edge for edge in HORIZONS_S if each.expected.p50_s - each.at_s <= edge)].append(each)
    return {edge: coverage(group) for edge, group in groups.items()}


class Photographer(FairlaneScheduler):
    """The core in the simulation, photographed at instants while submissions go on."""

    def __init__(self, setting: Setting, cluster: Cluster, plan: Plan) -> None:
        last_s = setting.workload.jobs[-1].submitted_s
        self._every_s = PART * last_s / max(plan.photographs, 1)
        self._tick_s = min(TICK_S, self._every_s) or TICK_S
        self._plan, self._until_s, self._next_s = plan, PART * last_s, self._every_s
        self._arrivals = RecentArrivals(0.0)
        self.photographs: list[tuple[Photograph, Past]] = []
        self.starts_s: dict[str, float] = {}
        super().__init__(cluster, setting.weights or {})

    def tick(self, now_s: float) -> None:
        """Photograph what waits, when it is time."""
        super().tick(now_s)
        if self._next_s <= now_s <= self._until_s:
            self._next_s += self._every_s
            photo = self.gatekeeper.photograph(self._plan.gangs)
            if photo.waiting:
                self.photographs.append((photo, self._arrivals.past(now_s)))

    def next_tick_s(self, now_s: float) -> float | None:
        """At even steps, whether or not anything waits: photographs are due by the clock."""
        return now_s + self._tick_s

    def starts(self, now_s: float) -> Iterable[Run]:
        """What starts, remembered."""
        for run in super().starts(now_s):
            self.starts_s[run.key] = now_s
            yield run

    def estimate(self, submission: Submission, pod: int) -> Estimate | None:
        """The truth with its error, and how large errors are."""
        if self._plan.sigma is None:
            return None
        middle_s, spread = submission.estimated_pod_s(pod), math.exp(TENTH * self._plan.sigma)
        return Estimate(middle_s / spread, middle_s, middle_s * spread)

    def _handle(self, event: Event, now_s: float) -> None:
        super()._handle(event, now_s)
        if isinstance(event, GangArrived):
            estimate = self.gatekeeper.estimate(event.gang.uid)
            if estimate is not None:
                self._arrivals.note(event.gang, estimate)


def measure_expected_starts(
    setting: Setting, plan: Plan, watch: Callable[[int], None] = lambda _: None
) -> dict[str, list[Told]]:
    """Expected starts `with` and `without` arrivals; `watch` is told of photographs done.

    Raises:
        ValueError: estimates that cannot be read, or the trace is one instant.
    """
    if setting.workload.jobs[-1].submitted_s <= 0:
        raise ValueError("all jobs of the trace are submitted at once: nothing arrives while others wait")
    cluster = setting.cluster()
    scheduler = Photographer(setting, cluster, plan)
    errors = errors_of(setting.estimates, setting.seed, setting.workload)
    Simulation(setting.workload, cluster, scheduler, errors, setting.weights).run()
    told: dict[str, list[Told]] = {"with": [], "without": []}
    for number, (photo, past) in enumerate(scheduler.photographs):
        for name, known in (("with", past if past.tells else None), ("without", None)):
            chance = random.Random(f"{setting.seed}/{number}")
            futures = futures_of(photo, known, chance)
            found = outlook(photo, [next(futures) for _ in range(plan.futures)], arrivals=known is not None)
            told[name] += [
                Told(photo.now_s, expected, scheduler.starts_s[uid]) for uid, expected in found.starts.items()
            ]
        watch(number + 1)
    return told
