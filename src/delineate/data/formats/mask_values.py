"""What the values in other people's masks mean."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from delineate.data import png
from delineate.data.dataset import DatasetInfo
from delineate.data.formats.naming import id_of, ids_by_name
from delineate.data.formats.settings import LabelFormat
from delineate.data.images import decode_image
from delineate.data.masks import decode_mask, read_mask_bytes, read_palette
from delineate.data.palette import Colour, voc_colours
from delineate.errors import MaskError
from delineate.types import LabelMap

VOC_VOID = 255
VOC_CLASSES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)


def to_labels(
    mask: Path, mask_format: LabelFormat, info: DatasetInfo, values: Mapping[int, str] | None = None
) -> LabelMap:
    """Read a mask of ``mask_format`` as class ids (H, W).

    - ``class-id``: values or palette indices are ids.
    - ``voc``: an indexed PNG in PASCAL VOC colours, or the same as true colour. What counts is
      the colour, because tools that save a smaller palette renumber it; a palette of other
      colours is taken as ids.
    - ``rgb``: true colours or a palette of any order; each colour is a class of
      ``info.colours``.
    - ``values``: grey values, each the class that ``values`` names.
    - ``binary``: 0 and 255, or 0 and 1, become 0 and 1; the ignore index stays.

    Whether ids have a class is not checked here.

    Raises:
        MaskError: the file cannot be read or has values that the format does not have.
    """
    match mask_format:
        case "voc":
            return _voc(mask, info)
        case "rgb":
            return _rgb(mask, info)
        case "values":
            return _values(mask, info, values or {})
        case "binary":
            return _binary(mask, info)
        case _:
            return decode_mask(read_mask_bytes(mask), str(mask))


def _rgb(mask: Path, info: DatasetInfo) -> LabelMap:
    id_of_colour = {colour: index for index, colour in enumerate(info.colours or ())}
    pixels = decode_image(read_mask_bytes(mask), str(mask))
    if pixels.dtype != np.uint8 or pixels.shape[2] not in (1, 3):
        raise MaskError(
            f"has {pixels.shape[2]} channels of {pixels.dtype}, and a mask of colours has 3 of "
            "uint8",
            where=mask,
            mend="Save it as an RGB PNG; class ids are imported with --format class-id.",
        )
    return _from_colours(
        np.repeat(pixels, 4 - pixels.shape[2], 2)[:, :, :3], id_of_colour, str(mask)
    )


def _values(mask: Path, info: DatasetInfo, values: Mapping[int, str]) -> LabelMap:
    data, where = read_mask_bytes(mask), str(mask)
    labels = _grey_of_colour(data, where)
    if labels is None:
        labels = decode_mask(data, where)
    found, counts = np.unique(labels, return_counts=True)
    strange = {int(v): int(n) for v, n in zip(found, counts, strict=True) if int(v) not in values}
    if strange:
        listed = ", ".join(f"{value} ({pixels} px)" for value, pixels in list(strange.items())[:8])
        raise MaskError(
            f"has {len(strange)} value{'s' if len(strange) > 1 else ''} without a class: {listed}"
            f"{', ...' if len(strange) > 8 else ''}",
            where=where,
            mend="Add them to --values; values between two classes come from smoothing, and the "
            "mask must be exported without.",
        )
    ids = ids_by_name(info)
    table = np.zeros(65536, np.uint16)
    for value, name in values.items():
        table[value] = id_of(name, ids, where)
    return _smallest(table[labels])


def _voc(mask: Path, info: DatasetInfo) -> LabelMap:
    data, where = read_mask_bytes(mask), str(mask)
    id_of = _ids_by_colour(info)
    if data.startswith(png.SIGNATURE):
        header = png.read_header(data[:33], where)
        if header.colour in (png.RGB, png.RGBA) and header.depth == 8:
            return _from_colours(decode_image(data, where), id_of, where)
        if header.colour == png.INDEXED:
            return _from_palette(decode_mask(data, where), read_palette(data), id_of, where)
    return decode_mask(data, where)


def _ids_by_colour(info: DatasetInfo) -> dict[Colour, int]:
    """Ids by colour: the classes' own colours first, then the VOC map with its void."""
    voc = voc_colours(256)
    id_of = {colour: index for index, colour in enumerate(info.colours or voc[: len(info.classes)])}
    if info.ignore_index is not None:
        id_of.setdefault(voc[VOC_VOID], info.ignore_index)
    for index, colour in enumerate(voc):
        id_of.setdefault(colour, index)
    return id_of


