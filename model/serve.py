"""The model server: quantiles over gRPC, health, reflection, and a model that changes under way.

A request is answered wholly by one model: it takes the reference once, and a
newer model replaces the reference after it was loaded, checked and tried out.
A registry that can't be read or holds only broken versions changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection

from model import protocol
from model.address import place_of
from model.columns import Columns, OtherSchemaError
from model.guard import ProtocolGuard, TokenGuard
from model.proto import predictor_pb2 as pb
from model.proto.predictor_pb2_grpc import PredictorServicer, add_PredictorServicer_to_server
from model.published import PublishedModel
from model.registry import Loaded, Registry, RegistryError
from model.snapshot import Floats
from model.tls import ServedCertificate

log = logging.getLogger("fairlane.predictor")

SERVICE = pb.DESCRIPTOR.services_by_name["Predictor"].full_name
NODES_MAX = 20_000
MESSAGE_BYTES_MAX = 64 * 1024 * 1024
FIRST_LOOK_S = 1.0
"""How long a start waits for the newest model: a registry that does not answer must not keep it shut."""
WAITING_MAX = 64
"""Requests computed or waiting at once; more are refused so that nobody waits past his deadline."""
GRACE_S = 2.0
Context = Any


@dataclass(frozen=True)
class ServerSettings:
    """Where to listen (port 0: any free one), where models come from, how often to look for a newer one.

    Whoever asks must know `token`, unless it is empty. With `certificate` and
    `key` (PEM files, read again when they change) it speaks TLS.
    """

    registry: str
    host: str = "127.0.0.1"
    port: int = 0
    poll_s: float = 10.0
    threads: int = 1
    workers: int = 2
    token: str = field(default="", repr=False)
    certificate: Path | None = None
    key: Path | None = None


class Answers(PredictorServicer):
    """The Predictor service; `model` is None until one was loaded, and `problem` may say why."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.model: PublishedModel | None = None
        self.problem = ""
        self.predictions = 0
        self.predicting_s = 0.0
        self._pool = pool
        self._under_way = 0

    async def Predict(self, request: Any, context: Context) -> Any:
        """Quantiles for every node of the request, in its order."""
        context.set_trailing_metadata((protocol.own(),))
        columns = await _columns(request, context)
        model = await self._usable(context)
        features = columns.taken(await _features(request, columns.count, context))
        if self._under_way >= WAITING_MAX:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{WAITING_MAX} requests are being answered already: try again",
            )
        self._under_way += 1
        begun_s = time.monotonic()
        try:
            work = asyncio.get_running_loop().run_in_executor(
                self._pool, _in_time, _deadline(context), _answer, model, features, columns, request
            )
            answer = await work
            self.predictions += 1
            self.predicting_s += time.monotonic() - begun_s
            return answer
        except TimeoutError:
            await context.abort(
                grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline passed before the answer was begun"
            )
        except ValueError as error:  # values so large that what is computed from them is zero or infinite
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, f"no answer can be computed from these features: {error}"
            )
        finally:
            self._under_way -= 1

    async def CurrentModel(self, request: Any, context: Context) -> Any:  # noqa: ARG002
        """Version and training window of the model that answers, and what is wrong with a newer one."""
        context.set_trailing_metadata((protocol.own(),))
        info = (await self._usable(context)).info
        return pb.CurrentModelReply(
            model_version=info.version,
            schema_version=info.schema_version,
            trained_at_s=info.trained_at_s,
            examples=info.examples,
            problem=self.problem,
        )

    def unready(self) -> str:
        """Why there are no predictions; empty when there are."""
        if self.model is not None:
            return ""
        return self.problem or f"{protocol.NOTHING_PUBLISHED}: run `fairlane train --registry`"

    async def _usable(self, context: Context) -> PublishedModel:
        if self.model is None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, self.unready())
        assert self.model is not None
        return self.model


def _deadline(context: Context) -> float | None:
    """The moment on the event loop's clock by which the caller wants the answer."""
    left = context.time_remaining()
    return None if left is None else asyncio.get_running_loop().time() + left


def _in_time(deadline: float | None, work: Callable[..., Any], *arguments: Any) -> Any:
    if deadline is not None and time.monotonic() >= deadline:
        raise TimeoutError
    return work(*arguments)


async def _columns(request: Any, context: Context) -> Columns:
    try:
        return Columns.of(request.schema_version, request.feature_names)
    except OtherSchemaError as error:
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        raise  # `abort` has raised already


async def _features(request: Any, columns: int, context: Context) -> Floats:
    rows = len(request.nodes)
    if rows > NODES_MAX:
        await context.abort(
            grpc.StatusCode.INVALID_ARGUMENT, f"{rows} nodes in one request, at most {NODES_MAX}"
        )
    if len(request.features) != rows * columns * 8:
        await context.abort(
            grpc.StatusCode.INVALID_ARGUMENT,
            f"features have {len(request.features)} bytes; {rows} nodes x {columns} features x 8 bytes are "
            f"{rows * columns * 8}",
        )
    features = np.frombuffer(request.features, dtype="<f8").reshape(rows, columns).astype(np.float64)
    if np.isinf(features).any():
        await context.abort(
            grpc.StatusCode.INVALID_ARGUMENT, "features hold an infinite value; unknown is NaN"
        )
    return features


