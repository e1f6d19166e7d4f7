"""What a pod requests in all, as kube-scheduler counts it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from scheduler.core.quantities import quantity
from scheduler.core.wire import Container, PodSpec, ResourceNeeds

Complain = Callable[[str, str], None]
"""Told the resource and what is wrong with its amount; it then counts as not given."""
LASTING = "Always"
"""`restartPolicy` of an init container that keeps running beside the others."""


def requests_of(spec: PodSpec, complain: Complain) -> dict[str, float]:
    """Effective requests of a pod by resource, in base units (cores, bytes, devices).

    Containers and lasting init containers add up; an ordinary init container
    counts, with the lasting ones started before it, where it is more. Amounts
    for the pod as a whole take the place of that. A limit without a request
    is the request too, as the API server fills it in.
    """
    total: dict[str, float] = {}
    for container in spec.containers or ():
        _add(total, _of(container.resources, complain))
    if spec.initContainers:
        _raise(total, spec.initContainers, complain)
    if spec.resources is not None:
        total.update(_of(spec.resources, complain))
    if spec.overhead:
        _add(total, _amounts(spec.overhead, complain))
    return total


def _raise(total: dict[str, float], inits: list[Container], complain: Complain) -> None:
    lasting: dict[str, float] = {}
    largest: dict[str, float] = {}
    for container in inits:
        needs = _of(container.resources, complain)
        _add(needs, lasting)
        if container.restartPolicy == LASTING:
            lasting = needs
        for resource, amount in needs.items():
            largest[resource] = max(largest.get(resource, 0.0), amount)
    _add(total, lasting)
    for resource, amount in largest.items():
        total[resource] = max(total.get(resource, 0.0), amount)


def _of(needs: ResourceNeeds | None, complain: Complain) -> dict[str, float]:
    if needs is None:
        return {}
    return _amounts({**(needs.limits or {}), **(needs.requests or {})}, complain)


def _amounts(given: Mapping[str, str], complain: Complain) -> dict[str, float]:
    amounts: dict[str, float] = {}
    for resource, text in given.items():
        try:
            amounts[resource] = max(0.0, quantity(text))
        except ValueError as error:
            complain(resource, str(error))
    return amounts


def _add(total: dict[str, float], more: Mapping[str, float]) -> None:
    for resource, amount in more.items():
        total[resource] = total.get(resource, 0.0) + amount
