"""From a job, its candidate nodes and one telemetry snapshot to the feature matrix.

The same code builds the rows that are served and the rows that are trained
on. Unknown is NaN, never idle. What depends on the epoch alone (readings of
nodes, means over all pairs) is computed once per snapshot; a call gathers
those by position and adds what depends on where this job's data, peers and
driver are.

Directions: input flows from the data nodes to the candidate, so that
direction counts; with peers and the driver data flows both ways, so the worse
direction counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import repeat
from operator import attrgetter, is_

import numpy as np
from numpy.typing import NDArray

from model.epoch import EpochView, view_of
from model.pairs import Ends, Mask, PairField, greatest, least, mean
from model.placement import FRAMEWORKS, NOWHERE, ClusterView, Job
from model.schema import FEATURES, NAMES, SCHEMA_VERSION, Feature
from model.snapshot import Floats, TelemetrySnapshot
from model.transfer import attained_throughput, transfer_columns

__all__ = [
    "FEATURES",
    "NAMES",
    "NEIGHBOURS",
    "SCHEMA_VERSION",
    "Feature",
    "build",
    "job_columns",
    "neighbour_rows",
]

Columns = dict[str, Floats | float]


def build(
    job: Job,
    candidates: Sequence[str],
    snapshot: TelemetrySnapshot,
    cluster: ClusterView,
    now_s: float | None = None,
) -> Floats:
    """Feature matrix of shape (len(candidates), len(FEATURES)); unknown is NaN.

    Columns are those of `FEATURES` in order, rows those of `candidates`. A
    candidate that neither the snapshot nor the cluster knows has NaN in every
    column of its own. `now_s` is the unix time for which it asks, that of the
    snapshot when not given.
    """
    now_s = snapshot.taken_at_s if now_s is None else now_s
    view, facts = view_of(snapshot, cluster), _Facts(candidates, cluster)
    ends = view.candidate_ends(candidates, cluster)
    columns: Columns = job_columns(job) | dict(zip(NEIGHBOURS, facts.rows(job, now_s).T, strict=True))
    columns |= view.node_columns(ends.position)
    columns |= _network_columns(job, view, ends, facts)
    matrix = np.empty((len(NAMES), len(candidates)))
    for row, name in enumerate(NAMES):
        matrix[row] = columns[name]
    return matrix.T


def _log_bytes(volume: float) -> float:
    return math.log1p(volume) if volume >= 0 else math.nan


def job_columns(job: Job) -> Columns:
    """The columns of groups job and history, by feature name: the same for every candidate."""
    framework = job.framework if job.framework in FRAMEWORKS else FRAMEWORKS[0]
    by_class, by_user = job.class_history, job.user_history
    return {
        "job_framework": float(FRAMEWORKS.index(framework)),
        "job_gang_size": float(job.gang_size),
        "job_cpu": job.cpu,
        "job_memory_bytes": job.memory_bytes,
        "job_gpu": job.gpu,
        "job_input_log_bytes": _log_bytes(job.input_bytes),
        "job_shuffle_log_bytes": _log_bytes(job.shuffle_bytes),
        "job_expected_log_s": math.log(job.expected_s) if job.expected_s > 0 else math.nan,
        "job_data_nodes": float(len(job.data_nodes)),
        "job_peer_nodes": float(len(job.peer_nodes)),
        "class_runs": float(by_class.count),
        "class_mean_log_s": by_class.mean_log_s,
        "class_ewma_log_s": by_class.ewma_log_s,
        "class_last_log_s": by_class.last_log_s,
        "class_std_log_s": by_class.std_log_s,
        "user_runs": float(by_user.count),
        "user_mean_log_s": by_user.mean_log_s,
        "user_ewma_log_s": by_user.ewma_log_s,
    }


NEIGHBOURS = (
    "residents",
    "residents_network_heavy",
    "residents_transfer_s",
    "residents_same_framework",
    "requested_cpu_ratio",
    "image_present",
)
"""The features of group neighbours: those that change with every binding."""


def neighbour_rows(job: Job, candidates: Sequence[str], cluster: ClusterView, now_s: float) -> Floats:
    """The values of `NEIGHBOURS` at `now_s`, shape (len(candidates), len(NEIGHBOURS))."""
    return _Facts(candidates, cluster).rows(job, now_s)


class _Facts:
    """What the cluster knows of the candidates; arrays have shape (len(candidates),).

    There are thousands, and this is read for each table: without a Python statement for each of them
    where that can be had.
    """

    def __init__(self, candidates: Sequence[str], cluster: ClusterView) -> None:
        self.names = candidates
        self.cluster = cluster
        self._facts = list(map(cluster.get, candidates, repeat(NOWHERE)))

    def rows(self, job: Job, now_s: float) -> Floats:
        """As `neighbour_rows`."""
        heavy = self._column("network_heavy")
        columns = (
            self._column("residents"),
            heavy,
            np.where(heavy > 0, np.maximum(self.receiving_until_s - now_s, 0.0), 0.0),
            self._of_framework(job.framework),
            self._requested_share(job),
            self._image_present(job),
        )
        matrix = np.empty((len(NEIGHBOURS), len(self._facts)))
        for row, values in enumerate(columns):
            matrix[row] = values
        matrix[:, np.fromiter(map(is_, self._facts, repeat(NOWHERE)), bool, len(self._facts))] = np.nan
        return matrix.T

    @cached_property
    def receiving_until_s(self) -> Floats:
        """When the inputs of its residents are there."""
        return self._column("receiving_until_s")

    def nic_classes(self) -> NDArray[np.object_]:
        """Names of its class of network card; empty where it has none."""
        return np.array([fact.nic_class for fact in self._facts], dtype=object)

    def _column(self, name: str) -> Floats:
        return np.fromiter(map(attrgetter(name), self._facts), np.float64, len(self._facts))

    def _of_framework(self, framework: str) -> Sequence[int]:
        return [
            fact.residents_by_framework.get(framework, 0) if fact.residents else 0 for fact in self._facts
        ]

    def _requested_share(self, job: Job) -> Floats:
        """What is requested of the cores once the job is there; NaN where there are none."""
        requested, cores = self._column("requested_cpu") + job.cpu, self._column("allocatable_cpu")
        share: Floats = np.full(len(self._facts), np.nan)
        np.divide(requested, cores, out=share, where=cores > 0)
        return share

    def _image_present(self, job: Job) -> Sequence[float] | float:
        """1 where the job's image is, 0 where it isn't, NaN where nobody knows."""
        if not job.image:
            return math.nan
        return [job.image in fact.images if fact.images else math.nan for fact in self._facts]


def _network_columns(job: Job, view: EpochView, ends: Ends, facts: _Facts) -> Columns:
    data = _Partners(job.data_nodes, view, ends, facts, one_way=True)
    peers = _Partners(job.peer_nodes, view, ends, facts)
    driver = _Partners((job.driver_node,) if job.driver_node else (), view, ends, facts)
    columns: Columns = {**_data_columns(data), **_peer_columns(peers), **_driver_columns(driver)}
    everywhere = view.all_columns(ends.position)
    columns |= everywhere
    columns |= transfer_columns(
        job,
        from_data=attained_throughput(data.lone_throughput, data.of("rtt"), data.of("loss")),
        to_peers=attained_throughput(peers.lone_throughput, peers.of("rtt"), peers.of("loss")),
        to_all=attained_throughput(
            everywhere["throughput_all"], everywhere["rtt_all"], everywhere["loss_all"]
        ),
        link=everywhere["throughput_link"],
        local=data.local,
    )
    columns["same_nic_peers"] = _same_nic(job.peer_nodes, facts)
    return columns


class _Partners:
    """The nodes that a candidate exchanges data with, seen from all candidates at once.

    Matrices have shape (len(partners), len(candidates)). A candidate that is
    itself the partner is local: no round trip, no loss, no transfer time, and
    a throughput that is unknown because no link is used.
    """

    def __init__(
        self,
        partners: Sequence[str],
        view: EpochView,
        ends: Ends,
        facts: _Facts,
        *,
        one_way: bool = False,
    ) -> None:
        self._view, self._ends, self._one_way, self._facts = view, ends, one_way, facts
        self._partners = view.ends(partners, facts.cluster)
        local = [[name == partner for name in facts.names] for partner in partners]
        self.local = np.array(local, dtype=bool).reshape(len(partners), len(facts.names))
        self._known: dict[str, Floats] = {}
        self._measured: list[Floats] = []

    def of(self, reading: str) -> Floats:
        """Values of a pair reading; NaN where neither measured nor estimable."""
        if reading not in self._known:
            self._known[reading] = self._look_up(reading)
        return self._known[reading]

    @cached_property
    def lone_throughput(self) -> Floats:
        """What a lone transfer attains, of what there is.

        It is the newest measurement, or the best of the newest few where that
        one may have met transfers of residents.
        """
        newest = self.of("throughput")
        best = np.fmax(newest, self.of("throughput_best"))  # its window may end before the newest came
        return np.where(self._met() | np.isnan(newest), best, newest)

    def _met(self) -> Mask:
        """False where the candidate's residents had all they receive before the newest measurement."""
        field = self._view.field("throughput")
        if not self._one_way or field is None or not len(self.local):
            return np.ones(self.local.shape, dtype=bool)
        arrived = self._facts.receiving_until_s <= self._view.taken_at_s - self._ages_in(field)
        return ~np.asarray(arrived, dtype=bool)

    def estimated(self) -> Floats:
        """Ratio of pairs that were not measured, over the readings that exist; shape (candidates,)."""
        self.of("rtt"), self.of("throughput")
        return (
            1.0 - mean(np.stack(self._measured)) if self._measured else np.full(self.local.shape[1], np.nan)
        )

    def same_zone(self) -> Floats:
        """Ratio of partners in the candidate's zone; NaN without partners or zones."""
        ours, theirs = self._ends.zone, self._partners.zone
        named = self._view.zone_is_named
        same = np.where(named[theirs][:, None] & named[ours][None, :], theirs[:, None] == ours, np.nan)
        return mean(same)

    def ages(self) -> Floats:
        """Mean age in s of the measured pairs; shape (candidates,)."""
        field = self._view.field("rtt") or self._view.field("throughput")
        if field is None or not len(self.local):
            return np.full(self.local.shape[1], np.nan)
        return mean(self._ages_in(field))

    def _ages_in(self, field: PairField) -> Floats:
        rows = range(len(self.local))
        return np.stack([field.age_outward(self._partners.one(row), self._ends) for row in rows])

    def _look_up(self, reading: str) -> Floats:
        field = self._view.field(reading)
        values = np.full(self.local.shape, np.nan)
        if field is not None:
            for row in range(len(values)):
                values[row] = self._row(field, reading, row)
        values[self.local] = np.nan if reading.startswith("throughput") else 0.0
        return values

    def _row(self, field: PairField, reading: str, row: int) -> Floats:
        partner = self._partners.one(row)
        values, measured = field.outward(partner, self._ends)
        if not self._one_way:
            back, measured_back = field.inward(partner, self._ends)
            worse: Callable[[Floats, Floats], Floats] = (
                np.fmin if reading.startswith("throughput") else np.fmax
            )
            values, measured = worse(values, back), measured | measured_back
        if reading in ("rtt", "throughput"):
            known = np.isfinite(values)
            self._measured.append(
                np.where(known | measured, (measured | self.local[row]).astype(float), np.nan)
            )
        return values


