"""Asks the model server for quantiles of the run time; translates and checks, decides nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc

from model import protocol
from model.proto import predictor_pb2 as pb
from model.proto.predictor_pb2_grpc import PredictorStub
from model.schema import NAMES, SCHEMA_VERSION
from model.snapshot import Floats
from scheduler.config import Settings

MESSAGE_BYTES_MAX = 64 * 1024 * 1024
"""Largest message in either direction: 5,000 nodes with contributions are 4 MiB."""

ROWS_AT_ONCE = 1000
"""Rows of one request: to put one together for 5,000 nodes holds the event loop for 4 to 15 ms."""

_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    # A predictor that comes back is found within about a second.
    ("grpc.initial_reconnect_backoff_ms", 100),
    # How long one attempt may take, with its TLS handshake, on a machine that is busy.
    ("grpc.min_reconnect_backoff_ms", 5000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # The environment's proxies lead out of the cluster; the predictor is in it.
    ("grpc.enable_http_proxy", 0),
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
    protocol_version: int | None = None
    """The predictor's; None where it is not known."""


class PredictionClient:
    """Asynchronous client of one model server; every call has a deadline.

    The channel is opened on first use and reconnects by itself. Every failure
    is a `PredictionError`. `token` may be empty where the server asks for none.
    With `ca_file` (a PEM bundle, read again when it changes) it speaks TLS.
    """

    def __init__(
        self, address: str, deadline_s: float = 1.0, token: str = "", ca_file: Path | None = None
    ) -> None:
        self._address, self._deadline_s = address, deadline_s
        self._ca_file, self._trusted = ca_file, b""
        self._closing: set[asyncio.Task[None]] = set()
        self._metadata = (protocol.own(), *((("authorization", f"Bearer {token}"),) if token else ()))
        self._answered_by: int | None = None
        self._channel: grpc.aio.Channel | None = None

    @classmethod
    def to(cls, settings: Settings, deadline_s: float, address: str = "") -> Self:
        """A client of the predictor that the settings name (or of the one at `address`)."""
        token = settings.token.get_secret_value()
        return cls(address or settings.predictor_address, deadline_s, token, settings.predictor_ca_file)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def predict(
        self, names: Sequence[str], features: Floats, job_class: str, contributions: bool = False
    ) -> Predictions:
        """Predict a job of this class on these nodes, from features of shape (len(names), features).

        `ROWS_AT_ONCE` at a time, all by one model: where another takes over under way, all are asked again.
        """
        if features.shape != (len(names), len(NAMES)):
            raise PredictionError(
                f"features have shape {features.shape}, not ({len(names)}, {len(NAMES)})", "INVALID_ARGUMENT"
            )
        until_s = time.monotonic() + self._deadline_s
        ask = partial(self._ask, until_s, names, features, job_class, contributions)
        starts = range(0, max(1, len(names)), ROWS_AT_ONCE)
        parts = [await ask(start) for start in starts]
        if len({part.model_version for part in parts}) > 1:
            parts = [await ask(start) for start in starts]
        return _joined(parts)

    async def _ask(
        self,
        until_s: float,
        names: Sequence[str],
        features: Floats,
        job_class: str,
        contributions: bool,
        start: int,
    ) -> Predictions:
        rows = slice(start, start + ROWS_AT_ONCE)
        request = pb.PredictRequest(
            schema_version=SCHEMA_VERSION,
            feature_names=NAMES,
            nodes=names[rows],
            features=features[rows].astype("<f8", copy=False).tobytes(),
            contributions=contributions,
            job_class=job_class,
        )
        reply = await self._call(PredictorStub, "Predict", request, until_s - time.monotonic())
        return _checked(reply, len(request.nodes), contributions)

    async def current_model(self) -> CurrentModel:
        """Which model answers at present."""
        reply = await self._call(PredictorStub, "CurrentModel", pb.CurrentModelRequest())
        about = (reply.schema_version, reply.trained_at_s, reply.examples, reply.problem)
        return CurrentModel(reply.model_version, *about, self._answered_by)

    async def is_serving(self) -> bool:
        """What its health service says."""
        reply = await self._call(health_pb2_grpc.HealthStub, "Check", health_pb2.HealthCheckRequest())
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)

    async def close(self) -> None:
        """Close the channel; a later call opens it again."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close(None)
        await asyncio.gather(*self._closing)

    async def _call(self, stub: Any, method: str, request: Any, within_s: float | None = None) -> Any:
        timeout_s = self._deadline_s if within_s is None else max(0.0, within_s)
        try:
            call = getattr(stub(self._open()), method)
            calling = call(request, timeout=timeout_s, metadata=self._metadata)
            reply = await calling
            told = dict(await calling.trailing_metadata() or ()).get(protocol.HEADER)
            self._answered_by = protocol.spoken(told)
            return reply
        except grpc.aio.AioRpcError as error:
            code = error.code().name
            raise PredictionError(f"predictor {self._address}: {code}: {error.details()}", code) from error
        except OSError as error:
            raise PredictionError(f"predictor {self._address}: its CA: {error}", "UNAVAILABLE") from error

    def _open(self) -> grpc.aio.Channel:
        """The channel; another one once other CAs are trusted: calls under way end on the one before."""
        trusted = self._ca_file.read_bytes() if self._ca_file else b""
        if self._ca_file and not trusted.strip():
            raise OSError(f"{self._ca_file} is empty")  # without TLS the token would be read on the way
        if self._channel is not None and trusted == self._trusted:
            return self._channel
        if self._channel is not None:
            ending = asyncio.create_task(self._channel.close(self._deadline_s))
            self._closing.add(ending)
            ending.add_done_callback(self._closing.discard)
        self._trusted = trusted
        if trusted:
            credentials = grpc.ssl_channel_credentials(trusted)
            self._channel = grpc.aio.secure_channel(self._address, credentials, options=_OPTIONS)
        else:
            self._channel = grpc.aio.insecure_channel(self._address, options=_OPTIONS)
        return self._channel


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


def _joined(parts: Sequence[Predictions]) -> Predictions:
    """The answers for some rows each as one for all."""
    versions = {part.model_version for part in parts}
    if len(versions) > 1:
        raise PredictionError(f"predictor changes its model all the time: {', '.join(sorted(versions))}")
    p10, p50, p90 = (
        np.concatenate(some) for some in zip(*((p.p10_s, p.p50_s, p.p90_s) for p in parts), strict=True)
    )
    added = [part.contributions for part in parts if part.contributions is not None]
    return Predictions(parts[0].model_version, p10, p50, p90, np.concatenate(added) if added else None)


def _matrix(raw: bytes, rows: int) -> Floats:
    columns = len(NAMES) + 1
    if len(raw) != rows * columns * 8:
        raise PredictionError(f"predictor answered {len(raw)} bytes of contributions for {rows} nodes")
    return np.frombuffer(raw, dtype="<f8").reshape(rows, columns).astype(np.float64)
