"""A classical method in a bundle: ``method.json``, and arrays or a tree ensemble beside it.

Nothing is unpickled: settings are JSON and checked field by field, tables are an ``.npz`` without
objects, the forest is an ONNX file.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from delineate.config import Settings, describe
from delineate.engines.classical import (
    ColourPredictor,
    ForestPredictor,
    GrabCutPredictor,
    KMeansPredictor,
    MultiOtsuPredictor,
    OtsuPredictor,
    WatershedPredictor,
)
from delineate.engines.classical.colour import BINS
from delineate.engines.classical.forest import PER_SCALE, SCALES_PX
from delineate.errors import BundleError, MissingExtraError
from delineate.types import Predictor, PredictorSpec

METHOD, ARRAYS, FOREST = "method.json", "arrays.npz", "forest.onnx"

Channel = Literal["grey", "red", "green", "blue", "saturation"]
ClassId = Annotated[int, Field(ge=0)]
Blur = Annotated[float, Field(ge=0, description="sigma, pixels; 0 for none")]
Read = Callable[[str], bytes]


class Otsu(Settings):
    """Otsu's threshold on one channel."""

    method: Literal["otsu"] = "otsu"
    channel: Channel
    bright: bool = Field(description="whether the foreground is above the threshold")
    blur_px: Blur
    foreground: ClassId
    other: ClassId = Field(description="class of all other pixels")


class MultiOtsu(Settings):
    """Several thresholds on one channel."""

    method: Literal["multi-otsu"] = "multi-otsu"
    channel: Channel
    blur_px: Blur
    band_classes: tuple[ClassId, ...] = Field(min_length=2, max_length=5)


class Colour(Settings):
    """A table of colours, in ``arrays.npz``."""

    method: Literal["colour"] = "colour"
    blur_px: Blur


class KMeans(Settings):
    """Clusters in Lab, in ``arrays.npz``."""

    method: Literal["kmeans"] = "kmeans"
    blur_px: Blur


class GrabCut(Settings):
    """GrabCut from what a table of colours is sure of."""

    method: Literal["grabcut"] = "grabcut"
    blur_px: Blur
    iterations: int = Field(ge=1, le=100)
    foreground: ClassId


class Watershed(Settings):
    """A threshold whose borders move to ridges of the gradient."""

    method: Literal["watershed"] = "watershed"
    otsu: Otsu
    markers: Literal["distance", "gradient"]
    amount: float = Field(ge=0, description="depth in pixels, or share of flat pixels")


class Forest(Settings):
    """A random forest on filter responses, in ``forest.onnx``."""

    method: Literal["forest"] = "forest"
    columns: tuple[ClassId, ...] = Field(min_length=1, description="class of each column")


Method = Otsu | MultiOtsu | Colour | KMeans | GrabCut | Watershed | Forest
_METHOD: TypeAdapter[Method] = TypeAdapter(Annotated[Method, Field(discriminator="method")])


def stored(predictor: Predictor) -> dict[str, bytes]:
    """The files that :func:`restored` reads, by name.

    Args:
        predictor: one of :mod:`delineate.engines.classical`.
    """
    arrays: dict[str, np.ndarray] = {}
    files: dict[str, bytes] = {}
    method: Method
    match predictor:
        case OtsuPredictor():
            method = _otsu(predictor)
        case MultiOtsuPredictor(_, channel, blur_px, band_classes):
            method = MultiOtsu(channel=channel, blur_px=blur_px, band_classes=band_classes)
        case ColourPredictor(_, blur_px, table):
            method, arrays = Colour(blur_px=blur_px), {"table": table}
        case KMeansPredictor(_, blur_px, centres, table):
            method, arrays = KMeans(blur_px=blur_px), {"centres": centres, "table": table}
        case GrabCutPredictor(seeds, iterations, foreground):
            method = GrabCut(blur_px=seeds.blur_px, iterations=iterations, foreground=foreground)
            arrays = {"table": seeds.table}
        case WatershedPredictor(otsu, markers, amount):
            method = Watershed(otsu=_otsu(otsu), markers=markers, amount=amount)
        case ForestPredictor(_, model, columns):
            method, files = Forest(columns=columns), {FOREST: model}
        case _:
            raise TypeError(f"{type(predictor).__name__} is no classical method")
    if arrays:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        files[ARRAYS] = buffer.getvalue()
    return {METHOD: method.model_dump_json(indent=2).encode(), **files}


def _otsu(predictor: OtsuPredictor) -> Otsu:
    fields = ("channel", "bright", "blur_px", "foreground", "other")
    return Otsu(**{name: getattr(predictor, name) for name in fields})


