"""How long a job's transfers would take on each candidate: the network part of the analytic prior.

Seconds on a candidate, from the throughput attained on its paths:

    input_s   = mean over data nodes whose path is known of input_bytes / throughput(data node -> candidate)
    shuffle_s = shuffle_bytes / least throughput to the peers (to all nodes when none is placed)
    transfer_ratio = (input_s + shuffle_s) / median of the same over the candidates
    link_s    = bytes that come over the network / greatest throughput into the candidate, at most
                input_s + shuffle_s: how long they take up its link, whatever path is slower

Data that lies on the candidate itself takes 0 s. A job without hints gets a
nominal volume for the ratio only: its seconds stay unknown, but which
candidate has the better path is known all the same.
"""

from __future__ import annotations

import math

import numpy as np

from model.pairs import Mask, least, mean
from model.placement import Job
from model.snapshot import Floats

WINDOW_BYTES = 256 * 1024
"""TCP window assumed where only the round-trip time was measured: throughput <= window / RTT."""
SEGMENT_BYTES = 1448
MATHIS_CONSTANT = math.sqrt(1.5)
"""Mathis, Semke, Mahdavi, Ott 1997: throughput <= (segment / RTT) * sqrt(3/2) / sqrt(loss)."""
FASTEST = 1.25e9
"""Bytes/s assumed at most where throughput was not measured (10 Gbit/s)."""
NOMINAL_BYTES = 256e6
LEAST_THROUGHPUT = 1.0


def attained_throughput(throughput: Floats, rtt: Floats, loss: Floats) -> Floats:
    """Bytes/s: as measured or estimated, else what TCP attains at this RTT (s) and loss (ratio)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        window = WINDOW_BYTES / rtt
        lossy = SEGMENT_BYTES * MATHIS_CONSTANT / (rtt * np.sqrt(np.where(np.isfinite(loss), loss, 0.0)))
        attainable = np.minimum(np.minimum(window, np.where(np.isnan(lossy), np.inf, lossy)), FASTEST)
    attainable = np.where(np.isfinite(rtt), attainable, np.nan)
    return np.maximum(np.where(np.isfinite(throughput), throughput, attainable), LEAST_THROUGHPUT)


def transfer_columns(
    job: Job, from_data: Floats, to_peers: Floats, to_all: Floats, link: Floats, local: Mask
) -> dict[str, Floats | float]:
    """The columns input_s, shuffle_s, link_s, transfer_ratio and transfer_median_s.

    `from_data` and `to_peers` are throughputs in bytes/s of shape (partners,
    candidates), `to_all` and `link` of shape (candidates,); `local` marks the
    pairs in `from_data` that are one and the same node.
    """
    per_input_byte = _seconds_per_input_byte(from_data, to_all, local)
    per_shuffle_byte = 1.0 / (least(to_peers) if len(to_peers) else to_all)
    input_s, shuffle_s = job.input_bytes * per_input_byte, job.shuffle_bytes * per_shuffle_byte
    hints = [seconds for seconds in (input_s, shuffle_s) if np.isfinite(seconds).any()]
    if hints:
        total = np.sum(hints, axis=0)
        median_s = _median(total)
    else:
        total = NOMINAL_BYTES * (per_input_byte if len(from_data) else per_shuffle_byte)
        median_s = math.nan
    return {
        "input_s": input_s,
        "shuffle_s": shuffle_s,
        "link_s": _link_s(job, total, link, local) if hints else math.nan,
        "transfer_ratio": _ratio(total),
        "transfer_median_s": median_s,
    }


def _link_s(job: Job, total_s: Floats, link: Floats, local: Mask) -> Floats:
    remote = 1.0 - local.mean(axis=0) if len(local) else np.ones(len(link))
    hinted = (job.input_bytes * remote, job.shuffle_bytes * np.ones(len(link)))
    volume = np.sum([np.nan_to_num(each) for each in hinted], axis=0)
    return np.asarray(np.minimum(volume / np.maximum(link, LEAST_THROUGHPUT), total_s), dtype=np.float64)


def _seconds_per_input_byte(from_data: Floats, to_all: Floats, local: Mask) -> Floats:
    if not len(from_data):
        return 1.0 / to_all
    return mean(np.where(local, 0.0, 1.0 / from_data))


def _median(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else math.nan


def _ratio(total: Floats) -> Floats:
    median = _median(total)
    if not median > 0:  # the median candidate holds the data itself: no transfer to compare with
        median = _median(total[total > 0])
    return np.asarray(total / median, dtype=np.float64)
