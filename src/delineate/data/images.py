"""Image files -> arrays. What a file is follows from its content, never from its name."""

from __future__ import annotations

import struct
from io import BufferedReader, BytesIO
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Shaped
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from delineate.data import png
from delineate.data.tiff import read_tiff, refuse_large, tiff_orientation, tiff_size, upright
from delineate.errors import ImageError
from delineate.types import Image

PIXEL_LIMIT = 2**28
"""Largest height times width that is read whole, unless told otherwise."""

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".svs"})
"""Lower-case suffixes of the files in a folder that count as images."""

_HEAD_BYTES = 64
_TIFFS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# (offset, bytes, what it is): formats that people do hand over and that are not read
_OTHERS = (
    (0, b"GIF8", "a GIF"),
    (4, b"ftyphei", "a HEIF photo"),
    (4, b"ftypmif", "a HEIF photo"),
    (4, b"ftypavif", "an AVIF image"),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 image"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (0, b"\xff\x0a", "a JPEG XL image"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"\x89HDF", "an HDF5 file"),
    (0, b"%PDF", "a PDF"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"8BPS", "a Photoshop file"),
)


def read_image(path: Path, *, pixel_limit: int = PIXEL_LIMIT) -> Image:
    """Read a JPEG, PNG, TIFF, WebP or BMP file.

    Orientation (EXIF, or the tag of a TIFF) is applied. CMYK becomes RGB, palettes become RGB,
    and grey of 1, 2 and 4 bits is spread over 0 to 255. An alpha channel that the format marks
    as alpha is dropped and the colour under it kept.

    Args:
        path: the file.
        pixel_limit: largest height times width; checked before anything is decoded.

    Returns:
        (H, W, C), contiguous and writable: ``uint8`` (0 to 255), ``uint16`` (0 to 65535) or
        ``float32`` (any range, finite), in RGB order where there is colour. Other integer types
        are converted if their values fit.

    Raises:
        ImageError: no such file, an unknown format, a damaged or truncated file, too many pixels,
            a stack, an animation, NaN or infinite values, a type whose values do not fit.
        MissingExtraError: a TIFF whose compression needs imagecodecs.
    """
    where = str(path)
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
            if sniff(head, where) == "TIFF":
                file.seek(0)
                return _finish(read_tiff(file, where, pixel_limit=pixel_limit), where)
            data = head + file.read()
    except OSError as error:
        raise unreadable(error, where) from error
    return decode_image(data, where, pixel_limit=pixel_limit)


def decode_image(data: bytes, name: str, *, pixel_limit: int = PIXEL_LIMIT) -> Image:
    """Decode the bytes of an image file, as :func:`read_image` does.

    Args:
        data: the whole file.
        name: what to call it in errors.
        pixel_limit: largest height times width.

    Raises:
        ImageError: as in :func:`read_image`.
        MissingExtraError: as in :func:`read_image`.
    """
    kind = sniff(data[:_HEAD_BYTES], name)
    if kind == "TIFF":
        return _finish(read_tiff(BytesIO(data), name, pixel_limit=pixel_limit), name)
    try:
        with _open(kind, BytesIO(data), name) as picture:
            refuse_large(picture.height, picture.width, name, pixel_limit)
            _refuse_animation(picture, kind, name)
            turn = _orientation(picture)
            if kind == "PNG":
                png.verify(data, name)
                pixels = _decode_png(data, picture, name)
            else:
                pixels = _to_pixels(picture, name)
    except ImageError:
        raise
    except Exception as error:  # a hostile file can make a decoder raise anything
        raise _damaged(error, kind, name) from error
    return _finish(upright(pixels, turn), name)


