"""The read-only page: who waits and why, who has what share, and how well placements were predicted.

Three files without anything from elsewhere; the script asks the JSON API that
serves it. Names and reasons come from users, so it only ever sets text.
"""

from __future__ import annotations

from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

PARTS = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def page_routes() -> list[Route]:
    """Routes of the page, to be served beside the controller's JSON API."""
    return [_route(path, name, kind) for path, (name, kind) in PARTS.items()]


def _route(path: str, name: str, kind: str) -> Route:
    content = files(__name__).joinpath(name).read_bytes()

    async def tell(_request: Request) -> Response:
        return Response(content, media_type=kind, headers=HEADERS)

    return Route(path, tell)
