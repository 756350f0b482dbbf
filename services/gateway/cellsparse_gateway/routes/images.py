"""Images of projects, and their tiles."""

import zlib
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from cellsparse_gateway.answers import (
    Axes,
    Id,
    OptionalId,
    PageSize,
    PageToken,
    Whole,
    accepts,
    message_answer,
    nothing,
)
from cellsparse_gateway.calls import ASK_SECONDS, WORK_SECONDS, Orchestrator
from cellsparse_gateway.schemas import FILE, Schemas, answers, list_of, takes_file
from cellsparse_gateway.thumbnails import thumbnail
from cellsparse_gateway.uploads import stream_up
from cellsparse_proto.v1 import project_pb2

MOST = 999_999_999
ChannelNames = Annotated[
    list[Annotated[str, Field(max_length=64)]] | None,
    Query(max_length=16, description="Names of the image's channels in their order; none: as the file says."),
]
Series = Annotated[int | None, Query(ge=0, le=MOST, description="Which image of a file that holds several, from 0.")]
Time = Annotated[int | None, Query(ge=0, le=MOST, description="Which time point of a TIFF or OME-Zarr, from 0.")]
Z = Annotated[int | None, Query(ge=0, le=MOST, description="Which plane of a stack, from 0; none: the whole stack.")]
Stored = Annotated[
    str,
    Query(
        pattern="^([A-Za-z0-9_][A-Za-z0-9._ =+/-]{0,499})?$",
        description="Path of an OME-Zarr image below imports/ in the object store, such as plate-1/field-3.zarr.",
    ),
]
FOR_EVER = "private, max-age=31536000, immutable"
Level = Annotated[int, Path(ge=0, le=31, description="0 is the full resolution.")]
Column = Annotated[int, Path(ge=0, le=2**32 - 1)]
Row = Annotated[int, Path(ge=0, le=2**32 - 1)]
PIXELS = answers(FILE, media="application/octet-stream")


