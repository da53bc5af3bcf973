"""TIFF, BigTIFF and slides small enough to be read whole (TIFF 6.0, by tifffile)."""

from __future__ import annotations

import importlib.util
import math
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from jaxtyping import Shaped

from delineate.errors import ImageError, MissingExtraError, PixelLimitError
from delineate.types import Image

_ALPHAS = (1, 2)  # ExtraSamples: premultiplied and plain alpha
_MOST_CHANNELS = 16
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6
# its decoder gives RGB from YCbCr; other codecs give what is stored
_JPEG = "JPEG"
# files of slide scanners carry a thumbnail, a label and a macro photo beside the slide
_SLIDES = frozenset({"svs", "ndpi", "scn", "bif", "philips", "qpi", "avs", "ventana"})
_AXES = {"Z": "depth", "T": "time", "I": "images", "Q": "images", "R": "positions"}


def read_tiff(
    file: BytesIO | BufferedReader, where: str, *, pixel_limit: int, values: bool = False
) -> Image:
    """The first full-resolution image of a TIFF.

    Overviews, transparency masks and alpha samples are left out, and so are the label, thumbnail
    and macro images of a slide. The orientation tag is applied.

    Args:
        file: open for reading at its start.
        where: the name to use in errors.
        pixel_limit: largest height times width.
        values: leave palette indices and samples of 1, 2 and 4 bits as they are (for masks)
            rather than turning them into colours and full-range grey.

    Returns:
        (H, W, C) with 1 to 16 channels, of whatever type is stored.

    Raises:
        ImageError: a stack, a colour space that is not read, a damaged file, too many pixels.
        MissingExtraError: the compression needs imagecodecs.
    """
    try:
        with tifffile.TiffFile(file) as tif:
            series = _full_resolution(tif, where)
            height, width, _ = _shape(series, where)
            refuse_large(height, width, where, pixel_limit)
            _refuse_contradiction(series, where)
            _refuse_truncated(series, tif.filehandle.size, where)
            _refuse_colour_space(series.keyframe, where)
            samples = np.asarray(series.asarray())
            pixels = _to_pixels(_channels_last(samples, series), series.keyframe, values)
            return upright(pixels, _orientation(series.keyframe))
    except (ImageError, MissingExtraError):
        raise
    except Exception as error:  # a hostile file can make a decoder raise anything
        if "imagecodecs" in str(error) and importlib.util.find_spec("imagecodecs") is None:
            raise MissingExtraError("imagecodecs", "slides") from error
        raise ImageError(
            f"is a TIFF that cannot be decoded ({type(error).__name__}: {error})",
            where=where,
            mend="Fetch or export the file again.",
        ) from error


def tiff_size(path: Path) -> tuple[int, int]:
    """(height, width) of what :func:`read_tiff` reads, from the header alone.

    Raises:
        ImageError: the header is damaged or describes a stack.
    """
    where = str(path)
    try:
        with tifffile.TiffFile(path) as tif:
            series = _full_resolution(tif, where)
            height, width, _ = _shape(series, where)
            return (width, height) if _orientation(series.keyframe) > 4 else (height, width)
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(
            f"is a TIFF with a damaged header ({error})",
            where=where,
            mend="Fetch or export the file again.",
        ) from error


def tiff_orientation(file: BytesIO | BufferedReader) -> int:
    """The orientation tag of the first page, 1 where there is none."""
    with tifffile.TiffFile(file) as tif:
        return _orientation(tif.pages[0])


def refuse_large(height: int, width: int, where: str, pixel_limit: int) -> None:
    """Raise PixelLimitError when an image has more than ``pixel_limit`` pixels."""
    if height * width > pixel_limit:
        raise PixelLimitError(
            f"is {width} x {height} pixels (width x height), more than the limit of "
            f"{pixel_limit} pixels",
            where=where,
            mend="Cut it into parts. The limit of delineate serve and of read_image is a "
            f"setting, which would have to be {height * width}.",
        )


def upright(pixels: Image, orientation: int) -> Shaped[np.ndarray, "h2 w2 c"]:
    """Undo an orientation of 1 to 8 as EXIF 2.32 and TIFF 6.0 number them; others do nothing."""
    match orientation:
        case 2:
            return pixels[:, ::-1]
        case 3:
            return pixels[::-1, ::-1]
        case 4:
            return pixels[::-1]
        case 5:
            return pixels.swapaxes(0, 1)
        case 6:
            return pixels[::-1].swapaxes(0, 1)
        case 7:
            return pixels[::-1, ::-1].swapaxes(0, 1)
        case 8:
            return pixels[:, ::-1].swapaxes(0, 1)
        case _:
            return pixels


def _full_resolution(tif: Any, where: str) -> Any:
    every = list(tif.series)
    if not every:
        raise ImageError("is a TIFF without an image", where=where)
    if every[0].kind in _SLIDES:
        return every[0]
    full = [s for s in every if not (s.keyframe.is_reduced or s.keyframe.is_mask)]
    if len(full) > 1:
        sizes = ", ".join("x".join(str(n) for n in series.shape) for series in full[:4])
        raise ImageError(
            f"is a TIFF of {len(full)} images ({sizes}{', ...' if len(full) > 4 else ''})",
            where=where,
            mend="Save each image as a file of its own.",
        )
    return full[0] if full else every[0]


