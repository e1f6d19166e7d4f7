"""Parts one minor version apart work together; further apart they refuse, and the doctor names it."""

from __future__ import annotations

import asyncio
import tomllib
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from model import protocol
from scheduler.config import Settings
from scheduler.core.plans import PATH, PlanPod, PlanRequest
from scheduler.core.queue.actions import ReleaseGang, ReleaseReceipt
from scheduler.core.queue.events import Estimate
from scheduler.edge.diagnosis import Finding, Level
from scheduler.edge.diagnosis_versions import versions
from scheduler.edge.exchange import Message, Receive, Scope, Send, respond
from scheduler.edge.facts import Asked, Facts
from scheduler.edge.hints import Hints
from scheduler.edge.predictions import CurrentModel
from scheduler.edge.versioned import VersionedApp

OURS = protocol.PROTOCOL


def test_the_protocol_version_is_the_minor_number_of_the_release() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["version"].split(".")[1] == str(OURS)


@pytest.mark.parametrize("theirs", [OURS - 1, OURS, OURS + 1, None])
def test_a_neighbour_and_who_names_no_version_are_understood(theirs: int | None) -> None:
    assert protocol.refusal("recorder", None if theirs is None else str(theirs)) == ""
    assert protocol.spoken(None) == OURS - 1


@pytest.mark.parametrize(
    ("ours", "theirs", "older"), [(1, 3, "recorder"), (4, 2, "caller"), (2, None, ""), (3, None, "")]
)
def test_who_is_too_far_away_hears_both_versions_and_what_to_upgrade(
    monkeypatch: pytest.MonkeyPatch, ours: int, theirs: int | None, older: str
) -> None:
    monkeypatch.setattr(protocol, "PROTOCOL", ours)
    why = protocol.refusal("recorder", None if theirs is None else str(theirs))
    assert bool(why) == bool(older)
    if older:
        assert f"recorder speaks protocol {ours}, the caller {theirs};" in why
        assert f"upgrade the {older}" in why


@pytest.mark.parametrize("nonsense", ["", "two", "-1", "1.5", "9" * 20, "²"])
def test_what_is_no_version_is_refused(nonsense: str) -> None:
    assert "must be a version" in protocol.refusal("recorder", nonsense)


async def answered(path: str, told: str | None) -> tuple[int, dict[str, str], bytes]:
    """What an app that answers 200 to everything answers as the recorder."""
    sent: list[Message] = []

    async def inner(_scope: Scope, _receive: Receive, send: Send) -> None:
        await respond(send, 200, b"{}")

    async def receive() -> Message:
        raise AssertionError("nothing is read")

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [] if told is None else [(protocol.HEADER.encode(), told.encode())]
    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": path, "headers": headers}
    await VersionedApp(inner, "recorder")(scope, receive, send)
    told_back = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], told_back, sent[1]["body"]


@pytest.mark.parametrize(
    ("path", "told", "status"),
    [
        ("/v1/history", None, 200),
        ("/v1/history", str(OURS + 1), 200),
        ("/v1/history", str(OURS + 2), 409),
        ("/v1/status", str(OURS + 2), 200),
        ("/metrics", str(OURS + 2), 200),
    ],
)
async def test_every_answer_names_our_version_and_how_a_part_is_can_be_asked_by_any(
    path: str, told: str | None, status: int
) -> None:
    found, headers, body = await answered(path, told)
    assert (found, headers[protocol.HEADER]) == (status, str(OURS))
    assert (b"speaks protocol" in body) == (status == 409)


async def test_a_controller_that_is_refused_names_its_version_and_releases_without_a_hint(
    caplog: pytest.LogCaptureFixture,
) -> None:
    named: list[str | None] = []

    async def refuse(request: web.Request) -> web.Response:
        named.append(request.headers.get(protocol.HEADER))
        return web.json_response({"error": "this extender speaks protocol 9"}, status=409)

    app = web.Application()
    app.router.add_post(PATH, refuse)
    async with TestServer(app) as extender:
        hints = Hints(
            str(extender.make_url("")),
            lambda _gangs: PlanRequest([], [], [], [PlanPod("u", 0)]),
            lambda _event: None,
            10.0,
        )
        asking = asyncio.create_task(hints.run())
        receipt = ReleaseReceipt(1.0, 0.25, 0.125, 0.5, 3, Estimate(1.0, 2.0, 3.0, "hint"), {"u": "node-01"})
        for _ in range(3):
            plans = await hints.of(ReleaseGang("gang", "ann", ("u",), receipt))
            assert plans["u"].nodes == []
            assert "speaks protocol 9" in plans["u"].reason
        asking.cancel()
    assert set(named) == {str(OURS)}
    assert caplog.text.count("gangs are released without a hint") == 1


def found_by_doctor(extender: int | None, recorder: int | None, predictor: int | None) -> list[Finding]:
    facts = Facts(
        settings=Settings(),
        now_s=0.0,
        extender=Asked(protocol_version=extender),
        recorder=Asked(protocol_version=recorder),
        model=CurrentModel("m", 2, 0.0, 1, protocol_version=predictor),
    )
    return list(versions(facts))


def test_the_doctor_names_parts_that_do_not_understand_one_another() -> None:
    assert found_by_doctor(OURS, OURS, OURS) == found_by_doctor(None, OURS, None) == []
    [under_way] = found_by_doctor(OURS, OURS + 1, OURS)
    assert (under_way.level, under_way.part) == (Level.NOTE, "versions")
    assert f"recorder {OURS + 1}" in under_way.sentence
    [apart] = found_by_doctor(OURS - 1, OURS + 1, OURS)
    assert apart.level is Level.PROBLEM
    assert f"extender ({OURS - 1}) and recorder ({OURS + 1})" in apart.sentence
    assert "predictor" not in apart.sentence
    [command] = found_by_doctor(None, None, OURS + 2)
    assert f"predictor ({OURS + 2}) and fairlane doctor ({OURS})" in command.sentence