def orientation(data: bytes, name: str) -> int:
    """The orientation tag of an image file's bytes, 1 to 8; 1 where there is none.

    Raises:
        ImageError: an unknown format or a damaged header.
    """
    kind = sniff(data[:_HEAD_BYTES], name)
    try:
        if kind == "TIFF":
            return tiff_orientation(BytesIO(data))
        with _open(kind, BytesIO(data), name) as picture:
            return _orientation(picture)
    except ImageError:
        raise
    except Exception as error:
        raise _damaged(error, kind, name) from error


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) in pixels of what :func:`read_image` would give, from the header alone.

    Raises:
        ImageError: no such file, an unknown format or a damaged header.
    """
    where = str(path)
    try:
        with path.open("rb") as file:
            kind = sniff(file.read(_HEAD_BYTES), where)
            file.seek(0)
            if kind == "TIFF":
                return tiff_size(path)
            with _open(kind, file, where) as picture:
                swapped = _orientation(picture) > 4
                width, height = picture.size
                return (width, height) if swapped else (height, width)
    except ImageError:
        raise
    except OSError as error:
        raise unreadable(error, where) from error
    except Exception as error:
        raise _damaged(error, kind, where) from error


def fit_channels(image: Image, channels: int, where: str) -> Shaped[np.ndarray, "h w k"]:
    """``image`` with as many channels as a model takes: one is repeated into three.

    Args:
        image: (H, W, C).
        channels: the number wanted.
        where: the name of the image for the error.

    Raises:
        ImageError: the number differs otherwise.
    """
    found = image.shape[2]
    if found == channels:
        return image
    if found == 1 and channels == 3:
        return np.repeat(image, 3, axis=2)
    raise ImageError(
        f"has {found} channel{'s' if found > 1 else ''} and {channels} "
        f"{'are' if channels > 1 else 'is'} wanted",
        where=where,
        mend=f"Give images of {channels} channel{'s' if channels > 1 else ''}.",
    )


def sniff(head: bytes, where: str) -> str:
    """The format (JPEG, PNG, TIFF, WebP or BMP) from the first bytes of a file.

    Raises:
        ImageError: the file is empty or of another format, which is named if it is known.
    """
    if not head:
        raise ImageError("is empty (0 bytes)", where=where, mend="Fetch or export the file again.")
    if head.startswith(png.SIGNATURE):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(_TIFFS):
        return "TIFF"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[:2] == b"BM" and len(head) > 18 and head[14:18] in _BMP_HEADERS:
        return "BMP"
    raise ImageError(
        f"is {_name_of(head)}, not an image that can be read",
        where=where,
        mend="Convert it to PNG, TIFF, JPEG, WebP or BMP.",
    )


def unreadable(error: OSError, where: str) -> ImageError:
    """The error for a file that the system does not hand over."""
    if isinstance(error, FileNotFoundError):
        return ImageError("no such file", where=where)
    if isinstance(error, IsADirectoryError):
        return ImageError("is a folder, not an image", where=where)
    return ImageError(f"cannot be read ({error.strerror or error})", where=where)


_BMP_HEADERS = tuple(struct.pack("<I", size) for size in (12, 16, 40, 52, 56, 64, 108, 124))


def _name_of(head: bytes) -> str:
    for offset, magic, name in _OTHERS:
        if head[offset:].startswith(magic):
            return name
    if head.lstrip()[:5].lower() in (b"<!doc", b"<html"):
        return "a web page (HTML)"
    if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head):
        return f"text (it starts with {head[:20].decode()!r})"
    return f"of an unknown format (it starts with the bytes {head[:8].hex(' ')})"


def _open(kind: str, file: BytesIO | BufferedReader, where: str) -> ImageFile:
    # The classes themselves rather than PIL.Image.open: no process-wide limit on pixels, no
    # guessing of formats, and a phone's multi-picture JPEG stays its first picture.
    try:
        match kind:
            case "PNG":
                start = file.tell()
                png.read_header(file.read(33), where)
                file.seek(start)
                return PngImageFile(file)
            case "JPEG":
                return JpegImageFile(file)
            case "WebP":
                return WebPImageFile(file)
            case _:
                return BmpImageFile(file)
    except ImageError:
        raise
    except Exception as error:
        raise _damaged(error, kind, where) from error


def _damaged(error: Exception, kind: str, where: str) -> ImageError:
    return ImageError(
        f"is a damaged or truncated {kind} ({error})",
        where=where,
        mend="Fetch or export the file again.",
    )


def _refuse_animation(picture: ImageFile, kind: str, where: str) -> None:
    frames = getattr(picture, "n_frames", 1)
    if frames > 1:
        raise ImageError(
            f"is an animated {kind} of {frames} frames",
            where=where,
            mend="Save each of its frames as an image.",
        )


def _orientation(picture: ImageFile) -> int:
    """The orientation tag (274) of the EXIF data, 1 where there is none or it is damaged."""
    exif = picture.info.get("exif")
    if not isinstance(exif, bytes):
        return 1
    # read here because Pillow warns about, or fails on, other damaged fields
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    try:
        if order is None:
            return 1
        (at,) = struct.unpack_from(f"{order}I", exif, 4)
        (fields,) = struct.unpack_from(f"{order}H", exif, at)
        for index in range(fields):
            tag, kind, count, value = struct.unpack_from(f"{order}HHIH", exif, at + 2 + 12 * index)
            if (tag, kind, count) == (274, 3, 1):
                return int(value) if 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1


def _decode_png(data: bytes, picture: ImageFile, where: str) -> Image:
    header = png.read_header(data[:33], where)
    if header.depth < 16:
        return _to_pixels(picture, where)
    # Pillow reads 16-bit colour as 8 bit
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None or decoded.dtype != np.uint16:
        raise ImageError(
            "is a damaged PNG: its pixels end early",
            where=where,
            mend="Fetch or export the file again.",
        )
    if header.colour in (png.GREY, png.GREY_ALPHA):
        return decoded.reshape(header.height, header.width, -1)[:, :, :1]
    return decoded[:, :, 2::-1]  # blue, green, red and perhaps alpha -> red, green, blue


def _to_pixels(picture: ImageFile, where: str) -> Image:
    match picture.mode:
        case "1":
            return np.array(picture, np.uint8)[:, :, None] * np.uint8(255)
        case "L":
            return np.array(picture)[:, :, None]
        case "LA":
            return np.array(picture)[:, :, :1]
        case "RGB":
            return np.array(picture)
        case "RGBA":
            return np.array(picture)[:, :, :3]
        case "CMYK":
            return np.array(picture.convert("RGB"))
        case "P":
            indices = np.array(picture)
            palette = np.asarray(picture.getpalette("RGB"), np.uint8).reshape(-1, 3)
            largest = int(indices.max())
            if largest >= len(palette):
                raise ImageError(
                    f"is damaged: it uses colour {largest} of a palette of {len(palette)}",
                    where=where,
                    mend="Export the file again.",
                )
            coloured: Image = palette[indices]
            return coloured
        case mode:
            raise ImageError(
                f"has pixels of the kind {mode}, which is not read",
                where=where,
                mend="Save it as 8-bit RGB or grey.",
            )


def _finish(pixels: Image, where: str) -> Image:
    pixels = _supported_type(pixels, where)
    if pixels.dtype == np.float32:
        finite = np.isfinite(pixels)
        if not finite.all():
            bad = finite.size - int(finite.sum())
            raise ImageError(
                f"has {bad} value{'s' if bad > 1 else ''} of {finite.size} that "
                f"{'are' if bad > 1 else 'is'} NaN or infinite",
                where=where,
                mend="Replace them by a number, for example with numpy.nan_to_num.",
            )
    # the decoders' arrays may belong to a read-only buffer
    return np.require(pixels, requirements=["C", "W"])


def _supported_type(pixels: Image, where: str) -> Image:
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    kind, size = pixels.dtype.kind, pixels.dtype.itemsize
    if pixels.dtype in (np.uint8, np.uint16, np.float32):
        return pixels
    if kind == "f":
        if size == 2:
            return pixels.astype(np.float32)
        with np.errstate(over="ignore"):
            single = pixels.astype(np.float32)
        if np.array_equal(single, pixels, equal_nan=True):
            return single
        raise ImageError(
            f"has {pixels.dtype} values that float32 does not hold exactly",
            where=where,
            mend="Save it as float32, if the rounding is acceptable.",
        )
    if kind not in "iu":
        raise ImageError(
            f"has values of the type {pixels.dtype}",
            where=where,
            mend="Save it as uint8, uint16 or float32.",
        )
    low, high = int(pixels.min()), int(pixels.max())
    wanted = np.dtype(np.uint8) if size == 1 else np.dtype(np.uint16)
    if low < 0 or high > np.iinfo(wanted).max:
        raise ImageError(
            f"has {pixels.dtype} values from {low} to {high}, which {wanted} does not hold",
            where=where,
            mend="Save it as float32.",
        )
    return pixels.astype(wanted)
