"""Policies whose order is a key of the job alone: FIFO, job-fair, SRPT."""

from __future__ import annotations

from simulator.policies.ordering import Key, Ordering
from simulator.state import Submission


class Keyed:
    """Waiting jobs by `key`, which is looked at again whenever a pod of the job starts or ends."""

    name = ""

    def __init__(self) -> None:
        self._waiting: Ordering[Submission] = Ordering()

    def key(self, submission: Submission) -> Key:
        """Smallest first."""
        raise NotImplementedError

    def submitted(self, submission: Submission, now_s: float) -> None:  # noqa: ARG002
        """Waits from now on."""
        self._look_again(submission)

    def head(self) -> Submission | None:
        """The smallest key."""
        return self._waiting.first()

    def started(self, submission: Submission, now_s: float) -> None:  # noqa: ARG002
        """Its key may have changed."""
        self._look_again(submission)

    def ended(self, submission: Submission, now_s: float) -> None:  # noqa: ARG002
        """Its key may have changed."""
        self._look_again(submission)

    def _look_again(self, submission: Submission) -> None:
        if submission.waiting:
            self._waiting.put(submission, self.key(submission))
        else:
            self._waiting.drop(submission)


class Fifo(Keyed):
    """First come, first served."""

    name = "fifo"

    def key(self, submission: Submission) -> Key:
        """By submission."""
        return submission.order


class Fair(Keyed):
    """Job-fair: the job that holds the least goes next.

    Source: Spark's FAIR mode with every job in a pool of its own, equal
    weights, no minimum share (Spark documentation, "Job Scheduling", Fair
    Scheduler Pools): the pool with the fewest running tasks per weight.
    """

    name = "fair"

    def key(self, submission: Submission) -> Key:
        """By share held, then submission."""
        return (submission.running_share / submission.weight, *submission.order)


class Srpt(Keyed):
    """Shortest remaining processing time: the job with the least estimated work that has not started.

    Source: L. Schrage, "A proof of the optimality of the shortest remaining
    processing time discipline", Operations Research 16 (1968); non-pre-emptive
    at the level of pods here, as in a cluster.
    """

    name = "srpt"

    def key(self, submission: Submission) -> Key:
        """By estimated work left, then submission."""
        return (submission.estimated_waiting_work, *submission.order)