def _shape(series: Any, where: str) -> tuple[int, int, int]:
    """(height, width, channels); refuses what is not one image of 1 to 16 channels."""
    sizes = dict(zip(series.axes, series.shape, strict=True))
    inner = {axis: n for axis, n in sizes.items() if n > 1 and axis not in "YX"}
    if "Y" not in sizes or "X" not in sizes or set(inner) - {"S", "C"} or len(inner) > 1:
        stack = ", ".join(
            f"{axis} ({_AXES[axis]}) {n}" if axis in _AXES else f"{axis} {n}"
            for axis, n in sizes.items()
        )
        raise ImageError(
            f"is a TIFF stack with the axes {stack}",
            where=where,
            mend="Save each plane as a file of its own, with its channels as samples of the "
            "pixel: tifffile.imwrite(path, hwc, planarconfig='contig', photometric='minisblack').",
        )
    if not sizes["Y"] or not sizes["X"]:
        raise ImageError("is a TIFF without pixels", where=where)
    channels = next(iter(inner.values()), 1)
    if channels > _MOST_CHANNELS:
        raise ImageError(
            f"has {channels} channels",
            where=where,
            mend=f"Choose {_MOST_CHANNELS} of them or fewer.",
        )
    return int(sizes["Y"]), int(sizes["X"]), int(channels)


def _refuse_contradiction(series: Any, where: str) -> None:
    """The description, which decides the shape, and the pages must agree about it."""
    described = math.prod(series.shape)
    stored = math.prod(series.keyframe.shape) * len(series.pages)
    if described != stored:
        raise ImageError(
            f"is a damaged TIFF: it describes {described} values and its pages hold {stored}",
            where=where,
            mend="Fetch or export the file again.",
        )


def _refuse_truncated(series: Any, file_size: int, where: str) -> None:
    """Compare the table of strips or tiles with the file: the library fills gaps with zeros.

    A part of length and offset zero is one that GDAL leaves out because it is empty.
    """
    for page in series.pages:
        if page is None:
            raise ImageError("is a TIFF that lacks some of its planes", where=where)
        offsets, lengths = page.dataoffsets, page.databytecounts
        expected = math.prod(series.keyframe.chunked)
        # uncompressed pixels in one piece may be listed as one part, however many the strips are
        enough = len(offsets) == expected or (len(offsets) == 1 and page.compression == 1)
        if len(offsets) != len(lengths) or not enough:
            raise ImageError(
                f"is a damaged TIFF: it lists {len(offsets)} parts of {expected}",
                where=where,
                mend="Fetch or export the file again.",
            )
        if any((at == 0) != (length == 0) for at, length in zip(offsets, lengths, strict=True)):
            raise ImageError(
                "is a damaged TIFF: a part of it has no place or no length",
                where=where,
                mend="Fetch or export the file again.",
            )
        end = max(at + length for at, length in zip(offsets, lengths, strict=True))
        if end > file_size:
            raise ImageError(
                f"is truncated: {file_size} bytes are there and its pixels end at {end}",
                where=where,
                mend="Fetch or export the file again.",
            )


def _refuse_colour_space(page: Any, where: str) -> None:
    colour = int(page.photometric)
    if page.compression.name == "OJPEG":
        raise ImageError(
            "is a TIFF with the old JPEG compression of 1992 (OJPEG)",
            where=where,
            mend="Save it again with another compression, for example Deflate.",
        )
    if colour in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE):
        return
    if colour == _YCBCR and page.compression.name == _JPEG:
        return
    if page.is_mask:
        return
    name = getattr(page.photometric, "name", str(colour))
    raise ImageError(
        f"is a TIFF in the colour space {name}", where=where, mend="Save it as RGB or as grey."
    )


def _channels_last(
    samples: Shaped[np.ndarray, "*axes"], series: Any
) -> Shaped[np.ndarray, "h w c"]:
    kept = [
        axis for axis, n in zip(series.axes, samples.shape, strict=True) if n > 1 or axis in "YX"
    ]
    shape = [n for axis, n in zip(series.axes, samples.shape, strict=True) if axis in kept]
    pixels = samples.reshape(shape)
    if pixels.ndim == 2:
        return pixels[:, :, None]
    channel = next(i for i, axis in enumerate(kept) if axis not in "YX")
    pixels = np.moveaxis(pixels, channel, 2)
    rows_first = [axis for axis in kept if axis in "YX"] == ["Y", "X"]
    return pixels if rows_first else pixels.swapaxes(0, 1)


def _to_pixels(
    pixels: Shaped[np.ndarray, "h w c"], page: Any, values: bool
) -> Shaped[np.ndarray, "h w c2"]:
    bits = page.bitspersample
    bits = int(bits if isinstance(bits, int) else bits[0])
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8)
    extra = [int(kind) for kind in page.extrasamples]
    first_extra = pixels.shape[2] - len(extra)
    alpha = {first_extra + i for i, kind in enumerate(extra) if kind in _ALPHAS}
    if alpha and first_extra > 0:
        pixels = pixels[:, :, [c for c in range(pixels.shape[2]) if c not in alpha]]
    if int(page.photometric) == _PALETTE and page.colormap is not None:
        # 16-bit entries of which files fill the upper byte
        colours = (np.asarray(page.colormap) >> 8).astype(np.uint8)  # (3, colours)
        return pixels if values else colours.T[pixels[:, :, 0]]
    if int(page.photometric) == _WHITE_IS_ZERO and pixels.dtype.kind == "u":
        pixels = np.array(2**bits - 1, pixels.dtype) - pixels
    if bits in (1, 2, 4) and pixels.dtype == np.uint8 and not values:
        pixels = pixels * np.uint8(255 // (2**bits - 1))
    return pixels


def _orientation(page: Any) -> int:
    tag = page.tags.get(274)
    return int(tag.value) if tag is not None and isinstance(tag.value, int) else 1
