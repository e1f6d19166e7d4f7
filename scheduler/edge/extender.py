"""The HTTP face of the extender: a bare ASGI app, because kube-scheduler waits for every answer.

POST {prefix}/filter       ExtenderArgs -> ExtenderFilterResult: the best node alone
POST {prefix}/prioritize   ExtenderArgs -> HostPriorityList: the best nodes with scores
POST /v1/plan              PlanRequest -> PlanReply: where pods that are about to be released should go
GET  /healthz /readyz      alive; ready to have opinions
GET  /metrics              Prometheus
GET  /v1/status            JSON, for `fairlane doctor`
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

from scheduler.core.plans import PATH as PLAN_PATH
from scheduler.core.wire import BadRequest, encode_json
from scheduler.edge.exchange import (
    Disconnected,
    Receive,
    Refused,
    Scope,
    Send,
    read_body,
    refuse,
    respond,
    tell_process,
)
from scheduler.edge.planner import Planner
from scheduler.edge.prioritizer import Prioritizer
from scheduler.edge.short_way import Reply, ShortWay

OTHER_VERBS = ("bind", "preempt")


class ExtenderApp:
    """Routes requests; `status` and `metrics` are asked when somebody wants them.

    `refused` counts requests by the status they were refused with, and
    `last_refusal` is the newest reason: kube-scheduler tells nobody.
    """

    def __init__(
        self,
        prioritizer: Prioritizer,
        planner: Planner,
        status: Callable[[], dict[str, Any]],
        metrics: Callable[[], bytes],
        unready: Callable[[], str],
        *,
        prefix: str,
        max_body_bytes: int,
        read_timeout_s: float,
    ) -> None:
        self._planner = planner
        self._status = status
        self._metrics = metrics
        self._unready = unready
        self._calls = {
            f"{prefix}/filter": prioritizer.filter,
            f"{prefix}/prioritize": prioritizer.prioritize,
        }
        self._other_paths = {f"{prefix}/{verb}": verb for verb in OTHER_VERBS}
        self._max_body_bytes = max_body_bytes
        self._read_timeout_s = read_timeout_s
        self.refused: Counter[int] = Counter()
        self.last_refusal = ""
        self.short_way = ShortWay(
            tuple(self._calls), self._answer, self._incomplete, max_body_bytes, read_timeout_s
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, by the ASGI protocol."""
        if scope["type"] != "http":
            return
        try:
            if scope["path"] in self._calls:
                await self._call(scope, receive, send)
            elif scope["path"] == PLAN_PATH:
                await self._plan(scope, receive, send)
            else:
                await self._tell(scope, send)
        except Refused as refused:
            self._count(refused.status, f"{scope['method']} {scope['path']}: {refused.why}")
            await refuse(send, refused)
        except Disconnected:
            self.refused[499] += 1

    def _count(self, status: int, why: str) -> None:
        self.refused[status] += 1
        self.last_refusal = f"{status} for {why}"

    async def _call(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if scope["method"] != "POST":
            raise Refused(405, f"{path} is a POST", allow="POST")
        reply = self._answer(path, await read_body(receive, self._max_body_bytes, self._read_timeout_s))
        await respond(send, reply.status, reply.body)
        if reply.afterwards is not None:
            # the server writes at the end of this turn of the loop; what is left must not delay that
            asyncio.get_running_loop().call_soon(reply.afterwards)

    async def _plan(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            raise Refused(405, f"{PLAN_PATH} is a POST", allow="POST")
        body = await read_body(receive, self._max_body_bytes, self._read_timeout_s)
        try:
            await respond(send, 200, await self._planner.plan(body))
        except BadRequest as error:
            raise Refused(400, str(error)) from error

    def _answer(self, path: str, body: bytes) -> Reply:
        """The whole answer to a call of kube-scheduler."""
        try:
            answer = self._calls[path](body)
        except BadRequest as error:
            self._count(400, f"POST {path}: {error}")
            return Reply(400, encode_json({"error": str(error)}))
        return Reply(200, answer.body, answer.afterwards)

    def _incomplete(self, path: str, status: int, why: str) -> None:
        if status == 499:
            self.refused[status] += 1
        else:
            self._count(status, f"POST {path}: {why}")

    async def _tell(self, scope: Scope, send: Send) -> None:
        if verb := self._other_paths.get(scope["path"]):
            raise Refused(
                404,
                f"only filter and prioritize are served: remove {verb}Verb from the extender's configuration",
            )
        await tell_process(scope, send, self._status, self._metrics, self._unready)
