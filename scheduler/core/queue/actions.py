"""What the fair queue wants done, as plain values: the answer of `Gatekeeper.handle`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from scheduler.core.queue.events import Estimate


@dataclass(frozen=True, slots=True)
class ReleaseReceipt:
    """What the releasing patch writes beside opening the gate.

    `charged_work` in share-seconds; `tag` in virtual time; `position` is the
    gang's place in the order when it arrived, 1 being the head (0: it did not
    wait, or too far back to be counted); `placement` maps pod uid to the node planned for it,
    and is empty for a gang that is released without room, so that nodes are added for it.
    """

    released_s: float
    charged_work: float
    share: float
    tag: float
    position: int
    estimate: Estimate
    placement: Mapping[str, str]
    backfilled: bool = False


@dataclass(frozen=True, slots=True)
class ReleaseGang:
    """Open the gates of `pods` (uids). `completing`: the gang is released already and misses these."""

    uid: str
    flow: str
    pods: tuple[str, ...]
    receipt: ReleaseReceipt
    completing: bool = False


@dataclass(frozen=True, slots=True)
class DeletePods:
    """Delete released pods of a gang that cannot be completed; their owner makes them again."""

    uid: str
    pods: tuple[str, ...]
    reason: str


class Trouble(StrEnum):
    """What a report is about."""

    INFEASIBLE = "infeasible"
    INCOMPLETE = "incomplete"
    HALF_OPEN = "half open"
    NOT_STARTED = "not started"
    UNSCHEDULABLE = "unschedulable"
    RELEASE_FAILED = "release failed"
    RAN_TOO_LONG = "ran too long"
    PROMISE_BROKEN = "promised pods did not come"
    REFUSED = "refused"
    CLOCK_BACK = "clock stepped back"


@dataclass(frozen=True, slots=True)
class Report:
    """Tell the owner of a gang (uid; empty for the queue itself) something, in a sentence."""

    uid: str
    trouble: Trouble
    sentence: str


@dataclass(frozen=True, slots=True)
class Settled:
    """A gang ended and its charge was replaced by what it really used.

    Works in share-seconds. `started_s` is None when it never started. `vanished`:
    its end was not seen, it is the last instant at which it was seen. `requests`:
    of all its pods together, by resource; empty when it ended before its pods
    were seen again after a restart.
    """

    uid: str
    flow: str
    job: str
    group: str
    job_class: str
    arrived_s: float
    released_s: float
    started_s: float | None
    finished_s: float
    share: float
    charged_work: float
    actual_work: float
    estimate: Estimate
    backfilled: bool = False
    vanished: bool = False
    requests: Mapping[str, float] = field(default_factory=dict)


Action = ReleaseGang | DeletePods | Report | Settled
