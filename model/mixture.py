"""A run time as a non-negative mixture of seconds: how much of each part a job's time holds.

    run_s = sum over parts of weight_k * slowness_k(node) * seconds_k,   weight_k >= 0

with weights of all rows, and of each job class that has enough rows. The
slowness of a node multiplies the parts that its processor does, and is 1 for
the others: machines of one cluster differ, and no reading says by how much.
Unlike trees it can go beyond what it saw, and unlike the analytic prior it is
measured on this cluster. `model.fitting.mixture` says how it is fitted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from model.snapshot import Floats, Indices

LEAST_S = 0.01


@dataclass(frozen=True, eq=False)
class Parts:
    """Rows in seconds: shape (rows, parts), NaN where unknown, with codes of job class and node, (rows,)."""

    seconds: Floats
    classes: Floats
    nodes: Floats

    def rows(self, chosen: Indices) -> Parts:
        """Only these rows."""
        return Parts(self.seconds[chosen], self.classes[chosen], self.nodes[chosen])


@dataclass(frozen=True, eq=False)
class Mixture:
    """`weights` of all classes together, `own` ones by class code, `typical` seconds for an unknown part.

    Weights and seconds have shape (parts,). A class without own weights, or
    unknown (NaN), takes those of all. `slowness` of a node, by its code,
    multiplies the parts at the positions `computed`; of others it is 1.
    """

    weights: Floats
    typical: Floats
    own: Mapping[int, Floats] = field(default_factory=dict)
    slowness: Mapping[int, float] = field(default_factory=dict)
    computed: tuple[int, ...] = ()

    def log_s(self, parts: Parts) -> Floats:
        """Log of the mixed time, shape (rows,)."""
        mixed = self.mixed(parts).sum(axis=1)
        return np.asarray(np.log(np.maximum(mixed, LEAST_S)), dtype=np.float64)

    def mixed(self, parts: Parts) -> Floats:
        """The seconds that each part takes of the run, shape (rows, parts)."""
        return np.asarray(self.on_nodes(parts) * self._weights_of(parts.classes), dtype=np.float64)

    def on_nodes(self, parts: Parts) -> Floats:
        """The seconds of the parts on the nodes as they are, typical ones where unknown, (rows, parts)."""
        seconds = np.where(np.isfinite(parts.seconds), parts.seconds, self.typical)
        slowness = np.array([self.slowness.get(code, 1.0) for code in np.nan_to_num(parts.nodes, nan=-1.0)])
        seconds[:, self.computed] *= slowness[:, None]
        return np.asarray(seconds, dtype=np.float64)

    def contributions(self, parts: Parts) -> tuple[Floats, Floats]:
        """What each part adds to the log of the typical time, (rows, parts), and that log, (rows,).

        Additive and complete by the logarithmic mean (Ang 2004, LMDI):
        (x - typical) / L with L = (T - T0) / log(T / T0).
        """
        own, typical = self.mixed(parts), self.typical * self._weights_of(parts.classes)
        total, usual = (np.maximum(each.sum(axis=1), LEAST_S) for each in (own, typical))
        ratio = np.log(total / usual)
        mean = np.where(np.abs(ratio) < 1e-9, usual, (total - usual) / np.where(ratio == 0, 1.0, ratio))
        return np.asarray((own - typical) / mean[:, None], dtype=np.float64), np.log(usual)

    def _weights_of(self, classes: Floats) -> Floats:
        """Shape (rows, parts)."""
        weights = np.tile(self.weights, (len(classes), 1))
        for code in set(classes[np.isfinite(classes)].astype(int).tolist()) & set(self.own):
            weights[classes == code] = self.own[code]
        return weights

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "weights": self.weights.tolist(),
            "typical": self.typical.tolist(),
            "own": {str(code): weights.tolist() for code, weights in self.own.items()},
            "slowness": {str(code): slowness for code, slowness in self.slowness.items()},
            "computed": list(self.computed),
        }

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Mixture:
        """The inverse of `to_json`."""
        return Mixture(
            np.array(values["weights"], dtype=float),
            np.array(values["typical"], dtype=float),
            {int(code): np.array(weights, dtype=float) for code, weights in values["own"].items()},
            {int(code): float(slowness) for code, slowness in values["slowness"].items()},
            tuple(values["computed"]),
        )
