"""The page, the documentation, and the description of the API: files that the server sends."""

from pathlib import Path
from typing import Any

from fastapi import FastAPI, Response
from fastapi.responses import FileResponse, RedirectResponse
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from cellsparse_gateway.middleware import SWAGGER_POLICY
from cellsparse_gateway.problems import Problem

STATIC = Path(__file__).parent / "static"
API_PAGE = Path(__file__).parent / "api_page"
BUILT_DOCS = Path(__file__).parents[3] / "out" / "docs"
"""Where `make docs` puts the documentation, seen from a checkout."""


class _Files(StaticFiles):
    """Files that browsers ask about again each time, as they change with an update of the server."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        return response


def mount_pages(app: FastAPI, docs: Path | None) -> None:
    """Add the page at `/`, its files at `/static/`, and the documentation at `/docs/`.

    Args:
        app: The application.
        docs: Folder of the built documentation; None: where a checkout has it.
    """

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def index() -> Response:
        if not (STATIC / "index.html").is_file():
            raise Problem(404, "This build has no page; the API is at /api/v1/.")
        return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})

    @app.get("/favicon.ico", include_in_schema=False)
    async def icon() -> Response:
        files: list[Any] = [STATIC / name for name in ("favicon.svg", "favicon.ico") if (STATIC / name).is_file()]
        return FileResponse(files[0]) if files else Response(status_code=204)

    @app.get("/api/v1/docs", include_in_schema=False)
    async def api_page() -> Response:
        return FileResponse(API_PAGE / "index.html", headers={"Content-Security-Policy": SWAGGER_POLICY})

    app.mount("/api/v1/docs", _Files(directory=API_PAGE), name="api-page")
    app.mount("/static", _Files(directory=STATIC, check_dir=False), name="static")
    folder = docs or BUILT_DOCS
    if (folder / "index.html").is_file():
        app.mount("/docs", _Files(directory=folder, html=True), name="docs")
    else:

        @app.get("/docs/{_:path}", include_in_schema=False)
        async def no_docs() -> Response:
            raise Problem(
                404,
                "This server has no documentation: `make docs` builds it, CELLSPARSE_GATEWAY_DOCS names its folder.",
            )

    @app.get("/docs", include_in_schema=False)
    async def docs_folder() -> Response:
        return RedirectResponse("/docs/")
