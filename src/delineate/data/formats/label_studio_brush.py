"""Label Studio's brush masks: run lengths packed into bits.

The format is that of ``@thi.ng/rle-pack``, which Label Studio uses for the red, green, blue and
alpha of a picture, row by row (``label_studio_converter/brush.py``): 32 bits for the number of
values, 5 for the bits of a value less 1, four times 4 for the bits of a run length less 1. Then
blocks: one bit that says whether the block repeats one value, two that choose among the four
sizes, that many bits for the block's length less 1, and the value or the values.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np
from jaxtyping import Bool

from delineate.errors import MaskError

_CHANNELS = 4
_ALPHA = 3

_Byte = Annotated[int, msgspec.Meta(ge=0, le=255)]


class _Bits:
    """Reads numbers of any bits, the highest bit first."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def read(self, bits: int) -> int:
        """The next number; IndexError beyond the end."""
        end = self._at + bits
        if end > 8 * len(self._data):
            raise IndexError
        first, last = self._at // 8, (end + 7) // 8
        number = int.from_bytes(self._data[first:last], "big") >> (8 * last - end)
        self._at = end
        return number & ((1 << bits) - 1)


def brush_bytes(rle: msgspec.Raw, where: str) -> bytes:
    """The list ``rle`` of the export as bytes.

    Raises:
        MaskError: it is no list of numbers from 0 to 255.
    """
    try:
        return bytes(msgspec.json.decode(rle, type=list[_Byte]))
    except msgspec.DecodeError as error:
        raise MaskError(
            "is a brush mask that is no list of bytes",
            where=where,
            mend="Export the annotations again.",
        ) from error


def decode_brush(data: bytes, hw: tuple[int, int], where: str) -> Bool[np.ndarray, "h w"]:
    """The pixels that a brush painted: those whose alpha is not 0.

    Args:
        data: from :func:`brush_bytes`.
        hw: height and width of the image in pixels.

    Raises:
        MaskError: it is cut off, or holds another number of pixels.
    """
    wanted = hw[0] * hw[1] * _CHANNELS
    try:
        return _decode(_Bits(data), wanted).reshape(*hw, _CHANNELS)[:, :, _ALPHA].copy()
    except IndexError:
        found = f"is a brush mask that ends early, after {len(data)} bytes"
    except ValueError as error:
        found = f"is a brush mask of {error} values, and {hw[1]} x {hw[0]} px have {wanted}"
    raise MaskError(found, where=where, mend="Paint it again, or export the annotations again.")


def _decode(bits: _Bits, wanted: int) -> Bool[np.ndarray, " v"]:
    """Which values are not 0; ValueError with their number where it is another than wanted."""
    count = bits.read(32)
    if count != wanted:
        raise ValueError(count)
    value_bits = bits.read(5) + 1
    sizes = [bits.read(4) + 1 for _ in range(4)]
    out = np.zeros(count, bool)
    at = 0
    while at < count:
        repeats = bits.read(1)
        end = at + 1 + bits.read(sizes[bits.read(2)])
        if end > count:
            raise ValueError(f"at least {end}")
        if repeats:
            out[at:end] = bits.read(value_bits) != 0
        else:
            for index in range(at, end):
                out[index] = bits.read(value_bits) != 0
        at = end
    return out
