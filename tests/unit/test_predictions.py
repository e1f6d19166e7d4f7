"""The client of the predictor: many nodes in pieces, one model for all of them, one deadline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import numpy as np
import pytest

from model.proto import predictor_pb2 as pb
from model.proto.predictor_pb2_grpc import PredictorServicer, add_PredictorServicer_to_server
from model.schema import NAMES
from model.snapshot import Floats
from scheduler.edge.predictions import ROWS_AT_ONCE, PredictionClient, PredictionError

COUNT = 2 * ROWS_AT_ONCE + 7
NODES = tuple(f"node-{number}" for number in range(COUNT))


class FirstColumn(PredictorServicer):
    """Answers each row's first feature as its median, by the next of `versions` while there is one."""

    def __init__(self, versions: Iterable[str] = ("only",), delay_s: float = 0.0) -> None:
        self.versions, self.delay_s = list(versions), delay_s
        self.asked: list[tuple[str, ...]] = []

    async def Predict(self, request: Any, context: Any) -> Any:  # noqa: ARG002
        """The rows of one request."""
        await asyncio.sleep(self.delay_s)
        self.asked.append(tuple(request.nodes))
        version = self.versions.pop(0) if len(self.versions) > 1 else self.versions[0]
        middle = np.frombuffer(request.features).reshape(len(request.nodes), len(NAMES))[:, 0]
        return pb.PredictReply(model_version=version, p10_s=middle / 2, p50_s=middle, p90_s=middle * 2)


@asynccontextmanager
async def client_of(predictor: FirstColumn, deadline_s: float = 10.0) -> AsyncIterator[PredictionClient]:
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 2**26)])
    add_PredictorServicer_to_server(predictor, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with PredictionClient(f"127.0.0.1:{port}", deadline_s) as client:
            yield client
    finally:
        await server.stop(None)


def rows() -> Floats:
    """Rows that differ in the first column; column by column in memory, as they are built."""
    return np.asfortranarray(np.repeat(1.0 + np.arange(float(COUNT))[:, None], len(NAMES), axis=1))


async def test_many_nodes_are_asked_about_in_pieces_and_answered_in_their_order() -> None:
    predictor = FirstColumn()
    async with client_of(predictor) as client:
        told = await client.predict(NODES, rows(), "etl")
    assert told.p50_s.tolist() == rows()[:, 0].tolist()
    assert (told.p90_s == 4 * told.p10_s).all()
    assert [len(piece) for piece in predictor.asked] == [ROWS_AT_ONCE, ROWS_AT_ONCE, 7]
    assert sum(predictor.asked, ()) == NODES


async def test_a_model_that_takes_over_under_way_judges_all_rows() -> None:
    predictor = FirstColumn(["old", "old", "new"])
    async with client_of(predictor) as client:
        told = await client.predict(NODES, rows(), "etl")
    assert told.model_version == "new"
    assert predictor.asked[3:] == predictor.asked[:3]


async def test_rows_of_different_models_are_no_answer() -> None:
    async with client_of(FirstColumn(map(str, range(100)))) as client:
        with pytest.raises(PredictionError, match="changes its model"):
            await client.predict(NODES, rows(), "etl")


async def test_the_deadline_is_of_all_pieces_together() -> None:
    predictor = FirstColumn(delay_s=0.4)
    async with client_of(predictor, deadline_s=1.0) as client:
        with pytest.raises(PredictionError) as refused:
            await client.predict(NODES, rows(), "etl")
    assert refused.value.code == "DEADLINE_EXCEEDED"
    assert len(predictor.asked) == 2