def _data_columns(data: _Partners) -> dict[str, Floats]:
    return {
        "rtt_data_min": least(data.of("rtt")),
        "rtt_data_mean": mean(data.of("rtt")),
        "rtt_data_max": greatest(data.of("rtt")),
        "rtt_data_mean_1m": mean(data.of("rtt_mean_1m")),
        "rtt_data_forecast": mean(data.of("rtt_forecast")),
        "loss_data_mean": mean(data.of("loss")),
        "jitter_data_mean": mean(data.of("rtt_jitter")),
        "transfer_time_data_mean": mean(data.of("transfer_time")),
        "transfer_time_data_max": greatest(data.of("transfer_time")),
        "throughput_data_min": least(data.of("throughput")),
        "throughput_data_mean": mean(data.of("throughput")),
        "throughput_data_max": greatest(data.of("throughput")),
        "throughput_data_mean_1m": mean(data.of("throughput_mean_1m")),
        "throughput_data_lone": mean(data.lone_throughput),
        "throughput_data_forecast": mean(data.of("throughput_forecast")),
        "data_local": mean(data.local.astype(np.float64)),
        "same_zone_data": data.same_zone(),
        "estimated_data": data.estimated(),
        "age_pairs_data_s": data.ages(),
    }


def _peer_columns(peers: _Partners) -> dict[str, Floats]:
    return {
        "rtt_peers_min": least(peers.of("rtt")),
        "rtt_peers_mean": mean(peers.of("rtt")),
        "rtt_peers_max": greatest(peers.of("rtt")),
        "loss_peers_max": greatest(peers.of("loss")),
        "jitter_peers_mean": mean(peers.of("rtt_jitter")),
        "transfer_time_peers_mean": mean(peers.of("transfer_time")),
        "transfer_time_peers_max": greatest(peers.of("transfer_time")),
        "throughput_peers_min": least(peers.of("throughput")),
        "throughput_peers_mean": mean(peers.of("throughput")),
        "same_zone_peers": peers.same_zone(),
        "estimated_peers": peers.estimated(),
    }


def _driver_columns(driver: _Partners) -> dict[str, Floats]:
    return {
        "rtt_driver": mean(driver.of("rtt")),
        "loss_driver": mean(driver.of("loss")),
        "jitter_driver": mean(driver.of("rtt_jitter")),
        "transfer_time_driver": mean(driver.of("transfer_time")),
        "throughput_driver": mean(driver.of("throughput")),
        "same_zone_driver": driver.same_zone(),
    }


def _same_nic(peers: Sequence[str], facts: _Facts) -> Floats:
    """Ratio of peers whose NIC class is the candidate's; NaN where either class is not known."""
    if not peers:
        return np.full(len(facts.names), np.nan)
    classes, theirs = facts.nic_classes(), _Facts(peers, facts.cluster).nic_classes()[:, None]
    known = (classes != "") & (theirs != "")
    return mean(np.where(known, theirs == classes, np.nan).reshape(len(peers), len(facts.names)))
