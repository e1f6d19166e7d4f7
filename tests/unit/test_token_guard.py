"""Who is let in by the token: as a bearer everywhere, as a password only where nothing is changed."""

from __future__ import annotations

import base64

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from scheduler.edge.json_api import guarded, refused


def call(method: str, authorization: str) -> Request:
    headers = [(b"authorization", authorization.encode())] if authorization else []
    return Request({"type": "http", "method": method, "path": "/", "headers": headers})


def basic(password: str, user: str = "me") -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


async def answered(method: str, authorization: str, token: str = "se:cret") -> int:
    """The status; whoever is refused must be told how to go about it, or no browser asks for a password."""

    async def handler(_request: Request) -> Response:
        return Response("yes")

    try:
        answer = await guarded(handler, token)(call(method, authorization))
    except HTTPException as error:
        answer = await refused(call(method, ""), error)
    assert answer.status_code == 200 or answer.headers["www-authenticate"].startswith("Basic")
    return answer.status_code


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_the_bearer_token_opens_everything(method: str) -> None:
    assert await answered(method, "Bearer se:cret") == 200


@pytest.mark.parametrize(("method", "status"), [("GET", 200), ("HEAD", 200), ("POST", 401), ("DELETE", 401)])
async def test_a_password_opens_what_only_reads(method: str, status: int) -> None:
    assert await answered(method, basic("se:cret")) == status


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer other",
        "se:cret",
        "Basic",
        "Basic !!",
        "Basic /w==",
        basic(""),
        basic("x"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_nothing_else_opens_anything(method: str, authorization: str) -> None:
    assert await answered(method, authorization) == 401


async def test_where_there_is_no_token_everybody_is_let_in() -> None:
    assert await answered("POST", "", token="") == 200
