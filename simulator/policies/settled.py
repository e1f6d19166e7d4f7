"""An independent, slow model of the settled fair clock (fair queue, one level of users), to try rules in.

It follows the mathematics line by line with plain loops over users and jobs,
knows nothing of gangs, reservations, lag limits or voided refunds, and shares
no code with the core. It serves twice: rules for who may go first are cheap to
try here before the core has them, and where both should agree (slots, lone
pods) the core is held against it in tests.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from simulator.state import Submission

_SPECK = 1e-15
OVERRUN_EVERY_S = (1.0, 30.0)
"""Who outlives his estimate pays when that is first noticed, and again whenever he has run a tenth longer,
within these seconds."""
LOOKED_AT = 8
"""So many jobs of a user are compared when it is decided which of them goes first."""


@dataclass(slots=True)
class _Flow:
    meter: float
    weight: float
    waiting: int = 0
    waiting_work: float = 0.0
    running: int = 0


@dataclass(slots=True)
class _Run:
    """Pods that run since `start_s` at this share, what is charged for them, when that is used up."""

    start_s: float
    share: float
    charged: float
    due_s: float


class _Clock:
    """Virtual time and meters, as in the design: active is who waits or is charged ahead of V.

    A flow that is neither, and runs nothing, is forgotten; one that comes back is lifted to V.
    """

    def __init__(self) -> None:
        self.virtual_time = 0.0
        self.flows: dict[Hashable, _Flow] = {}

    def arrive(self, key: Hashable, weight: float, pods: int, work: float) -> None:
        flow = self.flows.setdefault(key, _Flow(self.virtual_time, weight))
        if not flow.waiting:
            flow.meter = max(flow.meter, self.virtual_time)
        flow.waiting += pods
        flow.waiting_work += work

    def charge(self, key: Hashable, pods: int, work: float) -> None:
        flow = self.flows[key]
        flow.meter += work / flow.weight
        flow.running += pods
        flow.waiting -= pods
        flow.waiting_work = flow.waiting_work - work if flow.waiting else 0.0
        if not flow.waiting and flow.meter < self.virtual_time:
            # What V granted it and it did not get was used by the others: V goes on as if not granted.
            unused = (self.virtual_time - flow.meter) * flow.weight
            flow.meter = self.virtual_time
            self.advance(unused)

    def correct(self, key: Hashable, change: float, ended: int = 0) -> None:
        """What is charged for a run changes; so many of its pods ended."""
        flow = self.flows[key]
        before = min(flow.meter, self.virtual_time)
        flow.meter += change / flow.weight
        flow.running -= ended
        if ended and not flow.waiting:
            self.advance((before - flow.meter) * flow.weight)

    def is_quiet(self) -> bool:
        """True when no flow waits or runs."""
        return not any(flow.waiting or flow.running for flow in self.flows.values())

    def active(self) -> list[_Flow]:
        return [
            flow for flow in self.flows.values() if flow.waiting or flow.meter > self.virtual_time + _SPECK
        ]

    def advance(self, delivered: float) -> None:
        while delivered > _SPECK and (active := self.active()):
            weight = sum(flow.weight for flow in active)
            ends = min((flow.meter for flow in active if not flow.waiting), default=float("inf"))
            step = max(0.0, min(delivered / weight, ends - self.virtual_time))
            self.virtual_time += step
            delivered -= max(step * weight, _SPECK)
        idle = [key for key, flow in self.flows.items() if not (flow.waiting or flow.running)]
        for key in idle:
            if self.flows[key].meter <= self.virtual_time + _SPECK:
                del self.flows[key]


class Turn(NamedTuple):
    """A waiting job, its tag, and the seconds until V reaches that if nothing more arrives."""

    tag: float
    order: tuple[float, int]
    job: Submission
    until_s: float = 0.0


def inside_slack(turns: Sequence[Turn], small: float = 0.0, allowance_s: float = 0.0) -> Submission:
    """The shortest of those that leave every earlier deadline feasible; a deadline is when V reaches a tag.

    A job whose whole work is at most `small` (share-seconds) may besides make
    earlier ones miss their deadlines by up to `allowance_s`, all such jobs
    together: a deadline that has passed counts as overdue.
    """
    best, slack, done = turns[0].job, float("inf"), 0.0
    for _, _, job, until_s in turns:
        work = job.estimated_waiting_work
        may = work <= slack or (job.estimated_work <= small and work <= slack + allowance_s)
        if may and work < best.estimated_waiting_work:
            best = job
        done += work
        slack = min(slack, until_s - done)
    return best


class SettledModel:
    """The settled clock over users, and inside each over his jobs, of which a short one may go ahead."""

    name = "settled"

    def __init__(self) -> None:
        self._top = _Clock()
        self._inner: dict[str, _Clock] = {}
        self._waiting: dict[str, list[Submission]] = {}
        self._held: dict[str, float] = {}
        self._runs: dict[Submission, list[_Run]] = {}
        self._first: dict[str, Submission] = {}
        self._now_s = 0.0

    def submitted(self, submission: Submission, now_s: float) -> None:
        """All of its pods wait from now on.

        Raises:
            ValueError: its pods do not all last equally long; the model is not made for that.
        """
        if min(submission.job.durations_s) < max(submission.job.durations_s):
            raise ValueError(f"policy {self.name}: pods of job {submission.job.name} differ in duration")
        self._advance(now_s)
        user, pods, work = submission.user, submission.job.pods, submission.estimated_work
        self._top.arrive(user, submission.weight, pods, work)
        self._inner.setdefault(user, _Clock()).arrive(submission, 1.0, pods, work)
        self._waiting.setdefault(user, []).append(submission)
        self._held.setdefault(user, 0.0)
        self._put_first(user)

    def head(self) -> Submission | None:
        """The job to go next."""
        self._charge_overruns()
        turns = sorted(turn for user, jobs in self._waiting.items() for turn in self._turns(user, jobs))
        return self.choose(turns) if turns else None

    def choose(self, turns: Sequence[Turn]) -> Submission:
        """Of the waiting jobs in the order of their tags, at least one."""
        return turns[0].job

    def started(self, submission: Submission, now_s: float) -> None:
        """Charged by estimate."""
        self._advance(now_s)
        pods = submission.job.pods if submission.job.gang else 1
        work = submission.estimated_work * pods / submission.job.pods
        self._top.charge(submission.user, pods, work)
        self._inner[submission.user].charge(submission, pods, work)
        share = pods * submission.share
        self._held[submission.user] += share
        run = _Run(now_s, share, work, now_s + work / share)
        self._runs.setdefault(submission, []).append(run)
        if not submission.waiting:
            self._waiting[submission.user].remove(submission)
        self._put_first(submission.user)

    def ended(self, submission: Submission, now_s: float) -> None:
        """Settled by what it used; of pods that last equally long the first started ends first."""
        self._advance(now_s)
        run = self._runs[submission].pop(0)
        self._held[submission.user] -= run.share
        change = run.share * submission.job.durations_s[0] - run.charged
        pods = submission.job.pods if submission.job.gang else 1
        self._correct(submission, change if abs(change) > _SPECK else 0.0, pods)
        if not self._runs[submission]:
            del self._runs[submission]
        if self._inner[submission.user].is_quiet():
            del self._inner[submission.user]  # what ended jobs owed each other bears on no later one

    def _charge_overruns(self) -> None:
        for submission, runs in self._runs.items():
            for run in runs:
                ran_s = self._now_s - run.start_s
                used = run.share * ran_s
                if run.due_s <= self._now_s:
                    least_s, most_s = OVERRUN_EVERY_S
                    run.due_s = self._now_s + min(most_s, max(least_s, 0.1 * ran_s))
                    if used > run.charged:
                        self._correct(submission, used - run.charged)
                        run.charged = used

    def _correct(self, submission: Submission, change: float, ended: int = 0) -> None:
        self._top.correct(submission.user, change, ended)
        self._inner[submission.user].correct(submission, change, ended)
        self._put_first(submission.user)

    def _advance(self, now_s: float) -> None:
        passed_s, self._now_s = now_s - self._now_s, now_s
        if passed_s > 0:
            self._top.advance(sum(self._held.values()) * passed_s)
            for user, inner in self._inner.items():
                inner.advance(self._held[user] * passed_s)

    def _turns(self, user: str, jobs: Sequence[Submission]) -> list[Turn]:
        """His waiting jobs: who goes first, the others by inner tag; each is tagged behind the one before."""
        if not jobs:
            return []
        flow, first = self._top.flows[user], self._first[user]
        turns, tag = [], flow.meter
        for job in [first, *(job for _, job in self._by_tag(user) if job is not first)]:
            tag += job.estimated_waiting_work / flow.weight
            turns.append(Turn(tag, job.order, job))
        return turns

    def _by_tag(self, user: str) -> list[tuple[float, Submission]]:
        inner = self._inner[user]
        tags = ((inner.flows[job].meter + job.estimated_waiting_work, job) for job in self._waiting[user])
        return sorted(tags, key=lambda tagged: (tagged[0], tagged[1].order))

    def _put_first(self, user: str) -> None:
        """The shortest of a user's jobs that leaves those before it what they are promised inside him.

        Looked at whenever something happens to one of them: of what the user receives until V reaches a
        tag, each of his waiting jobs is granted what V grows until then, or until its own tag.
        """
        tagged = self._by_tag(user)[:LOOKED_AT]
        if not tagged:
            return
        virtual_time = self._inner[user].virtual_time
        best, slack, work = tagged[0][1], float("inf"), 0.0
        for tag, job in tagged:
            own = job.estimated_waiting_work
            if own <= slack and own < best.estimated_waiting_work:
                best = job
            work += own
            granted = sum(min(tag, other) - virtual_time for other, _ in tagged)
            slack = min(slack, granted - work)
        self._first[user] = best

    def with_deadlines(self, turns: Sequence[Turn]) -> list[Turn]:
        """The same with the real time until V reaches each tag, the whole cluster being delivered.

        Below 0 where V has passed it: else an allowance would be granted anew for ever.
        """
        leaving = sorted(
            (flow.meter + flow.waiting_work / flow.weight, flow.weight) for flow in self._top.active()
        )
        virtual_time, weight, passed_s, gone = (
            self._top.virtual_time,
            sum(each for _, each in leaving),
            0.0,
            0,
        )
        dated, all_active = [], weight
        for turn in turns:
            while gone < len(leaving) - 1 and leaving[gone][0] < turn.tag:
                passed_s += max(0.0, leaving[gone][0] - virtual_time) * weight
                virtual_time = max(virtual_time, leaving[gone][0])
                weight -= leaving[gone][1]
                gone += 1
            passed_s += max(0.0, turn.tag - virtual_time) * weight
            virtual_time = max(virtual_time, turn.tag)
            overdue_s = max(0.0, self._top.virtual_time - turn.tag) * all_active
            dated.append(turn._replace(until_s=passed_s - overdue_s))
        return dated


class SettledSlackModel(SettledModel):
    """Shortest first inside the slack."""

    name = "settled-slack"

    def choose(self, turns: Sequence[Turn]) -> Submission:
        """See `inside_slack`."""
        return inside_slack(self.with_deadlines(turns))


class SettledSmallModel(SettledModel):
    """The same, and small jobs (0.1 s of the whole cluster) may cost others up to 25 s in all.

    On trial only: it has the figures, but whoever cuts his work into small
    jobs delays another user by those 25 s.

    Nearly all of the settled clock's lateness beyond UWFQ's on the published
    homo slice is one small job of a user who was served ahead of his share.
    """

    name = "settled-small"

    def choose(self, turns: Sequence[Turn]) -> Submission:
        """See `inside_slack`."""
        return inside_slack(self.with_deadlines(turns), small=0.1, allowance_s=25.0)
