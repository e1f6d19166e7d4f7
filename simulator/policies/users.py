"""Policies that choose a user first and a job of his second: user-job-fair and DRF."""

from __future__ import annotations

from simulator.policies.keyed import Fair, Fifo, Keyed
from simulator.policies.ordering import Ordering
from simulator.state import Submission

_ROUNDING_DIGITS = 12


class _User:
    """What a user holds now, and his waiting jobs in the order of the inner policy."""

    def __init__(self, inner: Keyed, weight: float) -> None:
        self.inner = inner
        self.weight = weight
        self._held: dict[Submission, float] = {}
        self._total = 0.0

    def look_again(self, submission: Submission) -> None:
        """Take over what the job holds now."""
        held = submission.running_share
        self._total += held - self._held.pop(submission, 0.0)
        if held:
            self._held[submission] = held

    @property
    def held(self) -> float:
        """Share per weight, rounded: users who hold the same must be equal."""
        return round(self._total / self.weight, _ROUNDING_DIGITS)


class LeastHeld:
    """The waiting user who holds the least share per weight goes next; `inner` orders his jobs.

    Of equal users the one whose first waiting job came first.
    """

    name = ""
    inner: type[Keyed] = Fifo

    def __init__(self) -> None:
        self._users: dict[str, _User] = {}
        self._order: Ordering[str] = Ordering()

    def submitted(self, submission: Submission, now_s: float) -> None:
        """Waits from now on."""
        user = self._users.setdefault(submission.user, _User(self.inner(), submission.weight))
        user.inner.submitted(submission, now_s)
        self._look_again(submission)

    def head(self) -> Submission | None:
        """Of the user who holds the least, the first of the inner policy."""
        name = self._order.first()
        return None if name is None else self._users[name].inner.head()

    def started(self, submission: Submission, now_s: float) -> None:
        """His user holds more."""
        self._users[submission.user].inner.started(submission, now_s)
        self._look_again(submission)

    def ended(self, submission: Submission, now_s: float) -> None:
        """His user holds less."""
        self._users[submission.user].inner.ended(submission, now_s)
        self._look_again(submission)

    def _look_again(self, submission: Submission) -> None:
        user = self._users[submission.user]
        user.look_again(submission)
        head = user.inner.head()
        if head is None:
            self._order.drop(submission.user)
        else:
            self._order.put(submission.user, (user.held, *head.order))


class UserJobFair(LeastHeld):
    """User-job-fair (UJF): users are equal, and the jobs of one user are equal.

    Source: the baseline "UJF" of UWFQ (arXiv 2510.15485, section 5): Spark
    fair pools by user, fair again inside the pool.
    """

    name = "ujf"
    inner = Fair


class DominantResourceFairness(LeastHeld):
    """DRF: the user with the least dominant share gets his next task placed.

    Source: A. Ghodsi et al., "Dominant Resource Fairness", NSDI 2011,
    algorithm 1 (weighted as in its section 4.3); tasks of one user in the
    order of submission. When the next task does not fit, nothing starts.
    """

    name = "drf"
    inner = Fifo
