"""What counts as a preference of a pod, in the JSON that kube-scheduler sends."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from scheduler.core.preferences import has_preferences, would_rather_not
from scheduler.core.queue.taints import Taint
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


SPARE = Taint("spare", "yes", "PreferNoSchedule")


@pytest.mark.parametrize(
    ("taints", "tolerations", "rather_not"),
    [
        ([SPARE], None, True),
        ([SPARE], [{"key": "spare", "operator": "Exists"}], False),
        ([SPARE], [{"key": "spare", "value": "yes", "effect": "PreferNoSchedule"}], False),
        ([SPARE], [{"key": "spare", "value": "no"}], True),
        ([SPARE], [{"operator": "Exists", "effect": "NoSchedule"}], True),
        ([SPARE, Taint("slow", effect="PreferNoSchedule")], [{"key": "spare", "operator": "Exists"}], True),
        ([Taint("gone", effect="NoSchedule")], None, False),
        ([], None, False),
    ],
)
def test_a_soft_taint_that_is_not_tolerated_is_a_reason_for_another_node(
    taints: list[Taint], tolerations: Any, rather_not: bool
) -> None:
    assert would_rather_not(msgspec.convert({"tolerations": tolerations}, PodSpec), taints) == rather_not
