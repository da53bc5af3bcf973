from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image as Pillow

from delineate.data.masks import encode_mask, read_mask, write_mask
from delineate.data.palette import default_colours, is_background, voc_colours
from delineate.errors import MaskError

SIZES = st.tuples(st.integers(1, 20), st.integers(1, 20))


def packed_grey(labels: np.ndarray, bits: int) -> bytes:
    """A grey PNG of 1, 2 or 4 bits, made by hand."""
    shifts = np.arange(bits - 1, -1, -1)
    rows = np.packbits((labels[:, :, None] >> shifts & 1).reshape(len(labels), -1), axis=1)
    header = struct.pack(">IIBBBBB", labels.shape[1], labels.shape[0], bits, 0, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
    )


def reading(path: Path) -> str:
    with pytest.raises(MaskError) as caught:
        read_mask(path)
    return str(caught.value)


@settings(max_examples=80, deadline=None)
@given(labels=hnp.arrays(np.uint8, SIZES))
def test_indexed_masks_are_read_by_others_with_their_colours(labels: np.ndarray) -> None:
    data = encode_mask(labels, voc_colours(21))
    with Pillow.open(io.BytesIO(data)) as picture:
        assert picture.mode == "P"
        np.testing.assert_array_equal(np.asarray(picture), labels)
        coloured = np.asarray(picture.convert("RGB"))
    np.testing.assert_array_equal(coloured, np.array(voc_colours(256), np.uint8)[labels])


@settings(max_examples=80, deadline=None)
@given(labels=hnp.arrays(np.uint16, SIZES))
def test_round_trip_of_many_ids(
    labels: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.getbasetemp() / "many.png"
    write_mask(file, labels, voc_colours(3))
    again = read_mask(file)
    np.testing.assert_array_equal(again, labels)
    assert again.dtype == (np.uint16 if labels.max() > 255 else np.uint8)
    assert again.flags["C_CONTIGUOUS"]
    assert again.flags["WRITEABLE"]


def test_sixteen_bit_masks_are_read_by_others() -> None:
    labels = np.arange(3000, dtype=np.uint16).reshape(50, 60)
    data = np.frombuffer(encode_mask(labels, ()), np.uint8)
    np.testing.assert_array_equal(cv2.imdecode(data, cv2.IMREAD_UNCHANGED), labels)


def test_given_colours_come_first_and_unused_ones_are_kept() -> None:
    data = encode_mask(np.array([[0, 3]], np.uint8), [(9, 8, 7), (6, 5, 4)])
    with Pillow.open(io.BytesIO(data)) as picture:
        palette = picture.getpalette()
    assert palette is not None
    assert palette[:6] == [9, 8, 7, 6, 5, 4]
    assert tuple(palette[9:12]) == voc_colours(4)[3]


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_of_few_bits_gives_its_values(tmp_path: Path, bits: int) -> None:
    labels = (np.arange(24, dtype=np.uint8) % 2**bits).reshape(3, 8)
    file = tmp_path / "a.png"
    file.write_bytes(packed_grey(labels, bits))
    np.testing.assert_array_equal(read_mask(file), labels)


def test_grey_and_tiff_masks_give_their_values(tmp_path: Path) -> None:
    labels = np.array([[0, 7], [255, 3]], np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), labels)
    tifffile.imwrite(tmp_path / "a.tif", labels)
    tifffile.imwrite(tmp_path / "b.tif", labels.astype(np.int32) * 200)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), labels)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.tif"), labels)
    np.testing.assert_array_equal(read_mask(tmp_path / "b.tif"), labels.astype(np.uint16) * 200)


def test_what_is_no_mask_is_refused_by_name(tmp_path: Path) -> None:
    colour = tmp_path / "rgb.png"
    Pillow.new("RGB", (4, 3)).save(colour)
    assert reading(colour) == (
        f"{colour}: is an 8-bit RGB PNG, and a mask has one channel of class ids. If its colours "
        "stand for classes, import it with: delineate data import --format voc. Otherwise save "
        "one channel as grey."
    )
    lossy = tmp_path / "a.jpg"
    Pillow.new("L", (4, 3)).save(lossy)
    assert reading(lossy) == (
        f"{lossy}: is a JPEG, and masks are PNG files. Export the mask as an indexed or grey PNG; "
        "a lossy format changes ids."
    )
    text = tmp_path / "text.png"
    text.write_text("not really")
    assert reading(text).startswith(f"{text}: is text (it starts with 'not really'), not a mask")
    assert reading(tmp_path / "none.png") == f"{tmp_path / 'none.png'}: no such file."
    bands = tmp_path / "bands.tif"
    tifffile.imwrite(bands, np.zeros((4, 3, 3), np.uint8), photometric="rgb")
    assert "has 3 channels, and a mask has one" in reading(bands)
    negative = tmp_path / "negative.tif"
    tifffile.imwrite(negative, np.array([[-1, 2]], np.int16))
    assert "has int16 values from -1 to 2, and ids are whole numbers" in reading(negative)


@settings(max_examples=60, deadline=None)
@given(cut=st.floats(0, 0.999))
def test_a_truncated_mask_is_an_error(cut: float, tmp_path_factory: pytest.TempPathFactory) -> None:
    whole = encode_mask(np.arange(200, dtype=np.uint8).reshape(10, 20), voc_colours(3))
    file = tmp_path_factory.getbasetemp() / "cut.png"
    file.write_bytes(whole[: int(cut * len(whole))])
    with pytest.raises(MaskError):
        read_mask(file)


def test_the_voc_colour_map() -> None:
    colours = voc_colours(256)
    assert colours[:4] == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
    assert colours[15] == (192, 128, 128)
    assert colours[20] == (0, 64, 128)
    assert colours[255] == (224, 224, 192)
    assert len(set(colours)) == 256


@pytest.mark.parametrize("k", [1, 2, 7, 8, 9, 21, 256, 300])
def test_default_colours_differ(k: int) -> None:
    assert len(default_colours(k)) == k
    assert len(set(default_colours(k))) == k
    assert default_colours(k)[0] == (0, 0, 0)
    assert default_colours(k, ["sky"] * k)[0] == (230, 159, 0)
    assert default_colours(k, ["_background_"] * k)[0] == (0, 0, 0)


def test_names_of_the_background() -> None:
    assert [is_background(n) for n in ("background", "_background_", "Back-ground", "BG")] == [
        True
    ] * 4
    assert not is_background("sky")
