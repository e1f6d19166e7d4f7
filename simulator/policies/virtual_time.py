"""Policies that order jobs by their finish in a simulated fluid cluster: CFQ and UWFQ.

Both run on their own clock, driven by estimates alone: what the real cluster
does, and how long jobs really take, never reaches them. Work is in
share-seconds and the whole cluster delivers 1.0 a second.
"""

from __future__ import annotations

import bisect
from typing import NamedTuple

from simulator.policies.keyed import Keyed
from simulator.policies.ordering import Key, Ordering
from simulator.state import Submission


class _Tagged(Keyed):
    """Waiting jobs by tag; subclasses say when tags are set."""

    def __init__(self) -> None:
        super().__init__()
        self._tags: dict[Submission, float] = {}

    def key(self, submission: Submission) -> Key:
        """By tag, then submission."""
        return (self._tags[submission], *submission.order)

    def _tag(self, submission: Submission, tag: float) -> None:
        self._tags[submission] = tag
        self._look_again(submission)


class ClusterFairQueueing(_Tagged):
    """CFQ: jobs share a fluid cluster equally; real jobs run in the order in which they would finish there.

    Source: C. Chen et al., "Cluster fair queueing: speeding up data-parallel
    jobs with delay guarantees", INFOCOM 2017. Tag = virtual time at the
    submission + work / weight.
    """

    name = "cfq"

    def __init__(self) -> None:
        super().__init__()
        self._virtual_time = 0.0
        self._now_s = 0.0
        self._weight = 0.0
        self._active: Ordering[Submission] = Ordering()

    def submitted(self, submission: Submission, now_s: float) -> None:
        """Joins the fluid cluster, and gets the tag that it keeps."""
        self._advance(now_s)
        tag = self._virtual_time + submission.estimated_work / submission.weight
        self._active.put(submission, (tag,))
        self._weight += submission.weight
        self._tag(submission, tag)

    def _advance(self, now_s: float) -> None:
        while (first := self._active.first()) is not None:
            finish_s = self._now_s + (self._tags[first] - self._virtual_time) * self._weight
            if finish_s > now_s:
                self._virtual_time += (now_s - self._now_s) / self._weight
                break
            self._virtual_time, self._now_s = self._tags[first], finish_s
            self._active.drop(first)
            self._weight = self._weight - first.weight if len(self._active) else 0.0
        self._now_s = now_s


class _Chained(NamedTuple):
    """A job in its user's order: by its finish in the user's own fluid cluster."""

    user_tag: float
    number: int
    submission: Submission


class _FluidUser:
    """One user of UWFQ's fluid cluster."""

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self.virtual_time = 0.0
        self.start = 0.0
        self.end = 0.0
        self.active: list[_Chained] = []

    def add(self, submission: Submission) -> None:
        """A job joins, behind those that would finish before it."""
        tag = self.virtual_time + submission.estimated_work
        bisect.insort(self.active, _Chained(tag, submission.index, submission))

    def advance(self, share_seconds: float) -> None:
        """The user is served so much, equally among his jobs; `start` moves on by every job that finishes."""
        while self.active and share_seconds > 0:
            first = self.active[0]
            needed = max(0.0, first.user_tag - self.virtual_time) * len(self.active)
            if needed > share_seconds:
                self.virtual_time += share_seconds / len(self.active)
                return
            self.virtual_time = max(self.virtual_time, first.user_tag)
            self._finish(self.active.pop(0).submission)
            share_seconds -= needed

    def leave(self) -> None:
        """All of his work is done in the fluid cluster."""
        for chained in self.active:
            self._finish(chained.submission)
        self.active.clear()

    def _finish(self, submission: Submission) -> None:
        self.start += submission.estimated_work / self.weight


class UserWeightedFairQueueing(_Tagged):
    """UWFQ as published: users share a fluid cluster, the jobs of a user share what he gets.

    Source: "Balancing Fairness and Performance in Multi-User Spark Workloads
    with Dynamic Scheduling", arXiv 2510.15485, algorithm 1. The jobs of a user
    in the order of their finish inside his share form a chain: each one's tag
    is the one before it + its work / weight, the first begins at `start`: the
    virtual time at which the user became active + all of his work that the
    fluid cluster has finished since. Tags of the whole chain are set anew
    whenever the user submits. (The published evaluation gives every user
    weight 1; weights divide work here.)
    """

    name = "uwfq"

    def __init__(self) -> None:
        super().__init__()
        self._virtual_time = 0.0
        self._now_s = 0.0
        self._weight = 0.0
        self._users: dict[str, _FluidUser] = {}
        self._active: Ordering[str] = Ordering()

    def submitted(self, submission: Submission, now_s: float) -> None:
        """Joins his user's chain, all of whose tags are set anew."""
        self._advance(now_s)
        user = self._users.setdefault(submission.user, _FluidUser(submission.weight))
        if submission.user not in self._active:
            user.start = self._virtual_time
            self._weight += user.weight
        user.add(submission)
        self._chain(user, submission)
        self._active.put(submission.user, (user.end, submission.user))

    def _chain(self, user: _FluidUser, new: Submission) -> None:
        tag = user.start
        for _, _, each in user.active:
            tag += each.estimated_work / user.weight
            self._tag(each, self._floored(tag, each, each is new))
        user.end = tag

    def _floored(self, tag: float, submission: Submission, is_new: bool) -> float:  # noqa: ARG002
        """As published: the tag as it is, even where it lies in the past."""
        return tag

    def _advance(self, now_s: float) -> None:
        while (name := self._active.first()) is not None:
            leaving = self._users[name]
            virtual_time = max(leaving.end, self._virtual_time)
            finish_s = self._now_s + (virtual_time - self._virtual_time) * self._weight
            if finish_s > now_s:
                self._serve(self._virtual_time + (now_s - self._now_s) / self._weight)
                break
            self._serve(virtual_time)
            self._now_s = finish_s
            leaving.leave()
            self._active.drop(name)
            self._weight = self._weight - leaving.weight if len(self._active) else 0.0
        self._now_s = now_s

    def _serve(self, virtual_time: float) -> None:
        """The fluid cluster runs until that virtual time."""
        passed = virtual_time - self._virtual_time
        self._virtual_time = virtual_time
        for name, user in self._users.items():
            if name in self._active:
                user.advance(passed * user.weight)


class UserWeightedFairQueueingWithFloor(UserWeightedFairQueueing):
    """UWFQ with a causal floor: a new job's tag is never earlier than it would be for a user who joins now.

    Ours, for comparison: the published tags may lie in the past (a small job
    of a user whose big one has been served is put before it in his chain).
    """

    name = "uwfq-floor"

    def _floored(self, tag: float, submission: Submission, is_new: bool) -> float:
        if not is_new:
            return tag
        return max(tag, self._virtual_time + submission.estimated_work / submission.weight)
