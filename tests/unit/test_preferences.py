"""What counts as a preference of a pod, in the JSON that kube-scheduler sends."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from scheduler.core.preferences import has_preferences
from scheduler.core.wire import PodSpec

SOME = [{"weight": 5, "preference": {"matchExpressions": []}}]
PREFERRED, REQUIRED = (f"{what}DuringSchedulingIgnoredDuringExecution" for what in ("preferred", "required"))
NODES = {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]}

PREFER: list[Any] = [
    {"affinity": {"nodeAffinity": {REQUIRED: NODES, PREFERRED: SOME}}},
    {"affinity": {"podAffinity": {PREFERRED: SOME}}},
    {"affinity": {"nodeAffinity": None, "podAntiAffinity": {REQUIRED: [{}], PREFERRED: SOME}}},
    {
        "topologySpreadConstraints": [
            {"whenUnsatisfiable": "DoNotSchedule"},
            {"whenUnsatisfiable": "ScheduleAnyway"},
        ]
    },
]
DEMAND: list[Any] = [
    {},
    {"affinity": None, "topologySpreadConstraints": None},
    {"affinity": {"nodeAffinity": {REQUIRED: NODES, PREFERRED: []}, "podAffinity": {PREFERRED: None}}},
    {"affinity": {"podAntiAffinity": {REQUIRED: [{"topologyKey": "zone"}]}}},
    {"topologySpreadConstraints": [{"whenUnsatisfiable": "DoNotSchedule"}]},
]


@pytest.mark.parametrize("spec", PREFER)
def test_preferred_terms_and_soft_spreading_are_preferences(spec: Any) -> None:
    assert has_preferences(msgspec.convert(spec, PodSpec))


@pytest.mark.parametrize("spec", DEMAND)
def test_what_must_hold_is_none(spec: Any) -> None:
    assert not has_preferences(msgspec.convert(spec, PodSpec))
