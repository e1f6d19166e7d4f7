"""A fitted model as files and back: plain text and JSON, nothing that runs when it is read."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

import numpy as np

from model.central import Central, Recipe
from model.design import Design
from model.fitted import Fitted
from model.intervals import Intervals
from model.linear import LogLinear
from model.mixture import Mixture
from model.schema import FEATURES, NAMES, SCHEMA_VERSION
from model.snapshot import Floats
from model.trees import Trees

FORMAT = 6
INFO, STATE, CENTRAL, SIZE = "info.json", "state.json", "central.txt", "size.txt"


class BrokenModelError(ValueError):
    """The files are not a model that this program can use; the message says why."""


@dataclass(frozen=True)
class ModelInfo:
    """What a model is: version (given when published), schema, training window in unix s, figures."""

    trained_at_s: float
    examples: int
    oldest_example_s: float
    newest_example_s: float
    version: str = ""
    schema_version: int = SCHEMA_VERSION
    dropped: tuple[str, ...] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class PublishedModel:
    """A model that serves: from the feature table to quantiles of run_s."""

    info: ModelInfo
    design: Design
    fitted: Fitted

    @classmethod
    def of(
        cls,
        fitted: Fitted,
        design: Design,
        ended_at_s: Floats,
        trained_at_s: float,
        metrics: Mapping[str, Any],
    ) -> Self:
        """Describe a model fitted to examples that ended then; shape (examples,)."""
        info = ModelInfo(
            trained_at_s=trained_at_s,
            examples=len(ended_at_s),
            oldest_example_s=float(ended_at_s.min()),
            newest_example_s=float(ended_at_s.max()),
            dropped=design.dropped,
            metrics=metrics,
        )
        return cls(info, design, fitted)

    def predict_quantiles(self, features: Floats, job_class: str = "", nodes: Sequence[str] = ()) -> Floats:
        """p10, p50, p90 in s, shape (rows, 3), for one job, from features of shape (rows, features).

        `nodes` names the candidate of each row; without names, and for one that
        the model never saw, it is a node like all others.
        """
        return self.predict_rows(features, [job_class], nodes)

    def medians(self, features: Floats, job_class: str = "", nodes: Sequence[str] = ()) -> Floats:
        """p50 in s, shape (rows,)."""
        return self.predict_quantiles(features, job_class, nodes)[:, 1]

    def contributions(self, features: Floats, job_class: str = "", nodes: Sequence[str] = ()) -> Floats:
        """What each feature adds to log(p50_s), shape (rows, number of features + 1), last the base."""
        parts = self.fitted.contributions(self._matrix(features, [job_class], nodes))
        return self.design.feature_contributions(parts)

    def predict_rows(self, features: Floats, classes: Iterable[str], nodes: Iterable[str] = ()) -> Floats:
        """The same for rows of several jobs: `classes` has a name per row, or one for all."""
        return self.fitted.predict_quantiles(self._matrix(features, classes, nodes))

    def _matrix(self, features: Floats, classes: Iterable[str], nodes: Iterable[str]) -> Floats:
        matrix = self.design.serving_matrix(features, classes, list(nodes) or [""])
        if np.isinf(matrix).any():
            raise ValueError("a feature is infinite, or so large that what is computed from it is")
        return matrix

    def named(self, version: str) -> PublishedModel:
        """The same model with its version."""
        return replace(self, info=replace(self.info, version=version))

    def files(self) -> dict[str, bytes]:
        """The model as files by name."""
        central, intervals = self.fitted.central, self.fitted.intervals
        files = {
            INFO: _json({"format": FORMAT, "features": _feature_table(), **asdict(self.info)}),
            STATE: _json(_state(self.fitted) | _names(self.design)),
        }
        if central.booster is not None:
            files[CENTRAL] = central.booster.model_to_string().encode()
        if intervals.size is not None:
            files[SIZE] = intervals.size.model_to_string().encode()
        return files

    @classmethod
    def from_files(cls, files: Mapping[str, bytes], threads: int = 1) -> Self:
        """The inverse of `files`. Raises BrokenModelError."""
        try:
            info = _info(json.loads(files[INFO]))
            state = json.loads(files[STATE])
            classes, nodes = (tuple(state[kind]) for kind in ("classes", "nodes"))
            design = Design(True, tuple(NAMES), dropped=info.dropped, classes=classes, nodes=nodes)
            model = cls(info, design, _revived(design, state, files, threads))
            _try_out(model)
        except KeyError as error:
            raise BrokenModelError(f"the model lacks {error}") from error
        except Exception as error:  # files of any content: what comes of them must end no server
            raise BrokenModelError(f"the model is not readable: {error}") from error
        return model


def _names(design: Design) -> dict[str, list[str]]:
    return {"classes": list(design.classes), "nodes": list(design.nodes)}


def _json(values: Any) -> bytes:
    return json.dumps(values, indent=1, sort_keys=True, default=_plain).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} in a model's description")


def _feature_table() -> list[list[Any]]:
    return [[feature.name, feature.unit, feature.group, feature.monotone] for feature in FEATURES]


def _info(values: dict[str, Any]) -> ModelInfo:
    if values.pop("format") != FORMAT:
        raise BrokenModelError(f"the model's files are of another format than {FORMAT}")
    if values["schema_version"] != SCHEMA_VERSION:
        raise BrokenModelError(
            f"the model was trained on feature schema {values['schema_version']}, "
            f"this program has {SCHEMA_VERSION}"
        )
    names = [feature[0] for feature in values.pop("features")]
    if names != list(NAMES):
        raise BrokenModelError("the model was trained on other features under the same schema version")
    return ModelInfo(**(values | {"dropped": tuple(values["dropped"])}))


def _state(fitted: Fitted) -> dict[str, Any]:
    central, intervals = fitted.central, fitted.intervals
    return {
        "parameters": {"prior_sigma": fitted.prior_sigma},
        "recipe": asdict(central.recipe),
        "shift": central.shift,
        "typical": [None if math.isnan(value) else value for value in central.typical.tolist()],
        "mixture": None if central.mixture is None else central.mixture.to_json(),
        "linear": None if central.linear is None else central.linear.to_json(),
        "low": intervals.low,
        "high": intervals.high,
        "typical_size": intervals.typical_size,
    }


def _revived(design: Design, state: dict[str, Any], files: Mapping[str, bytes], threads: int) -> Fitted:
    typical = np.array([math.nan if value is None else value for value in state["typical"]], dtype=np.float64)
    linear = None if state["linear"] is None else LogLinear.from_json(state["linear"])
    mixture = None if state["mixture"] is None else Mixture.from_json(state["mixture"])
    recipe = Recipe(**state["recipe"])
    central = Central(recipe, state["shift"], typical, mixture, linear, _trees(files, CENTRAL), threads)
    intervals = Intervals(state["low"], state["high"], _trees(files, SIZE), state["typical_size"], threads)
    return Fitted(design.roles, central, intervals, **state["parameters"])


def _trees(files: Mapping[str, bytes], name: str) -> Trees | None:
    return Trees(files[name].decode()) if name in files else None


def _try_out(model: PublishedModel) -> None:
    """One prediction on a node of which nothing is known: what can't answer that must not be served."""
    quantiles = model.predict_quantiles(np.full((1, len(NAMES)), np.nan))
    if not (np.isfinite(quantiles).all() and (quantiles > 0).all()):
        raise BrokenModelError("the model predicts no finite positive time")
