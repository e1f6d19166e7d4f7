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
from scheduler.core.queue.taints import Toleration

PATH = "/apis/fairlane.dev/v1alpha1/fairqueues"
_LIMITS = {
    "waitingGangsPerUser": "max_waiting_per_flow",
    "sharePerUserWhileOthersWait": "max_share_while_others_wait",
}
_DURATIONS = {
    "timeouts.incomplete": "incomplete_timeout_s",
    "timeouts.halfOpen": "half_open_timeout_s",
    "timeouts.start": "start_timeout_s",
    "timeouts.promise": "promise_timeout_s",
    "limits.runTime": "run_time_s",
    "autoscaler.releaseHeadAfter": "release_head_after_s",
}
_TOLERATION = ("key", "operator", "value", "effect")
_FLOW_KEYS = {"User": False, "Namespace": True}
_ORDERS = {"PriorityThenFair": False, "PriorityThenArrival": True}


@dataclass(frozen=True, slots=True)
class Configured:
    """What an object asks for; `complaints` are sentences about what was left out of it.

    `by_namespace`: fairness is between namespaces and not between users.
    """

    settings: QueueSettings
    paused: bool
    complaints: tuple[str, ...]
    by_namespace: bool = False


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
    complaints: list[str] = []
    settings = base
    by_namespace = _choice(spec, "flowKey", _FLOW_KEYS, complaints)
    for name, change in _changes(spec, base, complaints).items():
        try:
            settings = replace(settings, **{name: change})
        except (ValueError, TypeError, AttributeError) as error:
            complaints.append(f"{error}: left as it was")
    return Configured(settings, spec.get("paused") is True, tuple(complaints), by_namespace is True)


def _changes(spec: Mapping[str, Any], base: QueueSettings, complaints: list[str]) -> dict[str, Any]:
    backfill, nodes = _section(spec, "backfill"), _section(spec, "nodes")
    changes: dict[str, Any] = {}
    if (selector := nodes.get("selector")) is not None:
        changes["node_selector"] = _labels(selector, complaints, base.node_selector)
    if (tolerations := nodes.get("tolerations")) is not None:
        changes["node_tolerations"] = _tolerations(tolerations, complaints)
    if (by_arrival := _choice(spec, "orderInsideUser", _ORDERS, complaints)) is not None:
        changes["by_arrival_inside_user"] = by_arrival
    if (weight := spec.get("defaultWeight")) is not None:
        changes["default_weight"] = _number(weight, "defaultWeight", complaints, base.default_weight)
    if spec.get("weights"):
        changes["weights"] = {**base.weights, **_weights(spec["weights"], complaints)}
    if (enabled := backfill.get("enabled")) is not None:
        changes["backfill"] = bool(enabled)
    if (quantile := backfill.get("quantile")) is not None:
        changes["backfill_quantile"] = _number(
            quantile, "backfill.quantile", complaints, base.backfill_quantile
        )
    for key, name in _LIMITS.items():
        if (limit := _section(spec, "limits").get(key)) is not None:
            number = _number(limit, f"limits.{key}", complaints, getattr(base, name))
            changes[name] = int(number) if name.startswith("max_waiting") else number
    for key, name in _DURATIONS.items():
        section, _, field = key.partition(".")
        if (duration := _section(spec, section).get(field)) is not None:
            changes[name] = _seconds(duration, key, complaints, getattr(base, name))
    return changes


def _choice(
    spec: Mapping[str, Any], name: str, meaning: Mapping[str, bool], complaints: list[str]
) -> bool | None:
    """What a word means; None where nothing is said, or nothing that is understood."""
    given = spec.get(name)
    if given is not None and not (isinstance(given, str) and given in meaning):
        complaints.append(f"{name}: {given!r} is none of {', '.join(meaning)}: left as it was")
    return meaning.get(given) if isinstance(given, str) else None


def _labels(given: Any, complaints: list[str], otherwise: Mapping[str, str]) -> Mapping[str, str]:
    if isinstance(given, Mapping):
        return {str(key): str(value) for key, value in given.items()}
    complaints.append(f"nodes.selector: {given!r} is no map of labels: left as it was")
    return otherwise


def _tolerations(listed: Any, complaints: list[str]) -> tuple[Toleration, ...]:
    """As in a pod; one that cannot be read tolerates nothing."""
    found: list[Toleration] = []
    for one in listed if isinstance(listed, list) else ():
        told = one if isinstance(one, Mapping) else {}
        key, operator, value, effect = (str(told.get(part) or "") for part in _TOLERATION)
        if operator not in ("", "Equal", "Exists") or not (key or operator == "Exists"):
            complaints.append(f"nodes.tolerations: {one!r} names no taint: left out")
        else:
            found.append(Toleration(key, operator or "Equal", value, effect))
    return tuple(found)


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
        number = float(quantity(value) if isinstance(value, str) else value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if math.isfinite(number):
        return number
    complaints.append(f"{name}: {value!r} is no number: left as it was")
    return otherwise


def _seconds(value: Any, name: str, complaints: list[str], otherwise: float) -> float:
    try:
        return duration_s(value) if isinstance(value, str) else float(value)
    except (TypeError, ValueError, OverflowError) as error:
        complaints.append(f"{name}: {error}: left as it was")
        return otherwise