def restored(
    read: Read, name: str, spec: PredictorSpec, where: str, *, threads: int | None = None
) -> Predictor:
    """The predictor of files that :func:`stored` made.

    Args:
        read: gives the content of a file of the bundle.
        name: of the file with the settings.
        spec: what the bundle takes and gives.
        where: the bundle, for messages.
        threads: of the forest; the other methods decide themselves.

    Raises:
        BundleError: a setting, a table or the forest is wrong.
        MissingExtraError: the method needs scikit-image, and it is not installed.
    """
    try:
        method = _METHOD.validate_json(read(name))
    except ValidationError as error:
        raise BundleError(f"{name} is wrong: {describe(error)}", where=where) from error
    _refuse_unknown_classes(method, len(spec.classes), name, where)
    _refuse_other_images(method, spec, name, where)
    spec = replace(spec, calls_in_flight=2)
    match method:
        case Otsu():
            return _as_otsu(method, spec)
        case MultiOtsu():
            return MultiOtsuPredictor(spec, method.channel, method.blur_px, method.band_classes)
        case Colour():
            return _colour(method.blur_px, spec, read, where)
        case KMeans():
            centres, table = _arrays(read, ("centres", "table"), where)
            clusters = centres.shape[0] if centres.ndim else 0
            _refuse_shape(centres, "centres", (clusters, spec.channels), where)
            _refuse_shape(table, "table", (clusters, len(spec.classes)), where)
            return KMeansPredictor(spec, method.blur_px, centres, table)
        case GrabCut():
            seeds = _colour(method.blur_px, spec, read, where)
            return GrabCutPredictor(seeds, method.iterations, method.foreground)
        case Watershed():
            return WatershedPredictor(_as_otsu(method.otsu, spec), method.markers, method.amount)
        case Forest():
            return _forest(method, spec, read, where, threads)


def _refuse_unknown_classes(method: Method, count: int, name: str, where: str) -> None:
    used: tuple[int, ...] = ()
    match method:
        case Otsu():
            used = (method.foreground, method.other)
        case MultiOtsu():
            used = method.band_classes
        case GrabCut():
            used = (method.foreground,)
        case Watershed():
            used = (method.otsu.foreground, method.otsu.other)
        case Forest():
            used = method.columns
    if any(index >= count for index in used):
        raise BundleError(
            f"{name} names class {max(used)}, and there are {count} classes", where=where
        )


def _refuse_other_images(method: Method, spec: PredictorSpec, name: str, where: str) -> None:
    channels = (3,) if isinstance(method, GrabCut) else (1, 3)
    if spec.dtype != "uint8" or spec.channels not in channels:
        raise BundleError(
            f"{name} holds {method.method}, which takes no {spec.dtype} with {spec.channels} "
            "channels",
            where=where,
        )
    if isinstance(method, GrabCut) and len(spec.classes) != 2:
        raise BundleError(f"{name} holds grabcut for {len(spec.classes)} classes", where=where)
    if isinstance(method, Watershed | MultiOtsu) and find_spec("skimage") is None:
        raise MissingExtraError("scikit-image", "classical")


def _as_otsu(method: Otsu, spec: PredictorSpec) -> OtsuPredictor:
    return OtsuPredictor(
        spec, method.channel, method.bright, method.blur_px, method.foreground, method.other
    )


def _colour(blur_px: float, spec: PredictorSpec, read: Read, where: str) -> ColourPredictor:
    (table,) = _arrays(read, ("table",), where)
    _refuse_shape(table, "table", (BINS**spec.channels, len(spec.classes)), where)
    return ColourPredictor(spec, blur_px, table)


def _forest(
    method: Forest, spec: PredictorSpec, read: Read, where: str, threads: int | None
) -> ForestPredictor:
    model = read(FOREST)
    try:
        found = ForestPredictor(spec, model, method.columns, threads)
        shape = found.shape
    except Exception as error:  # ONNX Runtime's errors have no common base
        raise BundleError(f"{FOREST} cannot be loaded ({error})", where=where) from error
    wanted = (spec.channels * len(SCALES_PX) * PER_SCALE, len(set(method.columns)))
    if shape != wanted or len(method.columns) != wanted[1]:
        raise BundleError(
            f"{FOREST} takes {shape[0]} features and tells {shape[1]} classes, not {wanted[0]} "
            f"and {wanted[1]}",
            where=where,
        )
    return found


def _arrays(read: Read, names: tuple[str, ...], where: str) -> list[np.ndarray]:
    content = io.BytesIO(read(ARRAYS))
    try:
        with np.load(content, allow_pickle=False) as found:
            return [found[name].astype(np.float32, casting="same_kind") for name in names]
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise BundleError(f"{ARRAYS} holds no such tables ({error})", where=where) from error


def _refuse_shape(array: np.ndarray, name: str, shape: tuple[int, ...], where: str) -> None:
    if array.shape != shape:
        raise BundleError(
            f"{name} in {ARRAYS} has the shape {array.shape}, not {shape}", where=where
        )
