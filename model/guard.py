"""Who may ask the model server: those who know the token of Fairlane's processes, and is understood."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from model import protocol

PREDICT = "/Predict"
"""What needs one to be understood; which model answers is told to all, to find what is wrong."""
HEALTH = "/grpc.health.v1.Health/"
"""Asked by kubelets and load balancers, who have no token; it only tells whether a model is served."""
HEADER = "authorization"


class TokenGuard(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Refuses calls without the bearer token before a byte of their message is read."""

    def __init__(self, token: str) -> None:
        """`token` is not empty."""
        self._expected = f"Bearer {token}".encode()

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any
    ) -> Any:
        """The handler of the call, or one that refuses."""
        if handler_call_details.method.startswith(HEALTH) or self._is_known(
            handler_call_details.invocation_metadata
        ):
            return await continuation(handler_call_details)
        return _REFUSAL

    def _is_known(self, metadata: Any) -> bool:
        given = next((value for key, value in metadata or () if key == HEADER), "")
        return hmac.compare_digest(str(given).encode(), self._expected)


class ProtocolGuard(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Refuses calls of our own processes whose protocol version is too far from ours."""

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any
    ) -> Any:
        """The handler of the call, or one that refuses."""
        metadata = handler_call_details.invocation_metadata
        told = next((str(value) for key, value in metadata or () if key == protocol.HEADER), None)
        why = protocol.refusal("predictor", told)
        if why and handler_call_details.method.endswith(PREDICT):
            return _refusing(why)
        return await continuation(handler_call_details)


def _refusing(why: str) -> Any:
    async def refuse(_messages: Any, context: Any) -> None:
        context.set_trailing_metadata((protocol.own(),))
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, why)

    return grpc.stream_stream_rpc_method_handler(refuse)


async def _refuse(_messages: Any, context: Any) -> None:
    await context.abort(
        grpc.StatusCode.UNAUTHENTICATED, "the bearer token is missing or wrong: set FAIRLANE_TOKEN"
    )


_REFUSAL = grpc.stream_stream_rpc_method_handler(_refuse)
"""Fits calls of every shape: a single message is a stream of one."""
