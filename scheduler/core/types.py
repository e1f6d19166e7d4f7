"""Words of the placing path: pods as the scheduler sees them, predictions, score tables, fallbacks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import repeat
from typing import NamedTuple, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from model.placement import Job
from model.prior import Placement
from model.snapshot import Floats, Indices, TelemetrySnapshot

PREFIX = "fairlane.dev/"
"""Of every annotation and label of ours."""
SCHEDULER_NAME = "fairlane"
"""`spec.schedulerName` of the pods that our kube-scheduler places."""
NIC_CLASS_LABEL = PREFIX + "nic-class"
ZONE_LABEL = "topology.kubernetes.io/zone"

Mask = NDArray[np.bool_]
Scalar = TypeVar("Scalar", bound=np.generic)


class PodFacts(msgspec.Struct, frozen=True):
    """One pod, cut down to what placing needs.

    `gang` is `namespace/name` of its gang, empty without one; `job` carries
    neither peers nor histories: these depend on the moment (core.cluster).
    `turn` is the position in the queue that a gated pod was told last, 0 when none was.
    """

    uid: str
    namespace: str
    name: str
    job: Job
    node: str = ""
    scheduler: str = ""
    gang: str = ""
    is_driver: bool = False
    finished: bool = False
    gated: bool = False
    turn: int = 0

    @property
    def waits(self) -> bool:
        """Not bound yet and not ended."""
        return not self.node and not self.finished


class TableKey(NamedTuple):
    """What a prediction depends on besides telemetry; hints not given are -1.

    `peers` is sorted and keeps repeats; two gangs of one class whose members
    run on the same nodes share a table.
    """

    job_class: str
    user: str
    framework: str
    gang_size: int
    cpu: float
    memory_bytes: float
    gpu: float
    input_bytes: float
    shuffle_bytes: float
    expected_s: float
    image: str
    data_nodes: tuple[str, ...]
    driver_node: str
    peers: tuple[str, ...]

    def family(self) -> TableKey:
        """The key without what an estimate can correct: sizes hinted, and members of the gang placed."""
        return self._replace(input_bytes=-1.0, shuffle_bytes=-1.0, expected_s=-1.0, driver_node="", peers=())

    def placed_alike(self, other: TableKey) -> bool:
        """True when the same members of the gang are placed on the same nodes."""
        return (self.driver_node, self.peers) == (other.driver_node, other.peers)

    def size_distance(self, other: TableKey) -> float:
        """How far the hinted sizes are apart: the largest ratio's logarithm; infinite if one has no hint."""
        ours = (self.input_bytes, self.shuffle_bytes, self.expected_s)
        theirs = (other.input_bytes, other.shuffle_bytes, other.expected_s)
        return max(_log_ratio(a, b) for a, b in zip(ours, theirs, strict=True))


def _log_ratio(ours: float, theirs: float) -> float:
    if ours == theirs:
        return 0.0
    return abs(math.log(ours / theirs)) if ours > 0 and theirs > 0 else math.inf


def key_of(job: Job) -> TableKey:
    """The key under which predictions for `job` are kept."""
    return TableKey(
        job.job_class,
        job.user,
        job.framework,
        job.gang_size,
        job.cpu,
        job.memory_bytes,
        job.gpu,
        _given(job.input_bytes),
        _given(job.shuffle_bytes),
        _given(job.expected_s),
        job.image,
        tuple(sorted(job.data_nodes)),
        job.driver_node,
        tuple(sorted(job.peer_nodes)),
    )


def _given(hint: float) -> float:
    # NaN is not equal to itself and would make every key new
    return -1.0 if math.isnan(hint) else hint


class Fallback(StrEnum):
    """Why an answer is not simply a fresh prediction of the model; recorded and counted."""

    NONE = ""
    SIMILAR = "similar_size"
    """The prediction is of the same job with other sizes; the difference was added by the analytic prior."""
    PEERS = "peers_pending"
    """The prediction is older than the gang's newest binding; its part was added from the pair readings."""
    STALE_TABLE = "stale_table"
    """The predictor did not answer for this epoch; the last table was used."""
    MISS = "miss"
    """No table yet: the analytic prior, while the table is filled in the background."""
    NO_PREDICTOR = "no_predictor"
    """None is configured: the analytic prior."""
    PREDICTOR_DOWN = "predictor_unavailable"
    """It did not answer and no table is fresh enough: the analytic prior."""
    NO_TELEMETRY = "no_telemetry"
    """Nothing is known of any candidate: no opinion."""
    STALE_TELEMETRY = "stale_telemetry"
    """The newest snapshot is too old to be believed: no opinion."""
    NO_DIFFERENCE = "no_difference"
    """All candidates are predicted alike: no opinion."""
    NO_CANDIDATES = "no_candidates"
    """kube-scheduler offered no node that is known."""
    ERROR = "internal_error"
    """A fault of ours; logged, and answered with no opinion."""


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """Quantiles of the run time in s, one per node asked for, and the model that made them."""

    p10_s: Floats
    p50_s: Floats
    p90_s: Floats
    model_version: str


