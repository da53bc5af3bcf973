"""What OpenAPI says of the routes."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from delineate.serving.body import FIELD
from delineate.serving.problems import PROBLEM_TYPE, Problem


class ClassShare(BaseModel):
    """One class and how much of the image it covers."""

    id: int = Field(examples=[1])
    name: str = Field(examples=["tumour"])
    share: float = Field(description="of the pixels, 0 to 1", examples=[0.25])


class RegionRle(BaseModel):
    """COCO's compressed run-length encoding."""

    size: tuple[int, int] = Field(description="[height, width], pixels", examples=[[4, 4]])
    counts: str = Field(examples=["52203"])


class ClassRegion(BaseModel):
    """All pixels of one class."""

    model_config = ConfigDict(populate_by_name=True)

    class_id: int = Field(examples=[1])
    class_name: str = Field(alias="class", examples=["tumour"])
    area_px: int = Field(description="pixels", examples=[4])
    bbox: tuple[int, int, int, int] = Field(
        description="[left, top, width, height], pixels", examples=[[1, 1, 2, 2]]
    )
    segmentation: RegionRle


class Timing(BaseModel):
    """Milliseconds; ``encode`` is without writing this JSON, which ``Server-Timing`` includes."""

    queue: float = Field(description="waiting for a thread or the engine", examples=[0.2])
    decode: float = Field(examples=[4.1])
    infer: float = Field(examples=[38.0])
    encode: float = Field(examples=[1.3])


class Answer(BaseModel):
    """The segmentation of one image."""

    model: str = Field(examples=["tissue"])
    version: str = Field(examples=["1"])
    width: int = Field(description="pixels", examples=[4])
    height: int = Field(description="pixels", examples=[4])
    classes: list[ClassShare] = Field(description="every class of the model, by id")
    mean_confidence: float = Field(
        description="mean over the pixels of the largest probability, 0 to 1", examples=[0.97]
    )
    regions: list[ClassRegion] | None = Field(
        description="the classes that are present; null with rle=false"
    )
    timing_ms: Timing


class ModelClass(BaseModel):
    """A class and its colour."""

    id: int
    name: str
    colour: tuple[int, int, int] = Field(description="red, green, blue: 0 to 255")


class ModelInput(BaseModel):
    """The images that the model takes."""

    channels: int
    dtype: str = Field(description="pixel type", examples=["uint8"])
    multiple_of: int = Field(description="sizes that are multiples, in pixels, cost no padding")
    fixed_hw: tuple[int, int] | None = Field(
        description="the network's only size; other images go through it in tiles"
    )
    tile_px: int = Field(description="larger images are cut into overlapping tiles of this side")
    max_body_bytes: int
    pixel_limit: int = Field(description="largest height times width")


class ModelDescription(BaseModel):
    """The model that is served."""

    name: str
    version: str
    task: str
    classes: list[ModelClass]
    input: ModelInput


class Health(BaseModel):
    """The state of the server."""

    status: str = Field(examples=["ok"])


_IMAGE_TYPES = ("image/png", "image/jpeg", "image/tiff", "image/webp", "image/bmp")
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_ERRORS = {
    HTTPStatus.BAD_REQUEST: "The body is no image that can be read",
    HTTPStatus.NOT_ACCEPTABLE: "Accept takes neither application/json nor image/png",
    HTTPStatus.REQUEST_TIMEOUT: "The body came too slowly",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body or the image is too large",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "Content-Type is neither an image nor a form",
    HTTPStatus.UNPROCESSABLE_ENTITY: "The image does not fit the model, or an option is wrong",
    HTTPStatus.INTERNAL_SERVER_ERROR: "The server failed",
    HTTPStatus.SERVICE_UNAVAILABLE: "Too many requests wait; try again after Retry-After seconds",
}


def segment_responses() -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of ``POST /v1/segment``."""
    timing = {
        "description": "queue, decode, infer and encode in milliseconds",
        "schema": {"type": "string"},
        "example": "queue;dur=0.2, decode;dur=4.1, infer;dur=38.0, encode;dur=1.3",
    }
    responses: dict[int | str, dict[str, Any]] = {
        200: {
            "model": Answer,
            "description": "The label map: JSON, or an indexed PNG of class ids with the palette",
            "content": {"image/png": _BINARY},
            "headers": {"Server-Timing": timing},
        }
    }
    for status, description in _ERRORS.items():
        responses[int(status)] = problem_response(description)
    return responses


def problem_response(description: str) -> dict[str, Any]:
    """An error among the ``responses`` of a route."""
    return {
        "description": description,
        "content": {PROBLEM_TYPE: {"schema": Problem.model_json_schema()}},
    }


def segment_body() -> dict[str, Any]:
    """The ``requestBody`` of ``POST /v1/segment``, which is read as a stream."""
    form = {
        "type": "object",
        "required": [FIELD],
        "properties": {FIELD: {"type": "string", "format": "binary"}},
    }
    content: dict[str, Any] = dict.fromkeys(_IMAGE_TYPES, _BINARY)
    content["application/octet-stream"] = _BINARY
    content["multipart/form-data"] = {"schema": form}
    return {
        "required": True,
        "description": "An image file (PNG, JPEG, TIFF, WebP, BMP); what it is follows from its "
        "content, not from Content-Type.",
        "content": content,
    }
