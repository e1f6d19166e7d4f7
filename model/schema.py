"""The feature table: names, units, groups and physical signs, in the order of the feature matrix.

One table for serving and training. Any change of meaning, order or number of
features raises `SCHEMA_VERSION`; a model trained on another version is refused.
A feature that changes its meaning gets another name: for one version, servers
and callers of neighbouring versions match their columns by name (`columns`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from model.snapshot import Floats, Indices

SCHEMA_VERSION = 3

Group = Literal["job", "history", "node", "network", "neighbours", "age"]
GROUPS: tuple[str, ...] = get_args(Group)


@dataclass(frozen=True, slots=True)
class Feature:
    """One column of the feature matrix.

    `monotone` is physics: +1 when a larger value can't make the job faster,
    -1 when it can't make it slower, 0 when nothing is known. Unknown is NaN.
    """

    name: str
    unit: str
    group: Group
    monotone: int = 0


_JOB = (
    Feature("job_framework", "position in placement.FRAMEWORKS", "job"),
    Feature("job_gang_size", "pods", "job"),
    Feature("job_cpu", "cores requested", "job"),
    Feature("job_memory_bytes", "bytes requested", "job"),
    Feature("job_gpu", "GPUs requested", "job"),
    Feature("job_input_log_bytes", "log(1 + bytes)", "job"),
    Feature("job_shuffle_log_bytes", "log(1 + bytes)", "job"),
    Feature("job_expected_log_s", "log(s), as hinted", "job"),
    Feature("job_data_nodes", "nodes that hold its input", "job"),
    Feature("job_peer_nodes", "nodes on which its gang runs already", "job"),
)

_HISTORY = (
    Feature("class_runs", "ended runs of the class", "history"),
    Feature("class_mean_log_s", "log(s)", "history"),
    Feature("class_ewma_log_s", "log(s)", "history"),
    Feature("class_last_log_s", "log(s)", "history"),
    Feature("class_std_log_s", "log(s)", "history"),
    Feature("user_runs", "ended runs of the user", "history"),
    Feature("user_mean_log_s", "log(s)", "history"),
    Feature("user_ewma_log_s", "log(s)", "history"),
)

_NODE = (
    Feature("cpu_use", "ratio of all cores", "node", +1),
    Feature("cpu_use_mean_1m", "ratio of all cores", "node", +1),
    Feature("cpu_use_mean_5m", "ratio of all cores", "node", +1),
    Feature("cpu_use_slope_5m", "ratio per s", "node"),
    Feature("cpu_use_forecast", "ratio of all cores, 60 s ahead", "node", +1),
    Feature("load1_per_core", "runnable threads per core", "node", +1),
    Feature("load1_per_core_mean_5m", "runnable threads per core", "node", +1),
    Feature("cpu_cores", "cores", "node"),
    Feature("memory_available", "ratio", "node", -1),
    Feature("disk_read", "bytes/s", "node"),
    Feature("disk_write", "bytes/s", "node"),
    Feature("pressure_cpu", "ratio of time", "node", +1),
    Feature("pressure_cpu_mean_1m", "ratio of time", "node", +1),
    Feature("pressure_io", "ratio of time", "node", +1),
    Feature("pressure_memory", "ratio of time", "node", +1),
    Feature("gpu_use", "ratio", "node", +1),
    Feature("gpu_memory_use", "ratio", "node", +1),
    Feature("gpu_clock", "ratio of the highest clock", "node", -1),
    Feature("gpu_throttled", "ratio of time", "node", +1),
)

_NETWORK_OF_NODE = (
    Feature("network_receive", "bytes/s", "network"),
    Feature("network_transmit", "bytes/s", "network"),
    Feature("network_receive_mean_1m", "bytes/s", "network"),
    Feature("network_transmit_mean_1m", "bytes/s", "network"),
    Feature("network_speed", "bytes/s", "network", -1),
    Feature("network_drops", "packets/s", "network", +1),
    Feature("tcp_retransmit", "ratio of segments sent", "network", +1),
    Feature("tcp_retransmit_mean_5m", "ratio of segments sent", "network", +1),
    Feature("receive_use", "ratio of link speed", "network", +1),
    Feature("receive_use_mean_1m", "ratio of link speed", "network", +1),
    Feature("receive_use_forecast", "ratio of link speed, 60 s ahead", "network", +1),
    Feature("transmit_use", "ratio of link speed", "network", +1),
    Feature("transmit_use_mean_1m", "ratio of link speed", "network", +1),
    Feature("transmit_use_forecast", "ratio of link speed, 60 s ahead", "network", +1),
)

_NETWORK_OF_PAIRS = (
    Feature("rtt_data_min", "s", "network", +1),
    Feature("rtt_data_mean", "s", "network", +1),
    Feature("rtt_data_max", "s", "network", +1),
    Feature("rtt_data_mean_1m", "s", "network", +1),
    Feature("rtt_data_forecast", "s, 60 s ahead", "network", +1),
    Feature("loss_data_mean", "ratio", "network", +1),
    Feature("jitter_data_mean", "s", "network", +1),
    Feature("transfer_time_data_mean", "s a probe transfer", "network", +1),
    Feature("transfer_time_data_max", "s a probe transfer", "network", +1),
    Feature("throughput_data_min", "bytes/s", "network", -1),
    Feature("throughput_data_mean", "bytes/s", "network", -1),
    Feature("throughput_data_max", "bytes/s", "network", -1),
    Feature("throughput_data_mean_1m", "bytes/s", "network", -1),
    Feature("throughput_data_lone", "bytes/s that a lone transfer attains", "network", -1),
    Feature("throughput_data_forecast", "bytes/s, 60 s ahead", "network", -1),
    Feature("rtt_peers_min", "s", "network", +1),
    Feature("rtt_peers_mean", "s", "network", +1),
    Feature("rtt_peers_max", "s", "network", +1),
    Feature("loss_peers_max", "ratio", "network", +1),
    Feature("jitter_peers_mean", "s", "network", +1),
    Feature("transfer_time_peers_mean", "s a probe transfer", "network", +1),
    Feature("transfer_time_peers_max", "s a probe transfer", "network", +1),
    Feature("throughput_peers_min", "bytes/s", "network", -1),
    Feature("throughput_peers_mean", "bytes/s", "network", -1),
    Feature("rtt_driver", "s", "network", +1),
    Feature("loss_driver", "ratio", "network", +1),
    Feature("jitter_driver", "s", "network", +1),
    Feature("transfer_time_driver", "s a probe transfer", "network", +1),
    Feature("throughput_driver", "bytes/s", "network", -1),
    Feature("rtt_all", "s", "network", +1),
    Feature("loss_all", "ratio", "network", +1),
    Feature("jitter_all", "s", "network", +1),
    Feature("transfer_time_all", "s a probe transfer", "network", +1),
    Feature("throughput_all", "bytes/s", "network", -1),
    Feature("throughput_link", "bytes/s, from the node that reaches it best", "network", -1),
)

_NETWORK_DERIVED = (
    Feature("input_s", "s to fetch the hinted input", "network", +1),
    Feature("link_s", "s that the hinted transfers take up its link", "network", +1),
    Feature("shuffle_s", "s to exchange the hinted shuffle volume", "network", +1),
    Feature("transfer_ratio", "transfer time over that of the median candidate", "network", +1),
    Feature("transfer_median_s", "s of hinted transfers on the median candidate", "network"),
    Feature("data_local", "ratio of data nodes that are the candidate", "network", -1),
    Feature("same_zone_data", "ratio of data nodes in its zone", "network"),
    Feature("same_zone_peers", "ratio of peers in its zone", "network"),
    Feature("same_zone_driver", "0 or 1", "network"),
    Feature("same_nic_peers", "ratio of peers with its NIC class", "network"),
    Feature("estimated_data", "ratio of pairs not measured", "network"),
    Feature("estimated_peers", "ratio of pairs not measured", "network"),
    Feature("estimated_all", "ratio of pairs not measured", "network"),
)

_NEIGHBOURS = (
    Feature("residents", "unfinished pods on the node", "neighbours", +1),
    Feature("residents_network_heavy", "unfinished pods on the node", "neighbours", +1),
    Feature("residents_transfer_s", "s until their input is there", "neighbours", +1),
    Feature("residents_same_framework", "unfinished pods on the node", "neighbours"),
    Feature("requested_cpu_ratio", "ratio of allocatable, with this pod", "neighbours", +1),
    Feature("image_present", "0 or 1", "neighbours", -1),
)

_AGE = (
    Feature("age_cpu_s", "s", "age"),
    Feature("age_network_s", "s", "age"),
    Feature("age_pairs_data_s", "s, mean over data nodes", "age"),
    Feature("age_pairs_all_s", "s, mean over measured pairs", "age"),
)

FEATURES: tuple[Feature, ...] = (
    *_JOB,
    *_HISTORY,
    *_NODE,
    *_NETWORK_OF_NODE,
    *_NETWORK_OF_PAIRS,
    *_NETWORK_DERIVED,
    *_NEIGHBOURS,
    *_AGE,
)
"""Columns of the feature matrix, in order."""

NAMES: tuple[str, ...] = tuple(feature.name for feature in FEATURES)

POSITION: dict[str, int] = {name: position for position, name in enumerate(NAMES)}


def columns_of(groups: Collection[str]) -> Indices:
    """Positions of the columns of these groups.

    Raises ValueError for a group that does not exist.
    """
    unknown = sorted(set(groups) - set(GROUPS))
    if unknown:
        raise ValueError(f"no feature group named {', '.join(unknown)}: choose from {', '.join(GROUPS)}")
    return np.array([i for i, feature in enumerate(FEATURES) if feature.group in groups], dtype=np.intp)


def without(features: Floats, groups: Collection[str]) -> Floats:
    """A copy of the feature matrix in which every column of these groups is unknown (NaN)."""
    blanked = np.array(features, dtype=np.float64)
    blanked[:, columns_of(groups)] = np.nan
    return blanked