def _answer(model: PublishedModel, features: Floats, columns: Columns, request: Any) -> Any:
    quantiles, told = np.zeros((0, 3)), b""
    if len(features):
        quantiles = model.predict_quantiles(features, request.job_class, request.nodes)
        if not (np.isfinite(quantiles) & (quantiles > 0.0)).all():
            raise ValueError("a predicted run time is zero or infinite")
    if len(features) and request.contributions:
        parts = model.contributions(features, request.job_class, request.nodes)
        told = columns.told(parts).astype("<f8").tobytes()
    return pb.PredictReply(
        model_version=model.info.version,
        p10_s=quantiles[:, 0],
        p50_s=quantiles[:, 1],
        p90_s=quantiles[:, 2],
        contributions=told,
    )


class PredictorServer:
    """One listening server; `start`, then `port` is known, then `stop`."""

    def __init__(self, settings: ServerSettings) -> None:
        """Raises RegistryError when the registry's URL is not usable."""
        self._settings = settings
        self._registry = Registry(settings.registry)
        self._pool = ThreadPoolExecutor(settings.workers, thread_name_prefix="predict")
        self._answers = Answers(self._pool)
        self._health = HealthServicer()
        self._server: grpc.aio.Server | None = None
        self._watch: asyncio.Task[None] | None = None
        self._looked = asyncio.Event()
        self._credentials: grpc.ServerCredentials | None = None
        self.port = 0

    async def start(self) -> None:
        """Listen, load the newest model if there is one, and look for newer ones from then on.

        Raises OSError when the address can't be bound, or a certificate not be used.
        """
        options = [
            ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
            ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
            ("grpc.so_reuseport", 0),
        ]
        guards: list[Any] = [TokenGuard(self._settings.token)] if self._settings.token else []
        guards.append(ProtocolGuard())
        server = self._server = grpc.aio.server(options=options, interceptors=guards)
        add_PredictorServicer_to_server(self._answers, server)  # type: ignore[no-untyped-call]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        await self._tell_health()
        address = place_of(self._settings.host, self._settings.port)
        try:
            self.port = self._listen(server, address)
        except RuntimeError as error:
            raise OSError(f"can't listen on {address}: {error}") from error
        self._watch = asyncio.create_task(self._keep_looking())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_LOOK_S):
                await self._looked.wait()
        await server.start()

    def _listen(self, server: grpc.aio.Server, address: str) -> int:
        certificate, key = self._settings.certificate, self._settings.key
        if certificate is None or key is None:
            return int(server.add_insecure_port(address))
        self._credentials = ServedCertificate(certificate, key).credentials()
        return int(server.add_secure_port(address, self._credentials))

    async def stop(self) -> None:
        """Answer what was begun, then end."""
        if self._watch is not None:
            self._watch.cancel()
        await self._health.enter_graceful_shutdown()
        if self._server is not None:
            await self._server.stop(GRACE_S)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def unready(self) -> str:
        """Why there are no predictions; empty when there are."""
        return self._answers.unready()

    def status(self) -> dict[str, Any]:
        """The whole state in plain values; times in unix s, null while there is no model."""
        info = self._answers.model.info if self._answers.model else None
        return {
            "ready": not self.unready(),
            "unready": self.unready(),
            "model_version": info.version if info else "",
            "trained_at_s": info.trained_at_s if info else None,
            "examples": info.examples if info else None,
            "problem": self._answers.problem,
            "predictions": self._answers.predictions,
            "predicting_s": self._answers.predicting_s,
        }

    async def look_for_newer(self) -> None:
        """Load the newest usable model unless it is the one that answers already."""
        try:
            found = await asyncio.to_thread(self._newer)
        except RegistryError as error:
            self._told_once(str(error))
            return
        if found is not None:
            self._answers.model = found.model
            log.info("model %s answers from now on", found.model.info.version)
        await self._tell_health()

    def _newer(self) -> Loaded | None:
        current = self._answers.model
        if current is not None and current.info.version == self._registry.latest():
            self._answers.problem = ""
            return None
        found = self._registry.newest_usable(self._settings.threads)
        if found is None:
            url = self._registry.url
            self._told_once(
                f"the registry {url} has no model any more: is its volume there?" if current else ""
            )
            return None
        self._told_once("; ".join(found.passed_over))
        return None if current is not None and current.info.version == found.model.info.version else found

    def _told_once(self, problem: str) -> None:
        if problem and problem != self._answers.problem:
            log.warning("%s", problem)
        self._answers.problem = problem

    async def _keep_looking(self) -> None:
        while True:
            try:
                await self.look_for_newer()
            except Exception:  # a bug here must not end the search for newer models
                log.exception("looking for a newer model failed")
            self._looked.set()
            await asyncio.sleep(self._settings.poll_s)

    async def _tell_health(self) -> None:
        status = health_pb2.HealthCheckResponse
        state = status.NOT_SERVING if self._answers.model is None else status.SERVING
        for service in ("", SERVICE):
            await self._health.set(service, state)