def _from_palette(
    indices: LabelMap, palette: list[Colour], id_of: dict[Colour, int], where: str
) -> LabelMap:
    used = np.unique(indices)
    if int(used[-1]) >= len(palette):
        raise MaskError(
            f"is damaged: it uses colour {used[-1]} of a palette of {len(palette)}",
            where=where,
            mend="Export the mask again.",
        )
    known = {int(i): id_of[palette[i]] for i in used if palette[i] in id_of}
    if all(index == wanted for index, wanted in known.items()):
        return indices
    if len(known) < len(used):
        strange = next(int(i) for i in used if int(i) not in known)
        moved = next(index for index, wanted in known.items() if index != wanted)
        raise MaskError(
            f"has a palette in which some colours are those of PASCAL VOC at other places (index "
            f"{moved} has the colour of class {known[moved]}) and others are unknown (index "
            f"{strange}: {palette[strange]})",
            where=where,
            mend="If the indices are the class ids, use --format class-id.",
        )
    table = np.zeros(256, np.uint16)
    for index, wanted in known.items():
        table[index] = wanted
    return _smallest(table[indices])


def _from_colours(
    pixels: UInt8[np.ndarray, "h w 3"], id_of: dict[Colour, int], where: str
) -> LabelMap:
    wide = pixels.astype(np.uint32)
    packed = wide[:, :, 0] << 16 | wide[:, :, 1] << 8 | wide[:, :, 2]
    colours, inverse, counts = np.unique(packed, return_inverse=True, return_counts=True)
    triples = [(int(c) >> 16, int(c) >> 8 & 255, int(c) & 255) for c in colours]
    strange = {t: int(n) for t, n in zip(triples, counts, strict=True) if t not in id_of}
    if strange:
        most = sorted(strange, key=lambda triple: -strange[triple])[:4]
        listed = ", ".join(f"{triple} {strange[triple]} px" for triple in most)
        raise MaskError(
            f"has {len(strange)} colour{'s' if len(strange) > 1 else ''} without a class: {listed}"
            f"{', ...' if len(strange) > 4 else ''}",
            where=where,
            mend="Give the colour of every class with --colours; colours that no class has come "
            "from smoothing or lossy compression, and the mask must be exported without.",
        )
    ids = np.array([id_of[triple] for triple in triples], np.uint16)
    return _smallest(ids[inverse.reshape(packed.shape)])


def _binary(mask: Path, info: DatasetInfo) -> LabelMap:
    data, where = read_mask_bytes(mask), str(mask)
    labels = _grey_of_colour(data, where)
    if labels is None:
        labels = decode_mask(data, where)
    ignore = info.ignore_index
    values = {int(v) for v in np.unique(labels)}
    allowed = {1} if 1 in values or ignore == 255 else {255}
    strange = sorted(values - {0} - allowed - {ignore})
    if strange:
        listed = ", ".join(str(value) for value in sorted(values)[:8])
        raise MaskError(
            f"has {len(values)} values ({listed}{', ...' if len(values) > 8 else ''}), and a "
            "binary mask has 0 and 255, or 0 and 1",
            where=where,
            mend="Use --format class-id if they are class ids; if they come from smoothing or "
            "resizing, export the mask without, or threshold it.",
        )
    binary: LabelMap = (labels != 0).astype(labels.dtype)
    if ignore is not None and ignore > 1:
        binary[labels == ignore] = ignore
    return binary


def _grey_of_colour(data: bytes, where: str) -> LabelMap | None:
    """The channel of an RGB PNG whose three are equal, as OpenCV users write masks."""
    if not data.startswith(png.SIGNATURE):
        return None
    header = png.read_header(data[:33], where)
    if header.colour not in (png.RGB, png.RGBA) or header.depth != 8:
        return None
    pixels = decode_image(data, where)
    if (pixels[:, :, :1] != pixels[:, :, 1:]).any():
        return None
    return np.ascontiguousarray(pixels[:, :, 0])


def _smallest(labels: LabelMap) -> LabelMap:
    return labels.astype(np.uint8) if int(labels.max()) < 256 else labels
