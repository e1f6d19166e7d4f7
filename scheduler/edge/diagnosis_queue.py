"""What the facts say about the fair queue: whether somebody keeps it, and whether it moves. Pure."""

from __future__ import annotations

from typing import Any

from scheduler.edge.diagnosis import Findings, ago, namespace_of, note, ok, problem, unreachable
from scheduler.edge.facts import Facts

STUCK_S = 3600.0
"""A complete gang that waits so long while nothing runs waits for something that will not come by itself."""
UNSEEN_S = 300.0
"""A burst of thousands of pods is gone through in less."""
_LOG = "Its log says more; pods wait gated meanwhile, and none is lost."


def controller(facts: Facts) -> Findings:
    """Whether a controller answers and a replica leads."""
    part, url, status = "controller", facts.settings.controller_url, facts.controller.answer
    if not url:
        yield note(
            part,
            "No controller is configured, so there is no fair queue.",
            "Start `fairlane controller` and set controller_url, unless only placing is wanted.",
        )
    elif facts.controller.failure:
        yield unreachable(part, url, facts.controller, f"Start `fairlane controller`. {_LOG}")
    elif unready := status.get("unready"):
        yield problem(part, f"Nobody keeps the queue: {unready}.", _LOG)
    else:
        leader = status.get("leader") or status.get("identity")
        released = f" and has released {status.get('releases', 0)} gangs" if status.get("leads", True) else ""
        yield ok(part, f"{leader} leads the queue{released}.")
    if facts.queue.failure and not facts.controller.failure and not status.get("unready"):
        yield problem(part, f"The queue cannot be read: {facts.queue.failure}.", _LOG)


def queue_faults(facts: Facts) -> Findings:
    """What the controller counts and should not."""
    part, status = "queue", facts.controller.answer
    if count := status.get("invariant_failures"):
        yield problem(
            part,
            f"The queue contradicted itself {count} times; the last: {status.get('broken_invariant')}.",
            "Report it with the controller's log; a restart of the controller rebuilds the queue.",
        )
    if status.get("terms_failed"):
        yield note(part, f"The queue was begun anew after a fault: {status.get('last_fault')}.", _LOG)
    if count := status.get("checkpoint_failures"):
        yield note(
            part,
            f"The queue's checkpoint failed {count} times.",
            "Look at the rights on, and the size of, its ConfigMap; without it running gangs are charged"
            " by estimate after a restart.",
        )
    if unopened := _patches_failed(status):
        told = ", ".join(f"{count} because {reason}" for reason, count in sorted(unopened.items()))
        yield note(part, f"Gates were not opened: {told}.", "The controller's log has the sentences.")


def _patches_failed(status: dict[str, Any]) -> dict[str, int]:
    failed: dict[str, int] = status.get("patch_failures") or {}
    return {reason: count for reason, count in failed.items() if reason != "gone" and count}


def released_pods_are_looked_at(facts: Facts) -> Findings:
    """Whether a kube-scheduler serves our name: without one, pods are released and go nowhere."""
    since_s = facts.unseen_since_s
    waited_s = facts.now_s - since_s
    if since_s > facts.last_bound_s and waited_s > UNSEEN_S:
        yield problem(
            "kube-scheduler",
            f"A pod of ours was released {ago(waited_s)}, and no kube-scheduler has looked at it.",
            "The one of the name fairlane does not run, or does not lead:"
            f" kubectl --namespace {namespace_of(facts)} logs deploy/fairlane-scheduler -c kube-scheduler.",
        )


def queue_moves(facts: Facts) -> Findings:
    """Whether gangs that could go go; what the FairQueue object says that cannot be obeyed."""
    part, told = "queue", facts.queue.answer
    for complaint in told.get("complaints", ()):
        yield problem(part, f"The FairQueue object: {complaint}.", "Correct it; the rest of it is in force.")
    if told.get("paused"):
        yield note(part, "The queue is paused: nothing is released.", "POST /v1/resume lets it go on.")
    elif (waited_s := _longest_wait_s(facts)) > STUCK_S and not told["running"]:
        yield problem(
            part,
            f"Nothing runs, and a complete gang has waited for {waited_s / 3600:.1f} hours.",
            "`fairlane queue` says why; the nodes may be too small, cordoned, or filled by pods outside it.",
        )


def _longest_wait_s(facts: Facts) -> float:
    arrivals = [
        gang["arrived_s"]
        for gang in facts.queue.answer.get("gangs", ())
        if gang["state"] == "waiting" and gang["arrived_s"] is not None
    ]
    return facts.now_s - min(arrivals) if arrivals else 0.0
