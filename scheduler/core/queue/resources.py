"""Resource vectors and the dominant share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

PODS = "pods"
"""The resource of which every pod takes one."""
Requests = tuple[tuple[str, float], ...]
Amounts = Mapping[str, float]
TOLERANCE = 1e-9
"""Relative error of sums of requests that is no lack of room."""


def total(requests: Iterable[Requests]) -> dict[str, float]:
    """Sum by resource, the number of pods included."""
    amounts: dict[str, float] = {}
    count = 0
    for one in requests:
        count += 1
        for resource, amount in one:
            amounts[resource] = amounts.get(resource, 0.0) + amount
    amounts[PODS] = amounts.get(PODS, 0.0) + count
    return amounts


def dominant_share(amounts: Amounts, reference: Amounts) -> float:
    """The largest part of the reference that `amounts` takes of any resource; may exceed 1.

    Dominant resource of Ghodsi et al., NSDI 2011. Resources that the reference
    does not name cost nothing.
    """
    return max((amounts.get(resource, 0.0) / whole for resource, whole in reference.items()), default=0.0)


def copies(free: Amounts, requests: Requests) -> int:
    """How many pods of these requests fit side by side; a resource that is not there has none."""
    count = _times(free[PODS], 1.0) if PODS in free else 1 << 30
    for resource, amount in requests:
        if amount > 0:
            count = min(count, _times(free.get(resource, 0.0), amount))
    return max(0, count)


def _times(free: float, amount: float) -> int:
    return int(free / amount + TOLERANCE) if free > 0 else 0


def fits(free: Amounts, requests: Requests) -> bool:
    """True when one pod of these requests fits."""
    if PODS in free and free[PODS] < 1.0 - TOLERANCE:
        return False
    return all(amount <= 0 or free.get(name, 0.0) >= amount * (1.0 - TOLERANCE) for name, amount in requests)


def take(free: dict[str, float], requests: Requests, times: float = 1.0) -> None:
    """Take (or with -1 give back) the requests of one pod."""
    for resource, amount in requests:
        free[resource] = free.get(resource, 0.0) - times * amount
    if PODS in free:
        free[PODS] -= times
