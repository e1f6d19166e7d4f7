"""Asks the model server for quantiles of the run time; translates and checks, decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np

from model.proto import predictor_pb2 as pb
from model.proto.predictor_pb2_grpc import PredictorStub
from model.schema import NAMES, SCHEMA_VERSION
from model.snapshot import Floats

MESSAGE_BYTES_MAX = 64 * 1024 * 1024
"""Largest message in either direction: 5,000 nodes with contributions are 4 MiB."""

_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    # A predictor that comes back is found within about a second.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


class PredictionError(Exception):
    """No usable answer: the reason in a sentence, and the gRPC status name as `code`."""

    def __init__(self, message: str, code: str = "INTERNAL") -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Predictions:
    """Quantiles of run_s per candidate node, shape (nodes,), and which model gave them.

    `contributions` has shape (nodes, features + 1): what each feature adds to
    log(p50_s); the last column is the base value. None when not asked for.
    """

    model_version: str
    p10_s: Floats
    p50_s: Floats
    p90_s: Floats
    contributions: Floats | None = None


@dataclass(frozen=True, slots=True)
class CurrentModel:
    """The model that answers at present; `trained_at_s` in unix s; `problem` of a newer one, if any."""

    version: str
    schema_version: int
    trained_at_s: float
    examples: int
    problem: str = ""


class PredictionClient:
    """Asynchronous client of one model server; every call has a deadline.

    The channel is opened on first use and reconnects by itself. Every failure
    is a `PredictionError`. `token` may be empty where the server asks for none.
    """

    def __init__(self, address: str, deadline_s: float = 1.0, token: str = "") -> None:
        self._address, self._deadline_s = address, deadline_s
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._channel: grpc.aio.Channel | None = None
        self._stub: Any = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def predict(
        self, names: Sequence[str], features: Floats, job_class: str, contributions: bool = False
    ) -> Predictions:
        """Predict a job of this class on these nodes, from features of shape (len(names), features)."""
        if features.shape != (len(names), len(NAMES)):
            raise PredictionError(
                f"features have shape {features.shape}, not ({len(names)}, {len(NAMES)})", "INVALID_ARGUMENT"
            )
        request = pb.PredictRequest(
            schema_version=SCHEMA_VERSION,
            nodes=names,
            features=features.astype("<f8").tobytes(),
            contributions=contributions,
            job_class=job_class,
        )
        return _checked(await self._call("Predict", request), len(names), contributions)

    async def current_model(self) -> CurrentModel:
        """Which model answers at present."""
        reply = await self._call("CurrentModel", pb.CurrentModelRequest())
        about = (reply.schema_version, reply.trained_at_s, reply.examples, reply.problem)
        return CurrentModel(reply.model_version, *about)

    async def close(self) -> None:
        """Close the channel; a later call opens it again."""
        channel, self._channel, self._stub = self._channel, None, None
        if channel is not None:
            await channel.close(None)

    async def _call(self, method: str, request: Any) -> Any:
        if self._channel is None:
            self._channel = grpc.aio.insecure_channel(self._address, options=_OPTIONS)
            self._stub = PredictorStub(self._channel)  # type: ignore[no-untyped-call]
        try:
            return await getattr(self._stub, method)(
                request, timeout=self._deadline_s, metadata=self._metadata
            )
        except grpc.aio.AioRpcError as error:
            code = error.code().name
            raise PredictionError(f"predictor {self._address}: {code}: {error.details()}", code) from error


def _checked(reply: Any, rows: int, contributions: bool) -> Predictions:
    """The reply as arrays; a server that answers nonsense counts as one that does not answer."""
    quantiles = [np.array(values, dtype=np.float64) for values in (reply.p10_s, reply.p50_s, reply.p90_s)]
    if any(len(values) != rows for values in quantiles):
        raise PredictionError(f"predictor answered {len(quantiles[0])} predictions for {rows} nodes")
    p10, p50, p90 = quantiles
    if not (np.isfinite(p90).all() and (p10 > 0).all() and (p10 <= p50).all() and (p50 <= p90).all()):
        raise PredictionError("predictor answered quantiles that are not finite, positive and ordered")
    matrix = _matrix(reply.contributions, rows) if contributions else None
    return Predictions(reply.model_version, p10, p50, p90, matrix)


def _matrix(raw: bytes, rows: int) -> Floats:
    columns = len(NAMES) + 1
    if len(raw) != rows * columns * 8:
        raise PredictionError(f"predictor answered {len(raw)} bytes of contributions for {rows} nodes")
    return np.frombuffer(raw, dtype="<f8").reshape(rows, columns).astype(np.float64)
