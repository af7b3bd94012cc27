"""The API page of the local stack, at /docs: the OpenAPI document in Swagger UI, whose form signs and vends.

The browser signs with the access key that is typed into the page, as any AWS client would; the page itself holds no key, and
the API front lets it do nothing that it does not let everybody do. Assets come from the package, none from elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from aiohttp import web

from local import openapi
from local.template import Route

_FOLDER = Path(__file__).with_name("api_page")
_SWAGGER = _FOLDER / "node_modules/swagger-ui-dist"
_FILES = {
    "": _FOLDER / "index.html",
    "page.js": _FOLDER / "page.js",
    "page.css": _FOLDER / "page.css",
    "sigv4.js": _FOLDER / "sigv4.js",
    "swagger-ui.css": _SWAGGER / "swagger-ui.css",
    "swagger-ui-bundle.js": _SWAGGER / "swagger-ui-bundle.js",
    "favicon-32x32.png": _SWAGGER / "favicon-32x32.png",
}
_HEADERS = {
    # Swagger UI sets styles and shows its icons as data; it needs nothing else, and no other page may frame this one.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def api_page(routes: Iterable[Route]) -> list[web.RouteDef]:
    """The page's routes, for an application that serves the API at the same address."""
    document = openapi.document(routes)
    # Signed requests go where the page came from.
    document["servers"] = [{"url": "/", "description": "The local stack"}]

    async def redirect(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=308, headers={"Location": "/docs/"})

    async def serve(request: web.Request) -> web.StreamResponse:
        path = _FILES.get(request.match_info.get("file", ""))
        if path is None or not path.is_file():
            raise web.HTTPNotFound(text="No such file; `npm ci` in local/api_page brings Swagger UI", headers=_HEADERS)
        return web.FileResponse(path, headers=_HEADERS)

    async def describe(_request: web.Request) -> web.StreamResponse:
        return web.json_response(document, headers=_HEADERS)

    return [
        web.get("/docs", redirect),
        web.get("/docs/openapi.json", describe),
        web.get("/docs/{file:[a-z0-9.-]*}", serve),
    ]
