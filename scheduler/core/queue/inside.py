"""Shortest first inside one user, as long as none of his other jobs pays for it.

The jobs' clock of a user promises each of his jobs the finish that it would
have if his jobs shared equally what he gets: its tag T_j, which is V plus what
it still waits for when the job comes. What the user receives until V reaches
T_j is at least what his waiting jobs are granted until then,

    sum over jobs i up to j of (T_i - V)  +  (number of jobs behind j) x (T_j - V),

and his waiting work up to j must be served of it. The difference is j's slack:

    slack_j = sum over i up to j of (T_i - work_i - V)  +  (jobs behind j) x (T_j - V).

A job whose work is within the slack of all before it may go first; among those
that may, the shortest does. What runs is left out, and jobs that are not looked
at count nothing, so the slack is never overstated by them. It is the rule of
`slack` one level down; here it is always on, since it moves nobody else: other
users see the same work and pay nothing, and who lies about his own jobs
reorders them alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from scheduler.core.queue.front import Job, Turn

LOOKED_AT = 8
"""So many jobs of a user are compared; more change next to nothing (docs/simulator.md)."""


def first_inside(turns: Sequence[Turn[Job]], virtual_time: float) -> Turn[Job]:
    """Which of one tier's waiting jobs, given by tag and at least one, goes first."""
    best, slack, given = turns[0], math.inf, 0.0
    for behind, turn in zip(range(len(turns) - 1, -1, -1), turns, strict=True):
        if turn.work <= slack and turn.work < best.work:
            best = turn
        given += turn.tag - turn.work - virtual_time
        slack = min(slack, given + behind * (turn.tag - virtual_time))
        if slack <= 0:
            break
    return best
