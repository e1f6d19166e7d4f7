"""What the controller asks at release, and what it is told: which nodes each pod of some gangs should go to.

The controller knows what is free; the process that scores nodes knows how long
a pod would run on each. A `PlanRequest` brings the former to the latter: nodes
with what is free there, shapes with the nodes that allow them, and pods in the
order in which they are planned. `RoomLeft` is the room while one pod after
another takes its own.
"""

from __future__ import annotations

import msgspec

from scheduler.core.queue.resources import Requests, fits, take

PATH = "/v1/plan"
PODS_AT_ONCE = 100
"""In one request; a larger gang comes by itself."""


class PlanShape(msgspec.Struct, frozen=True, gc=False):
    """Requests of a pod (base units), and positions of the nodes that it is allowed on."""

    requests: Requests
    allowed: list[int]


class PlanPod(msgspec.Struct, frozen=True, gc=False):
    """A pod by uid; `shape` is a position in `PlanRequest.shapes`."""

    uid: str
    shape: int


class PlanRequest(msgspec.Struct, frozen=True):
    """Body of `POST /v1/plan`: `free` has one entry per node, by resource in base units."""

    nodes: list[str]
    free: list[dict[str, float]]
    shapes: list[PlanShape]
    pods: list[PlanPod]


class PodPlan(msgspec.Struct, frozen=True, gc=False):
    """Nodes for a pod with their scores 0..10, best first; none where nothing is known, and `reason` is why.

    `reason` is a `Fallback` or a sentence; it may also say why a plan is less than a fresh
    prediction. `ours`: the pod names our scheduler.
    """

    uid: str
    nodes: list[tuple[str, int]] = []
    reason: str = ""
    ours: bool = True


class PlanReply(msgspec.Struct, frozen=True):
    """A plan for each pod of the request, in its order."""

    pods: list[PodPlan]


class BadPlanRequest(ValueError):
    """The request contradicts itself; the message says where."""


class RoomLeft:
    """The room of a request while its pods take theirs.

    Raises:
        BadPlanRequest: a position points outside of the request.
    """

    def __init__(self, asked: PlanRequest) -> None:
        _check(asked)
        self._asked = asked
        self._free = [dict(amounts) for amounts in asked.free]
        self._position = {name: at for at, name in enumerate(asked.nodes)}
        self._fitting = [
            dict.fromkeys(at for at in shape.allowed if fits(self._free[at], shape.requests))
            for shape in asked.shapes
        ]
        self._names: dict[int, tuple[str, ...]] = {}

    def candidates(self, shape: int) -> tuple[str, ...]:
        """Nodes on which a pod of this shape fits now; the same object as long as they are the same."""
        found = self._names.get(shape)
        if found is None:
            found = self._names[shape] = tuple(self._asked.nodes[at] for at in self._fitting[shape])
        return found

    def take(self, shape: int, node: str) -> None:
        """A pod of this shape goes there."""
        at = self._position[node]
        take(self._free[at], self._asked.shapes[shape].requests)
        for number, other in enumerate(self._asked.shapes):
            if at in self._fitting[number] and not fits(self._free[at], other.requests):
                del self._fitting[number][at]
                self._names.pop(number, None)


def _check(asked: PlanRequest) -> None:
    nodes = len(asked.nodes)
    if len(asked.free) != nodes or len(set(asked.nodes)) != nodes:
        raise BadPlanRequest("nodes must be named once each and have one entry of `free` each")
    if any(not 0 <= at < nodes for shape in asked.shapes for at in shape.allowed):
        raise BadPlanRequest("`allowed` has a position that is none of the nodes")
    if any(not 0 <= pod.shape < len(asked.shapes) for pod in asked.pods):
        raise BadPlanRequest("a pod has a shape that is none of the shapes")
