"""The parts of the PNG format (ISO/IEC 15948) that image libraries hide.

Libraries skip the checksums of the pixels and hide bit depths; and none writes an indexed PNG of
large flat areas quickly.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt

from delineate.errors import ImageError

SIGNATURE = b"\x89PNG\r\n\x1a\n"

GREY, RGB, INDEXED, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
COLOUR_NAMES = {
    GREY: "grey",
    RGB: "RGB",
    INDEXED: "indexed",
    GREY_ALPHA: "grey and alpha",
    RGBA: "RGBA",
}


@dataclass(frozen=True)
class PngHeader:
    """What the header of a PNG says.

    Attributes:
        width: pixels.
        height: pixels.
        depth: bits of a sample: 1, 2, 4, 8 or 16.
        colour: one of GREY, RGB, INDEXED, GREY_ALPHA and RGBA.
    """

    width: int
    height: int
    depth: int
    colour: int


def read_header(head: bytes, where: str) -> PngHeader:
    """The header from the first 33 bytes of a PNG.

    Raises:
        ImageError: it is cut off or says something that no PNG can be.
    """
    if len(head) < 33 or head[12:16] != b"IHDR":
        raise ImageError("is a PNG without a header", where=where, mend=_FETCH_AGAIN)
    width, height, depth, colour = struct.unpack(">IIBB", head[16:26])
    if not width or not height or colour not in COLOUR_NAMES or depth not in (1, 2, 4, 8, 16):
        raise ImageError(
            f"is a PNG with a damaged header (width {width}, height {height}, {depth} bits, "
            f"colour type {colour})",
            where=where,
            mend=_FETCH_AGAIN,
        )
    return PngHeader(width, height, depth, colour)


def verify(data: bytes, where: str) -> None:
    """Check that every chunk is there with the right checksum and that the file shows one image.

    Raises:
        ImageError: the file ends early, a checksum differs, or it is animated.
    """
    view = memoryview(data)
    at = len(SIGNATURE)
    while True:
        if at + 12 > len(data):
            raise ImageError(
                f"is truncated: the PNG ends after {len(data)} bytes without its end mark",
                where=where,
                mend=_FETCH_AGAIN,
            )
        length = int.from_bytes(view[at : at + 4], "big")
        kind = bytes(view[at + 4 : at + 8])
        end = at + 12 + length
        if end > len(data):
            raise ImageError(
                f"is truncated: {len(data)} bytes are there and the PNG's {_printable(kind)} "
                f"chunk alone ends at {end}",
                where=where,
                mend=_FETCH_AGAIN,
            )
        if zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            raise ImageError(
                f"is damaged: the checksum of the PNG's {_printable(kind)} chunk at byte {at} "
                "is wrong",
                where=where,
                mend=_FETCH_AGAIN,
            )
        if kind == b"acTL" and length == 8 and int.from_bytes(view[at + 8 : at + 12], "big") > 1:
            raise ImageError(
                "is an animated PNG", where=where, mend="Save each of its frames as an image."
            )
        if kind == b"IEND":
            return
        at = end


def encode_indexed(
    labels: UInt[np.ndarray, "h w"], palette: Sequence[tuple[int, int, int]]
) -> bytes:
    """An indexed 8-bit PNG of ``labels``, which are uint8 and all below ``len(palette)``.

    Each row is stored as its difference from the row above, and only runs are searched for:
    label maps are flat, so that this is both the fastest and the smallest of zlib's settings.
    """
    plte = np.asarray(palette, np.uint8).tobytes()
    return _encode(labels, 8, INDEXED, _chunk(b"PLTE", plte))


def encode_grey16(labels: UInt[np.ndarray, "h w"]) -> bytes:
    """A 16-bit grey PNG of ``labels`` (uint16)."""
    return _encode(labels.astype(">u2", copy=False), 16, GREY, b"")


_FETCH_AGAIN = "Fetch or export the file again."
_UP = 2  # the filter: minus the byte above


def _encode(samples: UInt[np.ndarray, "h w"], depth: int, colour: int, extra: bytes) -> bytes:
    height, width = samples.shape
    pixels = np.ascontiguousarray(samples).view(np.uint8).reshape(height, width * depth // 8)
    rows = np.empty((height, 1 + pixels.shape[1]), np.uint8)
    rows[:, 0] = _UP
    rows[0, 1:] = pixels[0]
    np.subtract(pixels[1:], pixels[:-1], out=rows[1:, 1:])
    packer = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_RLE)
    packed = packer.compress(rows.data) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = (_chunk(b"IHDR", header), extra, _chunk(b"IDAT", packed), _chunk(b"IEND", b""))
    return SIGNATURE + b"".join(chunks)


def _chunk(kind: bytes, body: bytes) -> bytes:
    checksum = zlib.crc32(body, zlib.crc32(kind))
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


def _printable(kind: bytes) -> str:
    return kind.decode() if kind.isalpha() and kind.isascii() else repr(kind)
