"""Histories are asked for in requests that fit, whatever users call their jobs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from scheduler.edge.estimates import Estimates
from scheduler.edge.http_server import listen, new_server
from scheduler.edge.recorder_client import RecorderClient


async def _history(request: Request) -> Response:
    """One run of every class and user that is asked for."""
    asked = request.query_params
    return JSONResponse(
        {f"{kind}{many}": {name: {"count": 1} for name in asked.getlist(kind)} for kind, many in KINDS}
    )


KINDS = (("class", "es"), ("user", "s"))


@asynccontextmanager
async def recorder() -> AsyncIterator[str]:
    """The URL of a server as ours are."""
    listening = listen("127.0.0.1", 0)
    listening.listen()  # who comes before it serves waits
    server = new_server(Starlette(routes=[Route("/v1/history", _history)]), signals=False)
    serving = asyncio.create_task(server.serve([listening]))
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = server.force_exit = True
        with contextlib.suppress(asyncio.CancelledError):
            await serving


async def test_long_names_in_any_writing_are_asked_for_one_request_after_the_other() -> None:
    classes = [f"{number:03}{'夜' * 250}" for number in range(50)]
    users = [f"{number:03}{'🚀' * 250}" for number in range(50)]
    async with recorder() as url, RecorderClient.connect(url, "") as client:
        answer = await client.histories(classes, users)
        assert (set(answer.classes), set(answer.users)) == (set(classes), set(users))
        assert (await client.histories([], [])).classes == {}


async def test_what_one_user_calls_his_jobs_keeps_nobody_from_his_history() -> None:
    async with recorder() as url, RecorderClient.connect(url, "") as client:
        estimates = Estimates(client)
        for number in range(49):
            estimates._want(f"{number:03}{'夜' * 250}")
        estimates._want("etl")
        await estimates._fetch(client)
        assert estimates.failure == ""
        assert estimates._known["etl"] is not None
