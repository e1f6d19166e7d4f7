"""Where pods run: identical slots, or nodes with cores, memory and GPUs."""

from __future__ import annotations

import csv
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from scheduler.core.quantities import quantity
from scheduler.core.queue.slots import SLOT
from simulator.state import Floats
from simulator.traces.errors import TraceError
from simulator.traces.files import csv_rows, opened
from simulator.workload import Job, Request

Place = Any
RESOURCES = ("cpu", "memory", "gpu")
NODE_LIMIT = 1_000_000
_ROUNDING = 1e-9


class Cluster(Protocol):
    """Room for pods; `take` is all or nothing."""

    def share(self, request: Request) -> float:
        """Dominant share of one pod of the whole cluster."""
        ...

    def take(self, request: Request, pods: int) -> Place | None:
        """Room for that many pods at once, or None."""
        ...

    def free(self, place: Place) -> None:
        """Give back what `take` gave."""
        ...

    def could_fit(self, job: Job) -> bool:
        """Whether the empty cluster could ever start it."""
        ...

    def offers(self) -> Mapping[str, Mapping[str, float]]:
        """What each node can allocate, by resource: how the production core is told of the cluster."""
        ...

    def requests(self, request: Request) -> tuple[tuple[str, float], ...]:
        """A pod's requests in the same resources."""
        ...

    def take_on(self, request: Request, nodes: Sequence[str]) -> Place | None:
        """Room for one pod on each of these nodes (a name may come several times), or None."""
        ...


class Slots:
    """Identical slots; a pod takes one, whatever it asks for."""

    def __init__(self, slots: int) -> None:
        if slots < 1:
            raise ValueError(f"slots is {slots}, must be 1 or more")
        self.slots = slots
        self.free_slots = slots

    def share(self, request: Request) -> float:  # noqa: ARG002
        """One slot's."""
        return 1.0 / self.slots

    def take(self, request: Request, pods: int) -> Place | None:  # noqa: ARG002
        """So many slots."""
        if pods > self.free_slots:
            return None
        self.free_slots -= pods
        return pods

    def free(self, place: Place) -> None:
        """Slots back."""
        self.free_slots += place

    def could_fit(self, job: Job) -> bool:
        """A gang needs a slot for each pod."""
        return not job.gang or job.pods <= self.slots

    def offers(self) -> Mapping[str, Mapping[str, float]]:
        """One node with all slots."""
        return {"slots": {SLOT: float(self.slots)}}

    def requests(self, request: Request) -> tuple[tuple[str, float], ...]:  # noqa: ARG002
        """One slot."""
        return ((SLOT, 1.0),)

    def take_on(self, request: Request, nodes: Sequence[str]) -> Place | None:
        """So many slots."""
        return self.take(request, len(nodes))


@dataclass(frozen=True, slots=True)
class Node:
    """What a node offers to pods."""

    name: str
    cpu: float
    memory: float
    gpu: float


class Nodes:
    """Nodes with cores, memory and GPUs; pods go to the first node with room, in the order given."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        if not nodes:
            raise ValueError("a cluster needs at least one node")
        self.nodes = tuple(nodes)
        self._free: Floats = np.array([[node.cpu, node.memory, node.gpu] for node in nodes], dtype=float)
        self._whole = self._free.copy()
        self._position = {node.name: at for at, node in enumerate(self.nodes)}
        if len(self._position) < len(self.nodes):
            raise ValueError("two nodes have the same name")
        self.total: Floats = self._free.sum(axis=0)

    def share(self, request: Request) -> float:
        """The largest part of one resource of all nodes."""
        return max(
            asked / total if total > 0 else float("inf")
            for asked, total in zip(request.parts, self.total, strict=True)
            if asked > 0
        )

    def take(self, request: Request, pods: int) -> Place | None:
        """The node of each pod, or None."""
        asked = np.array(request.parts)
        room = _room(self._free, asked)
        placed = np.minimum(room, np.maximum(0, pods - (np.cumsum(room) - room)))
        if placed.sum() < pods:
            return None
        used = np.flatnonzero(placed)
        self._free[used] -= placed[used, None] * asked
        return used, placed[used], asked

    def offers(self) -> Mapping[str, Mapping[str, float]]:
        """Each node by its name, without resources of which it has none."""
        return {node.name: _present((node.cpu, node.memory, node.gpu)) for node in self.nodes}

    def requests(self, request: Request) -> tuple[tuple[str, float], ...]:
        """What the pod asks for, without what it does not."""
        return tuple(_present(request.parts).items())

    def take_on(self, request: Request, nodes: Sequence[str]) -> Place | None:
        """The same as `take`, on given nodes."""
        asked = np.array(request.parts)
        counts = Counter(nodes)
        used = np.array([self._position[name] for name in counts], dtype=np.int64)
        placed = np.array(list(counts.values()), dtype=np.int64)
        if (_room(self._free[used], asked) < placed).any():
            return None
        self._free[used] -= placed[:, None] * asked
        return used, placed, asked

    def free(self, place: Place) -> None:
        """The same back on the same nodes."""
        used, placed, asked = place
        self._free[used] += placed[:, None] * asked

    def could_fit(self, job: Job) -> bool:
        """Room for the gang, or for one pod, with nothing else running."""
        needed = job.pods if job.gang else 1
        return bool(_room(self._whole, np.array(job.request.parts)).sum() >= needed)


def _present(parts: tuple[float, float, float]) -> dict[str, float]:
    return {name: part for name, part in zip(RESOURCES, parts, strict=True) if part > 0}


def _room(free: Floats, asked: Floats) -> Any:
    """How many such pods each node still takes."""
    wanted = asked > 0
    return np.floor(np.min(free[:, wanted] / asked[wanted] + _ROUNDING, axis=1)).astype(np.int64)


def read_nodes(path: Path) -> Nodes:
    """Nodes of a CSV file with columns cpu, memory, gpu; optional name, count. Quantities as in Kubernetes.

    Raises:
        TraceError: unreadable or a broken line.
    """
    try:
        with opened(path, newline="") as text:
            columns, rows = csv_rows(path, text)
            listed = list(rows)
    except (OSError, EOFError, UnicodeDecodeError, zlib.error, csv.Error) as error:
        raise TraceError(f"{path.name}: cannot be read: {error}") from error
    missing = [name for name in RESOURCES if name not in columns]
    if missing:
        raise TraceError(f"{path.name}: column {missing[0]} is missing; needed are {', '.join(RESOURCES)}")
    nodes: list[Node] = []
    for number, (line, row) in enumerate(listed, 1):
        try:
            nodes += _nodes(number, row)
        except ValueError as error:
            raise TraceError.at(path, line, str(error)) from error
    if not nodes:
        raise TraceError(f"{path.name}: no node")
    return Nodes(nodes)


def _nodes(number: int, row: Mapping[str, str]) -> Sequence[Node]:
    """The equal nodes of one row."""
    count = _count(row.get("count") or "1")
    offered = [quantity(row[name]) for name in RESOURCES]
    if min(offered) < 0 or not any(offered):
        raise ValueError("cpu, memory and gpu must be 0 or more, and one of them above 0")
    name = row.get("name") or f"node-{number}"
    return [Node(f"{name}-{at}" if count > 1 else name, *offered) for at in range(1, count + 1)]


def _count(text: str) -> int:
    told = f"count is {text.strip()}, must be a whole number from 1 to {NODE_LIMIT}"
    try:
        count = int(text)
    except ValueError as error:
        raise ValueError(told) from error
    if not 1 <= count <= NODE_LIMIT:
        raise ValueError(told)
    return count
