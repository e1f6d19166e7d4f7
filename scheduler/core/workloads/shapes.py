"""What a pod needs of its node, from its specification or from the template of pods still to come."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from scheduler.core.queue.events import Requirement, Shape
from scheduler.core.queue.matching import NAME_FIELD
from scheduler.core.queue.taints import Toleration
from scheduler.core.requests import Complain, requests_of
from scheduler.core.wire import Affinity, NodeRequirement, NodeTerm, PodSpec

_AWAY = frozenset({"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"})
"""The API server lets every pod tolerate these for five minutes. Nodes that are away are unusable anyway, and
without them a template has the shape of its pods."""
SHAPES_KEPT = 4096


class Shapes:
    """Makes shapes, and lets equal ones be the same object: pods come in thousands of the same kind."""

    def __init__(self) -> None:
        self._known: dict[Shape, Shape] = {}

    def of(self, spec: PodSpec, complain: Complain) -> Shape:
        """The shape of a pod; amounts that cannot be read count as not given, and are complained of."""
        requests = requests_of(spec, complain)
        return self.same(
            Shape(
                tuple(sorted(item for item in requests.items() if item[1] > 0)),
                tuple(sorted((spec.nodeSelector or {}).items())),
                tuple(_terms(spec.affinity)),
                tuple(tolerations_of(spec)),
            )
        )

    def of_template(self, spec: Any, complain: Complain) -> Shape | None:
        """The shape of the pods of a template; None when it is none."""
        try:
            return self.of(msgspec.convert(spec, PodSpec), complain)
        except msgspec.ValidationError as error:
            complain("template", str(error))
            return None

    def same(self, shape: Shape) -> Shape:
        """The one object for all shapes equal to this one."""
        if len(self._known) >= SHAPES_KEPT:
            self._known.clear()
        return self._known.setdefault(shape, shape)


def tolerations_of(spec: PodSpec) -> Iterator[Toleration]:
    """What the pod puts up with, but for nodes that are away."""
    for one in spec.tolerations or ():
        if one.key not in _AWAY or one.effect != "NoExecute":
            yield Toleration(one.key or "", one.operator or "Equal", one.value or "", one.effect or "")


def _terms(affinity: Affinity | None) -> Iterator[tuple[Requirement, ...]]:
    nodes = affinity.nodeAffinity if affinity is not None else None
    required = nodes.requiredDuringSchedulingIgnoredDuringExecution if nodes is not None else None
    for term in (required.nodeSelectorTerms if required is not None else None) or ():
        yield tuple(_requirements(term))


def _requirements(term: NodeTerm) -> Iterator[Requirement]:
    for one in term.matchExpressions or ():
        yield _requirement(one, one.key)
    for one in term.matchFields or ():
        yield _requirement(one, NAME_FIELD if one.key == NAME_FIELD else f"field {one.key}")


def _requirement(one: NodeRequirement, key: str) -> Requirement:
    return Requirement(key, one.operator, tuple(one.values or ()))