@dataclass(frozen=True, slots=True, eq=False)
class ScoreTable:
    """Predicted run time of one job on every node, within one telemetry epoch.

    Arrays have one entry per node of `nodes`, times as logarithms of seconds.
    `in_snapshot` are the nodes' positions in the snapshot. `placement` is what
    the analytic prior says of the nodes, `log_placement` that with the residents
    the table knew, who requested `requested` of the cores. `sigma` is the standard
    deviation of each time, `ranked` the median used for ranking: that of an unmeasured
    node is raised to the middle of the measured ones. `view_version` says which
    bindings it knew.
    """

    table_id: str
    key: TableKey
    job: Job
    snapshot: TelemetrySnapshot
    nodes: tuple[str, ...]
    index: Mapping[str, int]
    in_snapshot: Indices
    features: Floats
    placement: Placement
    log_placement: Floats
    requested: Floats
    p10: Floats
    p50: Floats
    p90: Floats
    sigma: Floats
    ranked: Floats
    measured: Mask
    tie_seed: NDArray[np.uint64]
    model_version: str
    reason: Fallback
    made_at_s: float
    view_version: int

    @property
    def from_model(self) -> bool:
        """Made by the predictor, not by the analytic prior."""
        return self.model_version != ""


Columns = Mapping[str, Floats | float]
"""Values of features by name: one per node, or one for all nodes."""


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """A job judged by what is in memory: its columns, the prior's log time, the seconds of its transfers.

    `log_s` and `transfer_s` have one entry per node; `transfer_s` is NaN
    without hints.
    """

    columns: Columns
    log_s: Floats
    transfer_s: Floats


@dataclass(slots=True, eq=False)
class Corrections:
    """What changed on the nodes since a table was made; grows with the bindings seen.

    `shift` is added to the logarithms of the table's times; `own` is the
    estimate of the table's own job, once it was needed, and `estimated` the
    columns of another job that an answer was estimated from (core.estimate).
    """

    shift: Floats
    view_version: int
    own: Estimate | None = None
    estimated: Columns | None = None

    @classmethod
    def none(cls, table: ScoreTable) -> Corrections:
        """Nothing changed yet."""
        return cls(np.zeros(len(table.nodes)), table.view_version)


class Ranking(msgspec.Struct, frozen=True, eq=False):
    """The answer to one call of kube-scheduler, before it is put on the wire.

    `order` are positions (in whatever the caller counts: rows of a table, at last) of the listed nodes,
    best first, `scores` their integers 0..10; `explored` says that the first is
    not the predicted best. `propensity` is the probability with which each node
    of `explorable` would have been put first.
    """

    order: Indices
    scores: tuple[int, ...]
    explored: bool
    explorable: Indices
    propensity: Floats
    tie_width: float

    def in_rows(self, rows: Indices) -> Ranking:
        """The same, where its positions count in `rows` of a table."""
        return msgspec.structs.replace(self, order=rows[self.order], explorable=rows[self.explorable])


class Candidates(msgspec.Struct, frozen=True, eq=False):
    """Rows of a table that kube-scheduler offers, each once and ascending; perhaps `everyone`."""

    rows: Indices
    everyone: bool

    def of(self, values: NDArray[Scalar]) -> NDArray[Scalar]:
        """Their part of one value per node."""
        return values if self.everyone else values[self.rows]

    def without(self, rows: Sequence[int]) -> Candidates:
        """The others."""
        return Candidates(self.rows[~np.isin(self.rows, rows)], everyone=False)


class Offered:
    """Who is offered, in rows of a table; looked up once for the same names in tables of the same nodes."""

    def __init__(self) -> None:
        self._nodes: tuple[str, ...] = ()
        self._names: tuple[str, ...] = ()
        self._found, self._others = _NOBODY, _NOBODY

    def of(self, table: ScoreTable, names: tuple[str, ...]) -> Candidates:
        """Those of `names` that the table knows."""
        if table.nodes is not self._nodes or names is not self._names:
            rows = positions_of(table.index, names)
            rows = np.unique(rows[rows >= 0])
            everyone = np.arange(len(table.nodes))
            self._nodes, self._names = table.nodes, names
            self._found = Candidates(rows, everyone=len(rows) == len(table.nodes))
            self._others = Candidates(np.setdiff1d(everyone, rows, assume_unique=True), everyone=False)
        return self._found

    def leave_out(self, rows: Sequence[int]) -> Candidates:
        """The others of those offered last: these proved to be gone."""
        self._names = ()  # not theirs any more
        self._found = self._found.without(rows)
        self._others = Candidates(np.append(self._others.rows, rows), everyone=False)
        return self._found

    def last(self, table: ScoreTable) -> tuple[Candidates, Candidates] | None:
        """Who was offered last, and who was not; None if that was in a table of other nodes."""
        return (self._found, self._others) if table.nodes is self._nodes else None


_NOBODY = Candidates(np.zeros(0, dtype=np.intp), everyone=False)


def positions_of(index: Mapping[str, int], names: Sequence[str]) -> Indices:
    """Positions of `names` in a table; -1 for a name it does not know."""
    return np.fromiter(map(index.get, names, repeat(-1)), dtype=np.intp, count=len(names))
