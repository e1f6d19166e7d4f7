"""From predicted times to the integers that kube-scheduler adds up.

Best node
    10, and no other node has 10; exact ties at the top are broken by the
    caller's `tie_break`.
Near ties
    9. A node is a near tie of the best when its predicted time lies inside the
    model's own uncertainty about their *difference*. The errors of one job on
    two nodes are mostly the same error (the job is longer than thought), so
    with a share `SHARED_ERROR` of the variance in common the difference of the
    logarithms has the standard deviation

        tie_width = sigma * sqrt(2 * (1 - SHARED_ERROR))

Others
    fall from 9 to 0 as the time grows from the edge of the near ties to
    `HOPELESS` times that; monotone in the predicted time.

At most `max_listed` nodes are listed and only those above 0: a node left out
counts 0, and kube-scheduler's decoding of a long answer costs more than
anything done here. A node whose time is not finite is never listed.

Exploration chooses another node for the first place with probability `rate`
and tells the propensity, the probability with which each node would have come
first; the randomness is the caller's `draws`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from model.snapshot import Floats, Indices
from scheduler.core.types import Ranking

BEST = 10
NEAR_TIE = 9
SHARED_ERROR = 0.95
HOPELESS = 2.0
SAME = 1e-9
"""Logarithms of times closer than this are one time."""

TieBreak = Callable[[Indices], Sequence[float]]
"""Tells a number for each of these positions."""
_CERTAIN = np.ones(1)


@dataclass(frozen=True, slots=True)
class Exploration:
    """How often and how far to explore.

    Of a share `rate` of the calls, the first place is drawn: by a softmax of
    the logarithm of the time with `temperature` among the nodes at most
    `max_regret` slower than the best, or uniformly among all nodes when
    `everywhere` (for collecting the first examples).
    """

    rate: float = 0.0
    temperature: float = 0.1
    max_regret: float = 0.2
    everywhere: bool = False


NO_EXPLORATION = Exploration()


def tie_width(sigma: float) -> float:
    """Difference of log times inside which two nodes count as near ties; `sigma` is of one log time."""
    return sigma * math.sqrt(2.0 * (1.0 - SHARED_ERROR)) if math.isfinite(sigma) and sigma > 0 else 0.0


def rank(
    log_s: Floats,
    sigma: Floats,
    tie_break: TieBreak,
    max_listed: int,
    exploration: Exploration = NO_EXPLORATION,
    draws: tuple[float, float] = (1.0, 0.0),
) -> Ranking | None:
    """The ranking of nodes by predicted log time (shape (n,), s), or None without an opinion.

    `sigma` is the standard deviation of each log time, `tie_break` tells any
    numbers of nodes. None when fewer than one time is finite or all are the
    same. `draws` are two independent uniform numbers in [0, 1): the first
    decides whether to explore, the second which node.
    """
    least, edge, differ = _bounds(log_s, max_listed)
    if math.isnan(least) or not (differ or (exploration.everywhere and exploration.rate > 0)):
        return None
    nearest = _nearest(log_s, tie_break, least, edge)
    best = min((tie, place) for time, tie, place in nearest if time <= least + SAME)[1]
    width = tie_width(float(sigma[best]))
    top, explorable, propensity = _first(log_s, best, exploration, draws)
    listed, scores = [top], [BEST]
    for time, _, other in nearest:
        if other != top and len(listed) < max_listed and (points := score(time - least, width)) > 0:
            listed.append(other)
            scores.append(points)
    return Ranking(
        order=np.array(listed, dtype=np.intp),
        scores=tuple(scores),
        explored=top != best,
        explorable=explorable,
        propensity=propensity,
        tie_width=width,
    )


def score(slower: float, width: float) -> int:
    """0..9 from how much slower than the best (difference of log times, >= 0) a node is."""
    beyond = max(slower - width, 0.0) / math.log(HOPELESS)
    return round(min(max(NEAR_TIE * (1.0 - beyond), 0.0), NEAR_TIE))


def _bounds(log_s: Floats, count: int) -> tuple[float, float, bool]:
    """The least time, up to which one the `count + 1` best go, and whether the times differ.

    One more than are listed, in case the first is none of them. One time alone differs; where none is
    finite, they are NaN. The best few settle most calls, without a look at all.
    """
    if len(log_s) > count:
        parted = log_s.copy()
        parted.partition(count)
        *_, edge = few = parted[: count + 1].tolist()
        least = min(few)
        if math.isfinite(least) and math.isfinite(edge) and edge >= least + SAME:
            return least, edge, True
    finite = np.sort(log_s[np.isfinite(log_s)])
    if not len(finite):
        return math.nan, math.nan, False
    least, edge, most = (float(finite[place]) for place in (0, min(count, len(finite) - 1), -1))
    return least, max(edge, least + SAME), len(finite) == 1 or most - least >= SAME


def _nearest(log_s: Floats, tie_break: TieBreak, least: float, edge: float) -> list[tuple[float, float, int]]:
    """Time, tie break and place of those between; best first."""
    places: Indices = (log_s <= edge).nonzero()[0]
    found = zip(log_s[places].tolist(), tie_break(places), places.tolist(), strict=True)
    return sorted(one for one in found if one[0] >= least)


def _first(
    log_s: Floats, best: int, exploration: Exploration, draws: tuple[float, float]
) -> tuple[int, Indices, Floats]:
    """Who comes first, who could have, and with which probability each."""
    if exploration.rate <= 0:
        return best, np.array([best], dtype=np.intp), _CERTAIN
    known: Indices = np.isfinite(log_s).nonzero()[0]
    explorable, propensity = _propensities(log_s, known, best, exploration)
    if draws[0] >= exploration.rate:
        return best, explorable, propensity
    return _drawn(explorable, propensity, best, exploration.rate, draws[1]), explorable, propensity


def _propensities(
    log_s: Floats, known: Indices, best: int, exploration: Exploration
) -> tuple[Indices, Floats]:
    """Nodes that may come first and the probability of each, exploring or not."""
    slower = log_s[known] - log_s[best]
    if exploration.everywhere:
        explorable, weight = known, np.ones(len(known))
    else:
        near = slower <= math.log1p(exploration.max_regret) + SAME
        explorable, weight = known[near], np.exp(-slower[near] / exploration.temperature)
    propensity = exploration.rate * weight / weight.sum()
    propensity[explorable == best] += 1.0 - exploration.rate
    return explorable, propensity


def _drawn(explorable: Indices, propensity: Floats, best: int, rate: float, draw: float) -> int:
    """The node that a uniform `draw` picks, given that this call explores."""
    share = np.where(explorable == best, propensity - (1.0 - rate), propensity)
    cumulated = np.cumsum(share)
    position = int(np.searchsorted(cumulated, draw * cumulated[-1], side="right"))
    return int(explorable[min(position, len(explorable) - 1)])