def router(orchestrator: Orchestrator, schemas: Schemas) -> APIRouter:
    """Return the routes of images."""
    routes = APIRouter(tags=["images"])
    image_schema = schemas.ref(project_pb2.ProjectImage)

    @routes.get("/projects/{project}/images", responses=answers(list_of("images", image_schema)))
    def list_images(project: Id, page_size: PageSize = 0, page_token: PageToken = "") -> Response:
        """List a project's images in the order in which they were added."""
        page = {"page_size": page_size, "page_token": page_token}
        request = project_pb2.ListImagesRequest(project_id=project, page=page)
        return message_answer(orchestrator.projects.ListImages(request, timeout=ASK_SECONDS))

    @routes.post(
        "/projects/{project}/images",
        status_code=201,
        responses=answers(image_schema, 201),
        openapi_extra=takes_file(),
    )
    async def add_image(
        request: Request,
        project: Id,
        name: Annotated[str, Query(min_length=1, max_length=200)],
        axes: Axes = "",
        channels: ChannelNames = None,
        series: Series = None,
        time: Time = None,
        z: Z = None,
        stored: Stored = "",
    ) -> Response:
        """Add an image. The body is the file: TIFF, OME-TIFF, PNG, JPEG, or a zip of an OME-Zarr image.

        A file that holds several images needs `series`, a time series `time`: one such as 3. `z` takes one plane.
        With `stored` the body is empty: the image is an OME-Zarr in the object store, read there chunk by chunk.
        """
        header = project_pb2.AddImageHeader(
            project_id=project, name=name, axes=axes, channels=channels, series=series, time=time, z=z, stored=stored
        )
        if stored:
            return message_answer((await run_in_threadpool(_add_stored, orchestrator, header)).image, 201)
        answer = await stream_up(request, orchestrator.projects.AddImage, project_pb2.AddImageRequest, header)
        return message_answer(answer.image, 201)

    @routes.get("/images/{image}", responses=answers(image_schema))
    def get_image(image: Id) -> Response:
        """Answer one image."""
        request = project_pb2.GetImageRequest(image_id=image)
        return message_answer(orchestrator.projects.GetImage(request, timeout=ASK_SECONDS).image)

    @routes.delete("/images/{image}", status_code=204, responses=answers(None, 204))
    def delete_image(image: Id) -> Response:
        """Delete an image with its annotation and layers."""
        orchestrator.projects.DeleteImage(project_pb2.DeleteImageRequest(image_id=image), timeout=ASK_SECONDS)
        return nothing()

    @routes.get("/images/{image}/thumbnail", responses=answers(FILE, media="image/png"))
    def get_thumbnail(request: Request, image: Id, size: Annotated[int, Query(ge=16, le=1024)] = 256) -> Response:
        """Answer a small picture of an image, its channels in colours, with the first contrast."""
        tag = f'"{image}-{size}"'
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers={"ETag": tag, "Cache-Control": FOR_EVER})
        data = thumbnail(orchestrator, image, size)
        return Response(data, media_type="image/png", headers={"ETag": tag, "Cache-Control": FOR_EVER})

    @routes.get("/images/{image}/tiles/{level}/{x}/{y}", responses=PIXELS)
    def get_tile(
        request: Request, image: Id, level: Level, x: Column, y: Row, channel: Whole = 0, plane: Whole = 0
    ) -> Response:
        """Answer pixels, row by row, little endian, of the image's dtype."""
        place = {"level": level, "x": x, "y": y, "plane": plane}
        ask = project_pb2.GetImageTileRequest(image_id=image, place=place, channel=channel)
        tag = f'"{image}-{level}-{x}-{y}-{channel}-{plane}"'
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers={"ETag": tag, "Cache-Control": FOR_EVER})
        tile = orchestrator.projects.GetImageTile(ask, timeout=ASK_SECONDS)
        headers = {"ETag": tag, "Cache-Control": FOR_EVER}
        return _tile(request, tile, headers)

    @routes.get(
        "/images/{image}/labels/tiles/{level}/{x}/{y}",
        responses={**PIXELS, 204: {"description": "All label numbers are 0."}},
    )
    def get_label_tile(
        request: Request, image: Id, level: Level, x: Column, y: Row, plane: Whole = 0, layer: OptionalId = ""
    ) -> Response:
        """Answer label numbers, row by row, little-endian uint32: 0 not labelled, 1 background, n + 1 cell n."""
        place = {"level": level, "x": x, "y": y, "plane": plane}
        ask = project_pb2.GetLabelTileRequest(image_id=image, layer_id=layer, place=place)
        tile = orchestrator.projects.GetLabelTile(ask, timeout=ASK_SECONDS)
        tag = f'"{tile.revision}"'
        headers = {"X-Revision": str(tile.revision), "ETag": tag, "Cache-Control": "no-cache"}
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return _tile(request, tile, headers)

    return routes


def _add_stored(orchestrator: Orchestrator, header: project_pb2.AddImageHeader) -> project_pb2.AddImageResponse:
    requests = iter([project_pb2.AddImageRequest(header=header)])
    answer: project_pb2.AddImageResponse = orchestrator.projects.AddImage(requests, timeout=WORK_SECONDS)
    return answer


def _tile(request: Request, tile: "project_pb2.GetImageTileResponse", headers: dict[str, str]) -> Response:
    headers |= {"X-Tile-Height": str(tile.height), "X-Tile-Width": str(tile.width)}
    if not tile.data:
        return Response(status_code=204, headers=headers)
    headers["Vary"] = "Accept-Encoding"
    if accepts(request.headers, "deflate"):
        # HTTP's "deflate" is the zlib format, in which tiles come.
        return Response(
            tile.data, media_type="application/octet-stream", headers={**headers, "Content-Encoding": "deflate"}
        )
    return Response(zlib.decompress(tile.data), media_type="application/octet-stream", headers=headers)
