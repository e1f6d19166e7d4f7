"""What a score table is made from: the feature rows of a job, and what the predictor says of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from model.placement import ClusterView, Job
from model.snapshot import TelemetrySnapshot
from scheduler.core.scoring import Basis, basis_of
from scheduler.edge.predictions import PredictionClient, PredictionError, Predictions


@dataclass(frozen=True, slots=True)
class Asked:
    """A job (histories included) on these nodes at one epoch; `predict`: the predictor is to be asked.

    `facts` are those of the cluster's `view_version`.
    """

    job: Job
    nodes: tuple[str, ...]
    snapshot: TelemetrySnapshot
    facts: ClusterView
    view_version: int
    now_s: float
    predict: bool


@dataclass(frozen=True, slots=True)
class Inputs:
    """The rows; the predictor's answer, or why it has none. Neither where it was not asked."""

    basis: Basis
    prediction: Predictions | None = None
    failure: str = ""


Making = Callable[[Asked], Awaitable[Inputs]]


async def inputs_of(asked: Asked, predictor: PredictionClient | None) -> Inputs:
    """Build the rows in a thread, and ask the predictor."""
    basis = await asyncio.to_thread(
        basis_of, asked.job, asked.nodes, asked.snapshot, asked.facts, asked.view_version, asked.now_s
    )
    if predictor is None or not asked.predict:
        return Inputs(basis)
    try:
        return Inputs(basis, await predictor.predict(basis.nodes, basis.features, basis.job.job_class))
    except PredictionError as error:
        return Inputs(basis, failure=str(error))
