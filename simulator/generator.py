"""Composed load from a YAML description: streams of jobs per user, arrivals, a mix of jobs, heavy tails.

Every stream draws from its own random numbers (seed and place in the file),
so that adding a user leaves the others as they were. Fields and an example:
docs/simulator.md; ready ones: `simulator/scenarios/`.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from scheduler.core.quantities import quantity
from simulator.workload import Job, Request, Workload, workload_of

SCENARIOS = Path(__file__).parent / "scenarios"
JOB_LIMIT = 1_000_000
Positive = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1, le=JOB_LIMIT)]


class ScenarioError(Exception):
    """A description cannot be used; the message says which field and why."""


class _Strict(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind"):
    pass


class Constant(_Strict, frozen=True, tag="constant"):
    """Always `value`."""

    value: Positive

    def draw(self, source: random.Random) -> float:  # noqa: ARG002
        """The value."""
        return self.value


class Uniform(_Strict, frozen=True, tag="uniform"):
    """Between `least` and `most`."""

    least: Positive
    most: Positive

    def draw(self, source: random.Random) -> float:
        """A value."""
        return source.uniform(self.least, self.most)


class Exponential(_Strict, frozen=True, tag="exponential"):
    """Exponential of that mean."""

    mean: Positive

    def draw(self, source: random.Random) -> float:
        """A value."""
        return source.expovariate(1 / self.mean)


class Lognormal(_Strict, frozen=True, tag="lognormal"):
    """median x exp(sigma x N(0, 1))."""

    median: Positive
    sigma: Positive

    def draw(self, source: random.Random) -> float:
        """A value."""
        return self.median * math.exp(source.gauss(0.0, self.sigma))


class Pareto(_Strict, frozen=True, tag="pareto"):
    """Heavy tail: P(X > x) = (least / x)^alpha, cut at `most` (inverse of the bounded distribution)."""

    least: Positive
    alpha: Positive
    most: Positive

    def draw(self, source: random.Random) -> float:
        """A value."""
        rest = 1 - source.random() * (1 - (self.least / self.most) ** self.alpha)
        return self.least / float(rest ** (1 / self.alpha))


Distribution = Constant | Uniform | Exponential | Lognormal | Pareto


class Poisson(_Strict, frozen=True, tag="poisson"):
    """Independent arrivals, `every_s` apart in the mean."""

    every_s: Positive

    def times(self, source: random.Random) -> Iterator[float]:
        """Times of arrival, for ever."""
        now_s = 0.0
        while True:
            now_s += source.expovariate(1 / self.every_s)
            yield now_s


class Regular(_Strict, frozen=True, tag="regular"):
    """One every `every_s`, the first at `first_s`."""

    every_s: Positive
    first_s: Annotated[float, Meta(ge=0)] = 0.0

    def times(self, source: random.Random) -> Iterator[float]:  # noqa: ARG002
        """Times of arrival, for ever."""
        count = 0
        while True:
            yield self.first_s + count * self.every_s
            count += 1


class Bursts(_Strict, frozen=True, tag="bursts"):
    """Bursts of `jobs` within `within_s`, beginning `every_s` apart in the mean."""

    every_s: Positive
    jobs: Count
    within_s: Annotated[float, Meta(ge=0)] = 0.0

    def times(self, source: random.Random) -> Iterator[float]:
        """Times of arrival, for ever; bursts that overlap are merged in order."""
        begin_s, pending = 0.0, list[float]()
        while True:
            begin_s += source.expovariate(1 / self.every_s)
            while pending and pending[0] <= begin_s:
                yield heapq.heappop(pending)
            for _ in range(self.jobs):
                heapq.heappush(pending, begin_s + source.uniform(0.0, self.within_s))


class Once(_Strict, frozen=True, tag="once"):
    """`jobs` at `at_s`, and no more."""

    at_s: Annotated[float, Meta(ge=0)] = 0.0
    jobs: Count = 1

    def times(self, source: random.Random) -> Iterator[float]:  # noqa: ARG002
        """Times of arrival."""
        return iter([self.at_s] * self.jobs)


Arrivals = Poisson | Regular | Bursts | Once


class JobKind(Struct, frozen=True, forbid_unknown_fields=True):
    """One kind in a mix, drawn in proportion to `share`; `pods` is a number or a distribution, rounded."""

    duration_s: Distribution
    pods: Count | Distribution = 1
    share: Positive = 1.0
    gang: bool = False
    cpu: str | float = 1.0
    memory: str | float = 0.0
    gpu: str | float = 0.0

    def draw(self, source: random.Random, name: str, user: str, submitted_s: float) -> Job:
        """A job of this kind; its pods all last equally long."""
        pods = self.pods if isinstance(self.pods, int) else max(1, round(self.pods.draw(source)))
        request = Request(*(quantity(str(asked)) for asked in (self.cpu, self.memory, self.gpu)))
        return Job(
            name, user, submitted_s, (self.duration_s.draw(source),) * pods, request, self.gang and pods > 1
        )


class Stream(Struct, frozen=True, forbid_unknown_fields=True):
    """Arrivals and a mix of jobs of one user, or of `count` users called name-1, name-2, ..."""

    name: str
    arrivals: Arrivals
    jobs: Annotated[list[JobKind], Meta(min_length=1)]
    count: Count = 1

    def users(self) -> list[str]:
        """Whom it makes submit."""
        return [self.name] if self.count == 1 else [f"{self.name}-{at}" for at in range(1, self.count + 1)]


class Scenario(Struct, frozen=True, forbid_unknown_fields=True):
    """All streams, until `horizon_s` or the first `limit` jobs."""

    horizon_s: Positive
    users: Annotated[list[Stream], Meta(min_length=1)]
    limit: Count = JOB_LIMIT


def read_scenario(name: str) -> Scenario:
    """The description in that file, or the ready one of that name.

    Raises:
        ScenarioError: there is none, or it cannot be read.
    """
    path = next((each for each in (Path(name), SCENARIOS / f"{name}.yaml") if each.is_file()), None)
    if path is None:
        raise ScenarioError(f"{name}: no such file, and the ready scenarios are {', '.join(ready())}")
    try:
        return msgspec.yaml.decode(path.read_bytes(), type=Scenario)
    except (msgspec.MsgspecError, OSError) as error:
        raise ScenarioError(f"{path.name}: {error}") from error


def description(name: str) -> str:
    """The text of a ready scenario, to begin one's own with.

    Raises:
        ScenarioError: there is none of that name.
    """
    if name not in ready():
        raise ScenarioError(f"{name}: the ready scenarios are {', '.join(ready())}")
    return (SCENARIOS / f"{name}.yaml").read_text()


def ready() -> list[str]:
    """Names of the scenarios that come with the project."""
    return sorted(path.stem for path in SCENARIOS.glob("*.yaml"))


def generate(scenario: Scenario, seed: int, name: str = "generated") -> Workload:
    """The jobs of all streams; equal for equal seeds.

    Raises:
        ScenarioError: no job falls within the horizon, there are too many, or a quantity is none.
    """
    try:
        streams = [
            _jobs(stream, user, random.Random(f"{seed}/{at}/{user}"), scenario.horizon_s)
            for at, stream in enumerate(scenario.users)
            for user in stream.users()
        ]
        merged = heapq.merge(*streams, key=lambda job: job.submitted_s)
        return workload_of(list(islice(merged, scenario.limit)), name)
    except ValueError as error:
        raise ScenarioError(f"{name}: {error}") from error


def _jobs(stream: Stream, user: str, source: random.Random, horizon_s: float) -> Iterator[Job]:
    shares = [kind.share for kind in stream.jobs]
    for number, at_s in enumerate(stream.arrivals.times(source), 1):
        if at_s > horizon_s:
            return
        kind = source.choices(stream.jobs, shares)[0]
        yield kind.draw(source, f"{user}-{number}", user, at_s)
