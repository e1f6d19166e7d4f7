"""The analytic prior: log(run_s) from a feature row alone, without any training.

    log_prior = log(base_s) + network + load

    base_s    the class history (3/4 of the mean and 1/4 of the EWMA of log run
              times, counted as `class_runs` observations) shrunk by one pseudo-run to
              the hinted duration, else to the user's history, else to
              CPU_S + transfer_median_s + ROUNDS * RTT
    network   log(1 - w + w * transfer_ratio * (1 + sharing)): the share w of the
              run that is transfer grows with the candidate's transfer time,
              and with the transfers of residents that share the link; w is
              transfer_median_s / base_s where volumes are hinted, else
              SHARE_BY_DEFAULT
    load      USE_WEIGHT * (cpu use - TYPICAL_USE)
              + log max(1, cpu use + requested share of the cores)

    sharing   max(1, (link_s + min(heavy * link_s, left_s)) / own_s) - 1: a transfer
              of own_s takes up its node's link for link_s of them, beside `heavy`
              others that together do so for left_s more, each with the same part
              of it (processor sharing, Kleinrock 1976); MOVING * heavy * link_s
              instead of the minimum where nobody knows what they still move

Each term rises with what slows a job down and falls with what speeds it up,
so the sum has the signs of the feature table. A reading that is unknown counts
as typical: a node that says nothing is neither the best nor the worst.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from model.schema import POSITION
from model.snapshot import Floats, Indices

PRIOR_SIGMA = 0.8
"""Standard deviation of log(run_s) about the prior before anything was learnt: a factor of 2.2."""

CPU_S = 60.0
RECENT = 0.25
"""Weight of the moving average: it follows drift, but a few unlucky placements move it."""
ROUNDS = 200.0
SHARE_BY_DEFAULT = 0.3
SHARE_AT_MOST = 0.9
RATIO_AT_MOST = 50.0
MOVING = 0.5
TYPICAL_USE = 0.4
USE_WEIGHT = 0.3
LEAST_S = 0.1


PARTS: tuple[tuple[str, str], ...] = (
    ("prior_level", "class_mean_log_s"),
    ("prior_network", "transfer_ratio"),
    ("prior_load", "cpu_use"),
)
"""Names of the prior's terms, and the feature that an explanation names for each."""

Reader = Callable[[str], Floats | float]
"""Values of a feature by its name: one per row, or one for all rows."""


def reader_of(features: Floats) -> Reader:
    """Reads the columns of a feature matrix.

    Raises ValueError when the number of columns is not that of the feature table.
    """
    if features.ndim != 2 or features.shape[1] != len(POSITION):
        raise ValueError(f"features must have shape (rows, {len(POSITION)}), got {features.shape}")
    return lambda name: features[:, POSITION[name]]


def log_prior_parts(features: Floats) -> Floats:
    """The three terms of the prior, shape (rows, 3), in the order of `PARTS`; never NaN.

    Raises ValueError when the number of columns is not that of the feature table.
    """
    read = reader_of(features)
    level = log_level(read)
    return np.stack([level, *placement_of(read, level).terms(*residents_of(read))], axis=1)


def log_prior(features: Floats) -> Floats:
    """Log of the expected run time in s, shape (rows,), from features of shape (rows, len(FEATURES)).

    Never NaN. Raises ValueError when the number of columns is not that of the
    feature table.
    """
    read = reader_of(features)
    level = log_level(read)
    return np.asarray(level + log_placement(read, level), dtype=np.float64)


def log_placement(read: Reader, level: Floats | float) -> Floats:
    """What the candidate itself adds to `level`: the terms network and load."""
    network, load = placement_of(read, level).terms(*residents_of(read))
    return network + load


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """The terms network and load, taken apart so that other residents cost no second look at the features.

    The columns of `parts`, shape (candidates, 7), so that what belongs to one candidate lies together:
    `still`, the share of the run that is no transfer; `moving`, the rest times the candidate's transfer
    ratio; `own_s`, the seconds of the transfer, and `link_s`, those of them that take up the link (NaN
    without hints); `use` of the cpu, with `measured` 1, or the typical one, with 0; `wanted`, the share of
    the cores that the job asks for. Of the residents, `heavy` counts those that move much, `left_s` is how
    long they still do.
    """

    parts: Floats

    def terms(self, heavy: Floats, left_s: Floats) -> tuple[Floats, Floats]:
        """Network and load with these residents."""
        still, moving, own_s, link_s, use, _, wanted = self.parts.T
        network = np.log(still + moving * (1.0 + sharing(own_s, link_s, heavy, left_s)))
        return network, USE_WEIGHT * (use - TYPICAL_USE) + np.log(np.maximum(use + wanted, 1.0))

    def log_s(self, heavy: Floats, left_s: Floats) -> Floats:
        """Both terms together, in log s."""
        network, load = self.terms(heavy, left_s)
        return network + load

    def changed(
        self,
        rows: Indices,
        heavy: Sequence[float],
        left_s: Sequence[float],
        more_use: Sequence[float],
    ) -> list[float]:
        """`log_s` of these candidates with other residents and so much more cpu in use (never below 0).

        The same formulas for one candidate after the other: for the few that change at a time, arrays cost
        several times as much, and comparisons less than `max`. NaN stays.
        """
        log, log_s = math.log, []
        for part, count, left, more in zip(self.parts[rows].tolist(), heavy, left_s, more_use, strict=True):
            still, moving, own_s, link_s, use, measured, wanted = part
            if measured:
                use = 0.0 if use + more < 0.0 else use + more
            full = 1.0 if use + wanted < 1.0 else use + wanted
            network = log(still + moving * (1.0 + _sharing_of_one(own_s, link_s, count, left)))
            log_s.append(network + (USE_WEIGHT * (use - TYPICAL_USE) + log(full)))
        return log_s


