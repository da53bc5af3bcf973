"""Label maps <-> single-channel PNG files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL.PngImagePlugin import PngImageFile

from delineate.data import png
from delineate.data.files import write_bytes
from delineate.data.images import PIXEL_LIMIT, sniff, unreadable
from delineate.data.palette import Colour, voc_colours
from delineate.data.tiff import read_tiff, refuse_large
from delineate.errors import ImageError, MaskError
from delineate.types import LabelMap

_SCALES = {2: 85, 4: 17}  # by which Pillow multiplies grey of 2 and 4 bits


def read_mask(path: Path) -> LabelMap:
    """Read a mask of class ids.

    An indexed PNG gives its palette indices, a grey PNG its values (0 and 1 for 1 bit, and
    likewise for 2 and 4), and a single-channel TIFF its values.

    Returns:
        (H, W) ``uint8``, or ``uint16`` where the file has 16 bits; contiguous and writable.

    Raises:
        MaskError: no such file, damaged, not single-channel, or of a format that loses ids.
    """
    return decode_mask(read_mask_bytes(path), str(path))


def read_mask_bytes(path: Path) -> bytes:
    """The whole file.

    Raises:
        MaskError: it is not there or cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise _as_mask_error(unreadable(error, str(path))) from error


def read_palette(data: bytes) -> list[Colour]:
    """The colours of an indexed PNG; entries that the file leaves out are not in the list."""
    with PngImageFile(io.BytesIO(data)) as picture:
        flat = picture.getpalette("RGB") or []
    return [(flat[i], flat[i + 1], flat[i + 2]) for i in range(0, len(flat) - 2, 3)]


def decode_mask(data: bytes, name: str) -> LabelMap:
    """The label map in the bytes of a mask file, as :func:`read_mask`.

    Raises:
        MaskError: as in :func:`read_mask`; ``name`` stands for the file.
    """
    try:
        match sniff(data[:64], name):
            case "PNG":
                labels = _decode_png(data, name)
            case "TIFF":
                labels = _decode_tiff(data, name)
            case kind:
                raise MaskError(
                    f"is a {kind}, and masks are PNG files",
                    where=name,
                    mend="Export the mask as an indexed or grey PNG; a lossy format changes ids.",
                )
    except ImageError as error:
        raise _as_mask_error(error) from error
    return np.require(labels, requirements=["C", "W"])


def encode_mask(labels: LabelMap, colours: Sequence[Colour]) -> bytes:
    """``labels`` as a PNG: indexed with ``colours`` where all ids are under 256, else grey 16 bit.

    Args:
        labels: (H, W) class ids.
        colours: colour of each id; ids beyond them take those of the PASCAL VOC map, in which 255
            is the pale void colour.
    """
    largest = int(labels.max()) if labels.size else 0
    if largest > 255:
        return png.encode_grey16(labels.astype(np.uint16, copy=False))
    palette = tuple(colours[:256])
    if largest >= len(palette):
        palette += voc_colours(largest + 1)[len(palette) :]
    return png.encode_indexed(labels.astype(np.uint8, copy=False), palette)


def write_mask(path: Path, labels: LabelMap, colours: Sequence[Colour]) -> None:
    """Write :func:`encode_mask` to ``path``, whole or not at all.

    Raises:
        OutputError: the folder cannot be written or the disk is full.
    """
    write_bytes(path, encode_mask(labels, colours))


def _decode_png(data: bytes, where: str) -> LabelMap:
    header = png.read_header(data[:33], where)
    refuse_large(header.height, header.width, where, PIXEL_LIMIT)
    if header.colour not in (png.GREY, png.INDEXED):
        article = "an" if header.depth == 8 else "a"
        raise MaskError(
            f"is {article} {header.depth}-bit {png.COLOUR_NAMES[header.colour]} PNG, and a mask "
            "has one channel of class ids",
            where=where,
            mend="If its colours stand for classes, import it with: "
            "delineate data import --format voc. Otherwise save one channel as grey.",
        )
    png.verify(data, where)
    if header.depth == 16:
        labels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if labels is None or labels.dtype != np.uint16:
            raise MaskError("is a damaged PNG: its pixels end early", where=where)
        return labels.reshape(header.height, header.width)
    try:
        with PngImageFile(io.BytesIO(data)) as picture:
            labels = np.array(picture).astype(np.uint8, copy=False)
    except Exception as error:  # a hostile file can make a decoder raise anything
        raise MaskError(
            f"is a damaged PNG ({error})", where=where, mend="Fetch or export the file again."
        ) from error
    if header.colour == png.GREY and header.depth in _SCALES:
        labels = labels // np.uint8(_SCALES[header.depth])
    return labels


def _decode_tiff(data: bytes, where: str) -> LabelMap:
    values = read_tiff(io.BytesIO(data), where, pixel_limit=PIXEL_LIMIT, values=True)
    if values.shape[2] != 1:
        raise MaskError(
            f"has {values.shape[2]} channels, and a mask has one of class ids",
            where=where,
            mend="Save the channel of the class ids as a grey PNG.",
        )
    labels = values[:, :, 0]
    low, high = labels.min(), labels.max()
    if labels.dtype.kind not in "iu" or low < 0 or high > 65535:
        raise MaskError(
            f"has {labels.dtype} values from {low} to {high}, and ids are whole numbers from 0 "
            "to 65535",
            where=where,
            mend="Save the class ids as an 8-bit or 16-bit grey PNG.",
        )
    return labels.astype(np.uint8 if labels.dtype.itemsize == 1 else np.uint16)


def _as_mask_error(error: ImageError) -> MaskError:
    return MaskError(
        error.found.replace("not an image", "not a mask"), where=error.where, mend=error.mend
    )
