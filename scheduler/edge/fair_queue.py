"""The FairQueue object -> settings of the core; what it leaves out is as in our own settings.

The API server checks the object by the CRD's schema, but an older CRD, or
none, must not stop the queue: a value that makes no sense is complained of and
left as it was.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from scheduler.config import ControllerSettings
from scheduler.core.quantities import duration_s, quantity
from scheduler.core.queue.settings import QueueSettings

PATH = "/apis/fairlane.dev/v1alpha1/fairqueues"
_LIMITS = {
    "waitingGangsPerUser": "max_waiting_per_flow",
    "sharePerUserWhileOthersWait": "max_share_while_others_wait",
}
_TIMEOUTS = {
    "incomplete": "incomplete_timeout_s",
    "halfOpen": "half_open_timeout_s",
    "start": "start_timeout_s",
    "promise": "promise_timeout_s",
}
_NOT_YET = (
    ("nodes.tolerations", "which nodes a pod may use is told by its own tolerations"),
    ("limits.runTime", "gangs run as long as they run"),
    ("autoscaler.releaseHeadAfter", "nothing is released before it fits"),
)
_ONLY = {"flowKey": "User", "orderInsideUser": "PriorityThenFair", "backfill.quantile": 0.9}
"""What the queue always does; other values are complained of."""


@dataclass(frozen=True, slots=True)
class Configured:
    """What an object asks for; `complaints` are sentences about what was left out of it."""

    settings: QueueSettings
    paused: bool
    complaints: tuple[str, ...]


def base_settings(own: ControllerSettings, reference: Mapping[str, float]) -> QueueSettings:
    """The settings without any FairQueue object; `reference` in base units."""
    return QueueSettings(
        reference=dict(reference),
        name=own.queue,
        weights={(user,): weight for user, weight in own.weights.items()},
        default_weight=own.default_weight,
        backfill=own.backfill,
        depth=own.depth,
        invariants_every=0,  # the controller checks by time: a broken invariant must not lose a release
    )


def configured(spec: Mapping[str, Any], base: QueueSettings) -> Configured:
    """What the object's `spec` asks for, laid over `base`."""
    complaints = [f"{name} is not obeyed yet: {why}" for name, why in _NOT_YET if _given(spec, name)]
    settings = base
    for name, only in _ONLY.items():
        if (given := _given(spec, name)) not in (None, only):
            complaints.append(f"{name}: {given} is not obeyed yet, only {only}")
    for name, change in _changes(spec, base, complaints).items():
        try:
            settings = replace(settings, **{name: change})
        except (ValueError, TypeError, AttributeError) as error:
            complaints.append(f"{error}: left as it was")
    return Configured(settings, spec.get("paused") is True, tuple(complaints))


def _changes(spec: Mapping[str, Any], base: QueueSettings, complaints: list[str]) -> dict[str, Any]:
    backfill, nodes = _section(spec, "backfill"), _section(spec, "nodes")
    changes: dict[str, Any] = {}
    if (selector := nodes.get("selector")) is not None:
        changes["node_selector"] = {str(key): str(value) for key, value in dict(selector).items()}
    if (weight := spec.get("defaultWeight")) is not None:
        changes["default_weight"] = _number(weight, "defaultWeight", complaints, base.default_weight)
    if spec.get("weights"):
        changes["weights"] = {**base.weights, **_weights(spec["weights"], complaints)}
    if (enabled := backfill.get("enabled")) is not None:
        changes["backfill"] = bool(enabled)
    for key, name in _LIMITS.items():
        if (limit := _section(spec, "limits").get(key)) is not None:
            number = _number(limit, f"limits.{key}", complaints, getattr(base, name))
            changes[name] = int(number) if name.startswith("max_waiting") else number
    for key, name in _TIMEOUTS.items():
        if (timeout := _section(spec, "timeouts").get(key)) is not None:
            changes[name] = _seconds(timeout, f"timeouts.{key}", complaints, getattr(base, name))
    return changes


def _given(spec: Mapping[str, Any], name: str) -> Any:
    section, dot, key = name.partition(".")
    return _section(spec, section).get(key) if dot else spec.get(name)


def _section(spec: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = spec.get(name)
    return section if isinstance(section, Mapping) else {}


def _weights(listed: Any, complaints: list[str]) -> dict[tuple[str, ...], float]:
    weights: dict[tuple[str, ...], float] = {}
    for one in listed if isinstance(listed, list) else ():
        user = str(one.get("user", "")) if isinstance(one, Mapping) else ""
        weight = (
            _number(one.get("weight"), f"the weight of {user}", complaints, math.nan) if user else math.nan
        )
        if weight > 0:
            weights[(user,)] = weight
        else:
            complaints.append(f"weights: {one!r} names no user with a weight above 0: left out")
    return weights


def _number(value: Any, name: str, complaints: list[str], otherwise: float) -> float:
    try:
        return float(quantity(value) if isinstance(value, str) else value)
    except (TypeError, ValueError):
        complaints.append(f"{name}: {value!r} is no number: left as it was")
        return otherwise


def _seconds(value: Any, name: str, complaints: list[str], otherwise: float) -> float:
    try:
        return duration_s(value) if isinstance(value, str) else float(value)
    except (TypeError, ValueError) as error:
        complaints.append(f"{name}: {error}: left as it was")
        return otherwise
