"""What is thought of the candidates of one pod: a ranking of them, or why there is none."""

from __future__ import annotations

import math

import msgspec
import numpy as np

from model.placement import Job
from model.schema import POSITION
from model.snapshot import Indices
from scheduler.core.ranking import NEAR_TIE
from scheduler.core.types import Corrections, Fallback, Ranking, ScoreTable

_LINK_S = POSITION["link_s"]


class Opinion(msgspec.Struct, frozen=True, eq=False):
    """A ranking of the candidates, in rows of `table`, corrected; `reason` is why it is no fresh prediction.

    `estimated`: the table is not that of `job`, or is itself only an estimate.
    """

    reason: Fallback
    job: Job
    estimated: bool
    table: ScoreTable
    ranking: Ranking
    corrections: Corrections

    @property
    def rows(self) -> Indices:
        """Of the listed nodes in the table, best first."""
        return self.ranking.order

    @property
    def first(self) -> str:
        """The node listed first."""
        return self.table.nodes[int(self.rows[0])]

    def near(self) -> list[str]:
        """The node listed first and its near ties; alone if it was drawn to explore."""
        if self.ranking.explored:
            return [self.first]
        return [node for node, score in self.listed() if score >= NEAR_TIE]

    def link_s(self) -> float:
        """How long the input of the pod takes up the link of the node listed first.

        NaN without hints, and for one that also shuffles: it moves data at times that nobody knows.
        """
        if self.job.shuffle_bytes > 0:
            return math.nan
        row = self.rows[0]
        if self.corrections.estimated is None:
            return float(self.table.features[row, _LINK_S])
        own = np.asarray(self.corrections.estimated["link_s"])
        return float(own[row] if own.ndim else own)

    def listed(self) -> list[tuple[str, int]]:
        """Nodes with their scores, best first."""
        nodes = self.table.nodes
        return [
            (nodes[row], score) for row, score in zip(self.rows.tolist(), self.ranking.scores, strict=True)
        ]


class Silence(msgspec.Struct, frozen=True):
    """No opinion, and why."""

    reason: Fallback

    def listed(self) -> list[tuple[str, int]]:
        """Nodes with their scores: none."""
        return []


class Advice(msgspec.Struct, frozen=True):
    """Nodes for one pod with their scores, best first, and why it is no fresh prediction, if so."""

    listed: list[tuple[str, int]]
    reason: Fallback