def placement_of(read: Reader, level: Floats | float) -> Placement:
    """What of network and load depends on the features of job and candidate."""
    base_s = np.maximum(np.exp(np.minimum(level, 50.0)), LEAST_S)
    hinted = read("transfer_median_s") / base_s
    share = np.clip(known(hinted, otherwise=SHARE_BY_DEFAULT), 0.0, SHARE_AT_MOST)
    ratio = np.clip(known(read("transfer_ratio"), otherwise=1.0), 0.0, RATIO_AT_MOST)
    use = known(read("cpu_use_forecast"), read("cpu_use_mean_1m"), read("cpu_use"), otherwise=np.nan)
    measured = np.isfinite(use)
    wanted = known(np.divide(read("job_cpu"), read("cpu_cores")), otherwise=0.0)
    own_s = ratio * read("transfer_median_s")
    link_s = known(read("link_s"), otherwise=own_s)
    parts = (
        1.0 - share,
        share * ratio,
        own_s,
        link_s,
        np.where(measured, use, TYPICAL_USE),
        measured,
        wanted,
    )
    return Placement(np.stack(np.broadcast_arrays(*parts), axis=1))


def residents_of(read: Reader) -> tuple[Floats, Floats]:
    """How many residents move much (0 where unknown), and how long they still do (s, NaN where unknown)."""
    return known(read("residents_network_heavy"), otherwise=0.0), np.asarray(read("residents_transfer_s"))


def sharing(own_s: Floats, link_s: Floats, heavy: Floats, left_s: Floats) -> Floats:
    """By how much of itself a transfer of `own_s` takes longer beside `heavy` others that last `left_s`.

    See the head of this file. NaN of `own_s` and `left_s` is unknown.
    """
    as_a_rule = MOVING * heavy
    with np.errstate(invalid="ignore"):
        others_s = np.where(np.isfinite(left_s), np.minimum(heavy * link_s, left_s), as_a_rule * link_s)
        longer = np.maximum((link_s + others_s) / np.maximum(own_s, LEAST_S) - 1.0, 0.0)
        while_they_last = np.where(left_s > 0, as_a_rule, 0.0)
    without_hints = np.where(np.isfinite(left_s), while_they_last, as_a_rule)
    return np.where(np.isfinite(own_s), longer, without_hints)


def _sharing_of_one(own_s: float, link_s: float, heavy: float, left_s: float) -> float:
    """`sharing` of one candidate."""
    if math.isnan(own_s):
        return 0.0 if left_s <= 0 else MOVING * heavy
    others_s = MOVING * heavy * link_s if math.isnan(left_s) else min(heavy * link_s, left_s)
    longer = (link_s + others_s) / (LEAST_S if own_s < LEAST_S else own_s) - 1.0
    return 0.0 if longer < 0.0 else longer


def known(*choices: Floats | float, otherwise: Floats | float) -> Floats:
    """Row by row the first choice that is known."""
    result = np.asarray(otherwise, dtype=np.float64)
    for choice in reversed(choices):
        result = np.where(np.isfinite(choice), choice, result)
    return result


def log_level(read: Reader) -> Floats:
    """The term level: log(base_s)."""
    mean, ewma = read("class_mean_log_s"), read("class_ewma_log_s")
    history = known((1 - RECENT) * mean + RECENT * ewma, mean, ewma, otherwise=np.nan)
    runs = np.where(np.isfinite(history), np.maximum(known(read("class_runs"), otherwise=1.0), 1.0), 0.0)
    without_history = known(
        read("job_expected_log_s"), read("user_mean_log_s"), _formula(read), otherwise=np.log(CPU_S)
    )
    return np.asarray(
        (runs * np.where(runs > 0, history, 0.0) + without_history) / (runs + 1.0), dtype=np.float64
    )


def _formula(read: Reader) -> Floats:
    transfer = known(read("transfer_median_s"), otherwise=0.0)
    rtt = known(read("rtt_all"), otherwise=0.0)
    return np.asarray(np.log(CPU_S + transfer + ROUNDS * rtt), dtype=np.float64)
