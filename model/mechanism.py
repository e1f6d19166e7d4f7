"""What a run is made of: seconds that its parts would take on a candidate, from a feature row alone.

    fixed         1 s
    waiting       1 s x stretch
    compute       the job's usual time beyond its transfers
    computing     the same x stretch
    computing_1m  the same x stretch over the last minute
    crowding      1 s x CPU use
    crowded       the job's usual time beyond its transfers x CPU use
    transfer      hinted bytes / throughput of a lone transfer (model.transfer)
    transfer_now  hinted bytes / throughput measured last, near `transfer`
    transfer_1m   hinted bytes / throughput of the last minute, near `transfer`
    sharing       what the transfers of residents add to `transfer` (model.prior)
    answers       round-trip time
    chatter       round-trip time x the job's usual time beyond its transfers

`stretch` is 1 / (1 - CPU use of the candidate), how much longer computing takes
on a shared processor (processor sharing, Kleinrock 1976). Where there are more
cores than work, only caches, memory and clock rate are shared, and computing
takes longer in proportion to the use: the crowded parts. A use that is not
known counts as the prior's typical one: unknown is not idle.

The mean of a minute evens out noise, and after a path has changed it is wrong
for a minute; the newest measurement may have met transfers that are over when
the job begins. So both count only as far as a factor `AWAY_AT_MOST` from
`transfer`: a bounded influence (Huber 1964) that, unlike a test for changes,
never jumps and keeps the sign of every feature.

A job's time is some of each (`model.mixture` learns how much). The parts have
the signs of the feature table, so a mixture has them too. A path that was not
measured counts as that of the median candidate where sizes are hinted; other
unknowns stay NaN.
"""

from __future__ import annotations

import numpy as np

from model.prior import TYPICAL_USE, Reader, known, log_level, reader_of, sharing
from model.snapshot import Floats

SECONDS: tuple[tuple[str, str], ...] = (
    ("seconds_fixed", "job_framework"),
    ("seconds_waiting", "cpu_use"),
    ("seconds_compute", "class_mean_log_s"),
    ("seconds_computing", "cpu_use"),
    ("seconds_computing_1m", "cpu_use_mean_1m"),
    ("seconds_crowding", "cpu_use"),
    ("seconds_crowded", "cpu_use"),
    ("seconds_transfer", "throughput_data_lone"),
    ("seconds_transfer_now", "throughput_data_mean"),
    ("seconds_transfer_1m", "throughput_data_mean_1m"),
    ("seconds_sharing", "residents_transfer_s"),
    ("seconds_answers", "rtt_data_mean"),
    ("seconds_chatter", "rtt_data_mean"),
)
"""Names of the parts, and the feature that an explanation names for each."""
EXPECTED: tuple[float, ...] = (0.0, 0.0, 0.0, 0.35, 0.35, 0.0, 0.0, 0.5, 0.25, 0.25, 1.0, 0.0, 0.0)
"""Weights of the parts before anything is learnt: transfers as hinted, the link shared with the others on the
node, and the usual rest stretched as on a processor at rest against one of typical use."""

COMPUTING: tuple[str, ...] = (
    "seconds_fixed",
    "seconds_waiting",
    "seconds_compute",
    "seconds_computing",
    "seconds_computing_1m",
    "seconds_crowding",
    "seconds_crowded",
)
"""The parts that the candidate's own processor does; to start a program is computing, too."""

LEAST_SHARE = 0.05
"""At least this share of the usual time is taken to be no transfer."""
USE_AT_MOST = 0.95
"""A fuller processor than this still serves: shares are weighted, not first come."""
AWAY_AT_MOST = 1.3
"""By this factor at most the newest measurement and the last minute move the time of a lone transfer."""


def seconds_of(features: Floats) -> Floats:
    """The parts of each row, shape (rows, len(SECONDS)), >= 0, NaN where unknown.

    Raises ValueError when the number of columns is not that of the feature table.
    """
    read = reader_of(features)
    usual = np.exp(log_level(read))
    median = known(read("transfer_median_s"), otherwise=0.0)
    compute = np.maximum(usual - median, LEAST_SHARE * usual)
    transfer = _transfer(read, median)
    rtt = known(*(read(f"rtt_{to}") for to in ("data_mean", "peers_mean", "driver", "all")), otherwise=np.nan)
    now, minute = read("cpu_use"), read("cpu_use_mean_1m")
    use = known(now, minute, otherwise=TYPICAL_USE)
    stretch = _stretch(use)
    stretch_1m = _stretch(known(minute, now, otherwise=TYPICAL_USE))
    parts = (
        np.ones(len(features)),
        stretch,
        compute,
        compute * stretch,
        compute * stretch_1m,
        use,
        compute * use,
        transfer,
        _near(_transfer_at(read, "throughput_data_mean", transfer), transfer),
        _near(_transfer_at(read, "throughput_data_mean_1m", transfer), transfer),
        transfer * _sharing(read, transfer),
        rtt,
        compute * rtt,
    )
    return np.stack(np.broadcast_arrays(*parts), axis=1).astype(np.float64)


def _sharing(read: Reader, transfer: Floats) -> Floats:
    heavy, left_s = (np.asarray(read(f"residents_{what}")) for what in ("network_heavy", "transfer_s"))
    return sharing(transfer, known(read("link_s"), otherwise=transfer), heavy, left_s)


def _near(seconds: Floats, about: Floats) -> Floats:
    """`seconds`, but no further than a factor `AWAY_AT_MOST` from `about`."""
    return np.clip(seconds, about / AWAY_AT_MOST, about * AWAY_AT_MOST)


def _stretch(use: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 - np.minimum(use, USE_AT_MOST)), dtype=np.float64)


def _transfer(read: Reader, median: Floats) -> Floats:
    """Seconds of the hinted transfers on the candidate; 0 without hints."""
    input_s, shuffle_s = read("input_s"), read("shuffle_s")
    total = known(input_s, otherwise=0.0) + known(shuffle_s, otherwise=0.0)
    return np.where(np.isfinite(input_s) | np.isfinite(shuffle_s), total, median)


def _transfer_at(read: Reader, throughput: str, transfer: Floats) -> Floats:
    """The same with another throughput of the paths from the data."""
    remote = 1.0 - known(read("data_local"), otherwise=0.0)
    input_s = np.expm1(read("job_input_log_bytes")) * remote / read(throughput)
    return known(input_s + known(read("shuffle_s"), otherwise=0.0), otherwise=transfer)
