"""Plans whole gangs at their release: one pod after another, each where the extender's scores send it.

There is no second ranking: each pod is judged as in a call of kube-scheduler whose
candidates are the nodes that still have room, is recorded as a decision, and
counts on its node before the next is asked about.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from scheduler.core.cluster import Cluster
from scheduler.core.plans import BadPlanRequest, PlanPod, PlanReply, PlanRequest, PodPlan, RoomLeft
from scheduler.core.wire import BadRequest
from scheduler.edge.prioritizer import Prioritizer

NEWS_S_MAX = 0.25
"""The controller may have seen a pod some milliseconds before our own watch tells of it."""
LOOK_S = 0.01
_REQUEST = msgspec.json.Decoder(PlanRequest)
_REPLY = msgspec.json.Encoder()


class Planner:
    """Answers plan requests from what is in memory."""

    def __init__(self, cluster: Cluster, prioritizer: Prioritizer) -> None:
        self._cluster = cluster
        self._prioritizer = prioritizer

    async def plan(self, body: bytes) -> bytes:
        """The answer to the request in `body`.

        Raises:
            BadRequest: it is not a usable plan request.
        """
        try:
            asked = _REQUEST.decode(body)
            room = RoomLeft(asked)
        except (msgspec.DecodeError, BadPlanRequest, UnicodeDecodeError, RecursionError) as error:
            raise BadRequest(f"the body is not a plan request: {error}") from error
        await self._all_seen(asked.pods)
        return _REPLY.encode(PlanReply([self._pod(one, room) for one in asked.pods]))

    async def _all_seen(self, pods: Sequence[PlanPod]) -> None:
        for _ in range(int(NEWS_S_MAX / LOOK_S)):
            if all(self._cluster.pod(one.uid) is not None for one in pods):
                return
            await asyncio.sleep(LOOK_S)

    def _pod(self, asked: PlanPod, room: RoomLeft) -> PodPlan:
        pod = self._cluster.pod(asked.uid)
        if pod is None:
            return PodPlan(asked.uid, reason="its pod had not been seen yet by the process that scores nodes")
        advice = self._prioritizer.advise(pod, room.candidates(asked.shape))
        if advice.listed:
            room.take(asked.shape, advice.listed[0][0])
        return PodPlan(asked.uid, advice.listed, str(advice.reason), self._cluster.is_ours(pod))
