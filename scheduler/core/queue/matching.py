"""May a pod go to a node at all, is the node the queue's: labels and taints. Resources are another matter."""

from __future__ import annotations

from collections.abc import Mapping

from scheduler.core.queue.events import Node, Requirement, Shape
from scheduler.core.queue.taints import Toleration, kept_away

NAME_FIELD = "metadata.name"


def allowed(shape: Shape, node: Node) -> bool:
    """True when selector, required affinity and taints let a pod of this shape onto the node."""
    if any(node.labels.get(key) != value for key, value in shape.selector):
        return False
    if shape.affinity and not any(_holds(term, node) for term in shape.affinity):
        return False
    return not kept_away(node.taints, shape.tolerations)


def belongs(node: Node, selector: Mapping[str, str], tolerations: tuple[Toleration, ...] | None) -> bool:
    """True for a node of the queue with this selector that tolerates these taints (None: all)."""
    if tolerations is not None and kept_away(node.taints, tolerations):
        return False
    return all(node.labels.get(key) == value for key, value in selector.items())


def _holds(term: tuple[Requirement, ...], node: Node) -> bool:
    """All of a term's expressions; an empty term matches nothing, as in Kubernetes."""
    return bool(term) and all(_meets(node, one) for one in term)


def _meets(node: Node, one: Requirement) -> bool:
    value = node.name if one.key == NAME_FIELD else node.labels.get(one.key)
    if one.operator in ("Exists", "DoesNotExist"):
        return (value is not None) == (one.operator == "Exists")
    if one.operator == "NotIn":
        return value not in one.values
    if value is None:
        return False
    if one.operator == "In":
        return value in one.values
    return _compares(value, one)


def _compares(value: str, one: Requirement) -> bool:
    """Gt and Lt of whole numbers; anything that is none, and an operator we do not know, does not match."""
    try:
        found, bound = int(value), int(one.values[0])
    except (ValueError, IndexError):
        return False
    return {"Gt": found > bound, "Lt": found < bound}.get(one.operator, False)
