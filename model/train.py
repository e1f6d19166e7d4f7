"""Examples in, a judged model out: fit, measure on a split, pass or refuse, publish.

The order is: measure a model fitted on the older part on the newest part,
beside the prior, the champion and the optimistic random split; refuse what is
no better; refit on everything and publish that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from model.central import Recipe
from model.dataset import Examples
from model.estimator import CompletionTimeEstimator
from model.evaluate import Evaluation, evaluate
from model.fitting.matrix import Known, design_for, estimator_for, matrix_of
from model.intervals import Z_HIGH
from model.prior import PRIOR_SIGMA
from model.published import PublishedModel
from model.reading import ExamplesError
from model.schema import NAMES
from model.snapshot import Floats, Indices
from model.splits import LEAST_TO_JUDGE, Split, folds_of

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many steps are done, and how many there are."""
LEAST_EXAMPLES = 50


class TooFewExamplesError(ValueError):
    """There is not enough to learn from."""


class NotBetterError(ValueError):
    """The model is worse than what is there already; the figures are in the message."""


@dataclass(frozen=True)
class Options:
    """How to train. `estimator` are parameters of `CompletionTimeEstimator`, `without` feature groups."""

    split: Split = field(default_factory=lambda: Split("time"))
    without: tuple[str, ...] = ()
    least_examples: int = LEAST_EXAMPLES
    seed: int = 0
    estimator: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Measured:
    """Held-out predictions: the rows judged, in the order of the folds, and figures on them.

    `prior` are the figures of the prior alone on the same rows, `optimistic`
    those of a random split over all rows.
    """

    rows: Indices
    quantiles: Floats
    model: Evaluation
    prior: Evaluation
    optimistic: Evaluation
    recipes: tuple[dict[str, Any], ...]


def nothing_told(what: str, done: int, steps: int) -> None:
    """Progress that nobody watches."""


def measure(examples: Examples, options: Options, progress: Progress = nothing_told) -> Measured:
    """Fit on part of the examples, judge on the rest.

    Raises TooFewExamplesError, or ExamplesError when they can't be split that way.
    """
    enough(examples, options)
    folds = folds_of(examples, options.split, options.seed)
    steps = len(folds) + 1
    judged = [rows for _, rows in folds]
    if sum(map(len, judged)) < LEAST_TO_JUDGE:
        raise TooFewExamplesError(f"the split leaves {sum(map(len, judged))} examples to judge on")
    quantiles, priors, recipes = [], [], []
    for done, (fit, held) in enumerate(folds):
        progress("measuring", done, steps)
        estimator, matrix = fitted(examples, fit, options)
        quantiles.append(estimator.predict_quantiles(matrix[held]))
        priors.append(prior_quantiles(estimator, matrix[held]))
        recipes.append(estimator.recipe_)
    progress("measuring a random split", len(folds), steps)
    optimistic = _at_random(examples, options, recipes[0])
    progress("measured", steps, steps)
    rows = np.concatenate(judged)
    frame, predicted = examples.frame.iloc[rows], np.concatenate(quantiles)
    return Measured(
        rows,
        predicted,
        evaluate(frame, predicted),
        evaluate(frame, np.concatenate(priors)),
        optimistic,
        tuple(asdict(recipe) for recipe in recipes),
    )


def enough(examples: Examples, options: Options) -> None:
    """Raises TooFewExamplesError when there are not enough examples."""
    if len(examples.frame) < options.least_examples:
        left_out = ", ".join(f"{n} {why}" for why, n in examples.excluded.items())
        raise TooFewExamplesError(
            f"{len(examples.frame)} completed runs, {options.least_examples} are needed"
            + (f" (left out: {left_out})" if left_out else "")
        )


def fitted(examples: Examples, rows: Indices, options: Options) -> tuple[CompletionTimeEstimator, Floats]:
    """An estimator fitted on these rows, and the matrix of all rows as it would see them."""
    split = options.split
    design = design_for(examples, rows, split, options.without)
    matrix = matrix_of(design, examples, Known(rows, split))
    estimator = estimator_for(design, **{"seed": options.seed, **options.estimator})
    return estimator.fit(matrix[rows], examples.frame["run_s"].to_numpy()[rows]), matrix


def prior_quantiles(estimator: CompletionTimeEstimator, matrix: Floats) -> Floats:
    """What the prior alone says: its median with its wide spread; shape (rows, 3)."""
    log_s = matrix[:, list(estimator.prior_columns)].sum(axis=1)
    z = Z_HIGH * PRIOR_SIGMA
    return np.asarray(np.exp(np.stack([log_s - z, log_s, log_s + z], axis=1)), dtype=np.float64)


def _at_random(examples: Examples, options: Options, recipe: Recipe) -> Evaluation:
    """The same recipe on a random fifth of all rows."""
    split = Split("random")
    fit, held = folds_of(examples, split, options.seed)[0]
    same = replace(options, split=split, estimator={**options.estimator, "recipe": asdict(recipe)})
    estimator, matrix = fitted(examples, fit, same)
    return evaluate(examples.frame.iloc[held], estimator.predict_quantiles(matrix[held]))


def compare(measured: Measured, champion: PublishedModel | None, examples: Examples) -> str:
    """Raises NotBetterError unless the model beats the prior and is no worse than the champion.

    The champion is judged on the runs that ended after its own training
    window; the answer says in a sentence what was compared.
    """
    if measured.model.mean_log_error > measured.prior.mean_log_error:
        raise NotBetterError(
            f"worse than the prior alone on the newest {measured.model.rows} runs: mean log error "
            f"{measured.model.mean_log_error:.3f} against {measured.prior.mean_log_error:.3f}"
        )
    if champion is None:
        return "no champion to compare with"
    ended = examples.frame["ended_at"].to_numpy()[measured.rows]
    unseen = np.flatnonzero(ended > champion.info.newest_example_s)
    version = champion.info.version
    if len(unseen) < LEAST_TO_JUDGE:
        return f"{len(unseen)} runs are newer than the champion {version}: too few to compare with it"
    frame = examples.frame.iloc[measured.rows[unseen]]
    features = frame[list(NAMES)].to_numpy(dtype=np.float64)
    theirs = evaluate(frame, champion.predict_rows(features, frame["job_class"], frame.get("node", ())))
    ours = evaluate(frame, measured.quantiles[unseen])
    told = (
        f"on the {len(unseen)} runs newer than the champion {version}: mean log error "
        f"{ours.mean_log_error:.3f} against {theirs.mean_log_error:.3f}"
    )
    if ours.mean_log_error > theirs.mean_log_error:
        raise NotBetterError(f"worse than the champion {told}")
    return told


def require_publishable(examples: Examples) -> None:
    """Raises ExamplesError for tables other than the feature table: nobody could serve their model."""
    if not examples.of_fairlane:
        raise ExamplesError(
            "only models of the feature table can be published; this table has columns of its own: "
            "leave out --registry to measure"
        )


def final_model(
    examples: Examples, options: Options, trained_at_s: float, metrics: dict[str, Any]
) -> PublishedModel:
    """The model refitted on all examples, ready to publish.

    Raises ExamplesError for tables other than the feature table.
    """
    require_publishable(examples)
    everything = np.arange(len(examples.frame), dtype=np.intp)
    estimator, _ = fitted(examples, everything, replace(options, split=Split("time")))
    design = design_for(examples, everything, Split("time"), options.without)
    ended_at_s = examples.frame["ended_at"].to_numpy()
    return PublishedModel.of(estimator.fitted_model, design, ended_at_s, trained_at_s, metrics)
