"""Asks a controller over HTTP, for the command line."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from model import protocol

TIMEOUT_S = 10.0


_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Past the environment's proxies, which are for the world outside, and are not to see the token."""


class ControllerError(Exception):
    """The controller could not be reached or refused; the message says why and what to do."""


class ControllerClient:
    """A controller at a base URL; `token` may be empty where the controller asks for none."""

    def __init__(self, url: str, token: str = "") -> None:
        self._url, self._token = url.rstrip("/"), token

    def queue(self, user: str | None = None, limit: int = 1000) -> dict[str, Any]:
        """`GET /v1/queue`."""
        query = {"limit": str(limit)} | ({"user": user} if user is not None else {})
        return self._ask("GET", f"/v1/queue?{urllib.parse.urlencode(query)}")

    def gang(self, uid: str) -> dict[str, Any]:
        """`GET /v1/gangs/UID`."""
        return self._ask("GET", f"/v1/gangs/{urllib.parse.quote(uid)}")

    def gang_named(self, namespace: str, name: str) -> dict[str, Any]:
        """`GET /v1/gangs?name=NAMESPACE/NAME`."""
        return self._ask("GET", f"/v1/gangs?{urllib.parse.urlencode({'name': f'{namespace}/{name}'})}")

    def usage(self, since_s: float, user: str | None = None) -> dict[str, Any]:
        """`GET /v1/usage`."""
        query = {"since": str(since_s)} | ({"user": user} if user is not None else {})
        return self._ask("GET", f"/v1/usage?{urllib.parse.urlencode(query)}")

    def promote(self, uid: str) -> dict[str, Any]:
        """`POST /v1/gangs/UID/promote`."""
        return self._ask("POST", f"/v1/gangs/{urllib.parse.quote(uid)}/promote")

    def _ask(self, method: str, path: str) -> dict[str, Any]:
        if not self._url:
            raise ControllerError(
                "set controller_url (or FAIRLANE_CONTROLLER_URL), or pass --controller; with a release of the"
                " chart run it as `kubectl fairlane`"
            )
        headers = dict([protocol.own()])
        if not self._token.isprintable():  # the refusal of the client would repeat it
            raise ControllerError("the token has a line break or another character that no header can have")
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            request = urllib.request.Request(self._url + path, headers=headers, method=method)
            with _OPENER.open(request, timeout=TIMEOUT_S) as answer:
                told: dict[str, Any] = json.load(answer)
        except urllib.error.HTTPError as error:
            raise ControllerError(f"the controller answered {error.code}: {_why(error)}") from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise ControllerError(f"the controller at {self._url} cannot be reached: {error}") from error
        return told


def _why(error: urllib.error.HTTPError) -> str:
    try:
        content = error.read(10_000)
    except (OSError, http.client.HTTPException):
        return error.reason
    try:
        return str(json.loads(content)["error"])
    except (ValueError, KeyError, TypeError):
        return content[:200].decode(errors="replace")
