"""Whether all parts are of one release, or near enough: findings for `fairlane doctor`. Pure."""

from __future__ import annotations

from itertools import combinations

from model import protocol
from scheduler.edge.diagnosis import Findings, note, problem
from scheduler.edge.facts import Facts

_ADVICE = (
    "Bring all parts, and this command, to one release; until then each goes on as if the other were away."
)


def versions(facts: Facts) -> Findings:
    """Parts that do not understand one another or this command; an upgrade that is under way."""
    found = {
        "extender": facts.extender.protocol_version,
        "recorder": facts.recorder.protocol_version,
        "controller": facts.controller.protocol_version,
        "predictor": facts.model.protocol_version if facts.model else None,
        "fairlane doctor": protocol.PROTOCOL,
    }
    spoken = {part: version for part, version in found.items() if version is not None}
    apart = [
        f"{one} ({mine}) and {other} ({theirs})"
        for (one, mine), (other, theirs) in combinations(spoken.items(), 2)
        if not protocol.tolerated(mine, theirs)
    ]
    told = ", ".join(f"{part} {version}" for part, version in spoken.items())
    if apart:
        yield problem(
            "versions",
            f"Parts of too different versions do not understand one another: {'; '.join(apart)}.",
            _ADVICE,
        )
    elif len(set(spoken.values())) > 1:
        yield note(
            "versions", f"Parts are of different versions, and understand one another: {told}.", _GO_ON
        )


_GO_ON = "Finish the upgrade, or its way back."
