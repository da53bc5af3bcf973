from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image as Pillow

from delineate.data.images import decode_image, fit_channels, image_size, read_image
from delineate.errors import DelineateError, ImageError

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data")

RNG = np.random.default_rng(7)
RGB8 = RNG.integers(0, 256, (11, 14, 3), dtype=np.uint8)
RGB16 = RNG.integers(0, 65536, (11, 14, 3), dtype=np.uint16)


def saved(pixels: np.ndarray, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Pillow.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def tiff(pixels: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **options)
    return file.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG made by hand, so that the reader is not tested against its own library."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + extra
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def png_of(samples: np.ndarray, colour: int, extra: bytes = b"") -> bytes:
    height, width, _ = samples.shape
    depth = 8 * samples.dtype.itemsize
    big = samples.astype(samples.dtype.newbyteorder(">"))
    rows = b"".join(b"\0" + row.tobytes() for row in big)
    return png(width, height, depth, colour, rows, extra)


def message(data: bytes, **options: Any) -> str:
    with pytest.raises(ImageError) as caught:
        decode_image(data, "a.png", **options)
    return str(caught.value)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("colour", "stored", "kept"), [(0, 1, 1), (2, 3, 3), (4, 2, 1), (6, 4, 3)])
def test_png_of_every_colour_type(dtype: type, colour: int, stored: int, kept: int) -> None:
    samples = RNG.integers(0, np.iinfo(dtype).max + 1, (5, 7, stored)).astype(dtype)
    image = decode_image(png_of(samples, colour), "a.png")
    assert image.dtype == dtype
    np.testing.assert_array_equal(image, samples[:, :, :kept])
    assert image.flags["C_CONTIGUOUS"]
    assert image.flags["WRITEABLE"]


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_png_of_few_bits_spreads_over_the_range(depth: int) -> None:
    # one row of one byte: the values 0b11001001 in groups of `depth` bits
    values = [0b11001001 >> (8 - depth * (i + 1)) & (2**depth - 1) for i in range(8 // depth)]
    image = decode_image(png(8 // depth, 1, depth, 0, b"\0\xc9"), "a.png")
    assert image[0, :, 0].tolist() == [v * 255 // (2**depth - 1) for v in values]


def test_png_with_a_palette_and_transparency_gives_its_colours() -> None:
    palette = np.array([[1, 2, 3], [40, 50, 60], [7, 8, 9]], np.uint8)
    extra = chunk(b"PLTE", palette.tobytes()) + chunk(b"tRNS", b"\0\x80")
    indices = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
    image = decode_image(png_of(indices[:, :, None], 3, extra), "a.png")
    np.testing.assert_array_equal(image, palette[indices])


def test_a_colour_that_means_transparent_is_kept() -> None:
    data = png_of(RGB16, 2, chunk(b"tRNS", b"\0\1\0\2\0\3"))
    np.testing.assert_array_equal(decode_image(data, "a.png"), RGB16)


def test_an_index_beyond_the_palette_is_refused() -> None:
    extra = chunk(b"PLTE", bytes(6))
    assert message(png_of(np.full((1, 1, 1), 2, np.uint8), 3, extra)) == (
        "a.png: is damaged: it uses colour 2 of a palette of 2. Export the file again."
    )


@pytest.mark.parametrize(
    ("kind", "options"), [("WEBP", {"lossless": True}), ("BMP", {}), ("PNG", {})]
)
def test_lossless_formats_give_the_pixels(kind: str, options: dict[str, Any]) -> None:
    np.testing.assert_array_equal(decode_image(saved(RGB8, kind, **options), "a"), RGB8)


def test_alpha_of_webp_is_dropped_and_the_colour_kept() -> None:
    rgba = np.dstack([RGB8, np.zeros((11, 14), np.uint8)])
    image = decode_image(saved(rgba, "WEBP", lossless=True, exact=True), "a.webp")
    np.testing.assert_array_equal(image, RGB8)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_to_pixels_and_size(tmp_path: Path, orientation: int) -> None:
    from PIL import ImageOps

    exif = Pillow.Exif()
    exif[274] = orientation
    smooth = cv2.resize(RGB8[:4, :4], (40, 24))
    file = tmp_path / "a.jpg"
    file.write_bytes(saved(smooth, "JPEG", exif=exif))
    with Pillow.open(file) as picture:
        expected = np.asarray(ImageOps.exif_transpose(picture))
    np.testing.assert_array_equal(read_image(file), expected)
    assert image_size(file) == expected.shape[:2]


def test_damaged_exif_means_no_orientation() -> None:
    plain = saved(RGB8, "PNG")
    broken = png_of(RGB8, 2, chunk(b"eXIf", b"II*\0\xff\xff\xff\xff"))
    np.testing.assert_array_equal(decode_image(broken, "a"), decode_image(plain, "a"))


def test_cmyk_jpeg_becomes_rgb() -> None:
    file = io.BytesIO()
    Pillow.new("RGB", (16, 16), (200, 40, 90)).convert("CMYK").save(file, "JPEG", quality=100)
    image = decode_image(file.getvalue(), "a.jpg")
    assert image.shape == (16, 16, 3)
    assert np.abs(image.astype(int) - [200, 40, 90]).max() <= 3


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 2, 4, 5, 13, 16])
def test_tiff_of_every_type_and_channel_count(dtype: type, channels: int, planar: str) -> None:
    pixels = RNG.integers(0, 200, (9, 6, channels)).astype(dtype)
    stored = pixels if planar == "contig" else np.moveaxis(pixels, 2, 0)
    stored = stored.squeeze()
    layout = {"planarconfig": planar} if channels > 1 else {}
    data = tiff(stored, photometric="minisblack", metadata=None, **layout)
    image = decode_image(data, "a.tif")
    assert image.dtype == dtype
    assert image.flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(image, pixels)


@pytest.mark.parametrize("options", [{"byteorder": ">"}, {"bigtiff": True}, {"tile": (16, 16)}])
def test_tiff_layouts(options: dict[str, Any]) -> None:
    image = decode_image(tiff(RGB16, photometric="rgb", **options), "a.tif")
    assert image.dtype == np.dtype(np.uint16)
    assert image.dtype.isnative
    np.testing.assert_array_equal(image, RGB16)


def test_tiff_alpha_is_dropped_and_other_extra_samples_are_kept() -> None:
    four = np.dstack([RGB8, RGB8[:, :, :1]])
    alpha = tiff(four, photometric="rgb", extrasamples=["unassalpha"])
    infrared = tiff(four, photometric="rgb", extrasamples=["unspecified"])
    np.testing.assert_array_equal(decode_image(alpha, "a.tif"), RGB8)
    np.testing.assert_array_equal(decode_image(infrared, "a.tif"), four)


def test_tiff_where_white_is_zero_and_with_a_palette() -> None:
    grey = RGB8[:, :, 0]
    white = decode_image(tiff(grey, photometric="miniswhite"), "a.tif")
    np.testing.assert_array_equal(white[:, :, 0], 255 - grey)
    colours = RNG.integers(0, 256, (3, 256), dtype=np.uint16)
    data = tiff(grey, photometric="palette", colormap=colours * 257)
    np.testing.assert_array_equal(decode_image(data, "a.tif"), colours.T[grey])


def test_tiff_bits() -> None:
    bits = RGB8[:, :8, 0] > 128
    image = decode_image(tiff(bits, photometric="minisblack"), "a.tif")
    np.testing.assert_array_equal(image[:, :, 0], bits * 255)


@pytest.mark.parametrize(
    ("dtype", "gives"),
    [
        (np.int8, np.uint8),
        (np.int16, np.uint16),
        (np.uint32, np.uint16),
        (np.int32, np.uint16),
        (np.float16, np.float32),
        (np.float64, np.float32),
    ],
)
def test_other_types_are_converted_if_nothing_is_lost(dtype: type, gives: type) -> None:
    pixels = RNG.integers(0, 100, (4, 5)).astype(dtype)
    image = decode_image(tiff(pixels), "a.tif")
    assert image.dtype == gives
    np.testing.assert_array_equal(image[:, :, 0], pixels)


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (
            np.array([[-3, 7]], np.int16),
            "has int16 values from -3 to 7, which uint16 does not hold. Save it as float32.",
        ),
        (
            np.array([[0, 70000]], np.uint32),
            "has uint32 values from 0 to 70000, which uint16 does not hold. Save it as float32.",
        ),
        (
            np.array([[0.1]], np.float64),
            "has float64 values that float32 does not hold exactly. Save it as float32, if the "
            "rounding is acceptable.",
        ),
        (
            np.array([[np.nan, np.inf, 1.0]], np.float32),
            "has 2 values of 3 that are NaN or infinite. Replace them by a number, for example "
            "with numpy.nan_to_num.",
        ),
        (
            np.array([[1j]], np.complex64),
            "has values of the type complex64. Save it as uint8, uint16 or float32.",
        ),
    ],
)
def test_values_that_do_not_fit_are_refused(pixels: np.ndarray, expected: str) -> None:
    assert message(tiff(pixels)) == f"a.png: {expected}"


def test_tiff_stacks_are_refused_by_name() -> None:
    stack = np.zeros((2, 3, 8, 9), np.uint8)
    data = tiff(stack, imagej=True, metadata={"axes": "TZYX"})
    assert message(data).startswith(
        "a.png: is a TIFF stack with the axes T (time) 2, Z (depth) 3, Y 8, X 9. Save each plane"
    )
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(np.zeros((4, 5), np.uint8))
        writer.write(np.zeros((6, 7), np.uint8))
    assert message(file.getvalue()) == (
        "a.png: is a TIFF of 2 images (4x5, 6x7). Save each image as a file of its own."
    )
    many = tiff(np.zeros((17, 4, 5), np.uint8), planarconfig="separate", photometric="minisblack")
    assert message(many) == "a.png: has 17 channels. Choose 16 of them or fewer."


def test_a_pyramid_gives_its_full_resolution() -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(RGB8, subifds=1, photometric="rgb")
        writer.write(RGB8[::2, ::2], subfiletype=1, photometric="rgb")
    np.testing.assert_array_equal(decode_image(file.getvalue(), "a.tif"), RGB8)


def test_a_wrong_suffix_does_not_matter(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(saved(RGB8, "PNG"))
    np.testing.assert_array_equal(read_image(file), RGB8)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "is empty (0 bytes). Fetch or export the file again."),
        (
            b"hello, world",
            "is text (it starts with 'hello, world'), not an image that can be read.",
        ),
        (b"<!DOCTYPE html>", "is a web page (HTML), not an image that can be read."),
        (b"GIF89a....", "is a GIF, not an image that can be read."),
        (
            b"\x00\x01\x02\x03",
            "is of an unknown format (it starts with the bytes 00 01 02 03), not an image that "
            "can be read.",
        ),
    ],
)
def test_what_is_no_image_is_named(data: bytes, what: str) -> None:
    mend = "" if not data else " Convert it to PNG, TIFF, JPEG, WebP or BMP."
    assert message(data) == f"a.png: {what}{mend}"


def test_missing_files_and_folders(tmp_path: Path) -> None:
    for read in (read_image, image_size):
        with pytest.raises(ImageError) as caught:
            read(tmp_path / "a.png")
        assert str(caught.value) == f"{tmp_path / 'a.png'}: no such file."
        with pytest.raises(ImageError) as caught:
            read(tmp_path)
        assert str(caught.value) == f"{tmp_path}: is a folder, not an image."


def test_bombs_are_refused_before_decoding() -> None:
    bomb = png(60000, 50000, 8, 0, b"")
    assert message(bomb) == (
        "a.png: is 60000 x 50000 pixels (width x height), more than the limit of 268435456 pixels. "
        "Cut it into parts. The limit of delineate serve and of read_image is a "
        "setting, which would have to be 3000000000."
    )
    for data in (saved(RGB8, "BMP"), saved(RGB8, "JPEG"), saved(RGB8, "WEBP"), tiff(RGB8)):
        assert "14 x 11 pixels (width x height), more than the limit of 100" in message(
            data, pixel_limit=100
        )
        assert decode_image(data, "a", pixel_limit=154).shape == (11, 14, 3)


def test_animations_are_refused() -> None:
    frames = [Pillow.fromarray(RGB8), Pillow.fromarray(255 - RGB8)]
    for kind, name in (("PNG", "PNG"), ("WEBP", "WebP")):
        file = io.BytesIO()
        frames[0].save(file, kind, save_all=True, append_images=frames[1:])
        assert message(file.getvalue()) == (
            f"a.png: is an animated {name} of 2 frames. Save each of its frames as an image."
        )


ENCODERS: dict[str, Callable[[], bytes]] = {
    "png": lambda: saved(RGB8, "PNG"),
    "png16": lambda: png_of(RGB16, 2),
    "jpeg": lambda: saved(RGB8, "JPEG"),
    "progressive": lambda: saved(RGB8, "JPEG", progressive=True),
    "webp": lambda: saved(RGB8, "WEBP"),
    "bmp": lambda: saved(RGB8, "BMP"),
    "tiff": lambda: tiff(RGB8, photometric="rgb"),
    "deflate": lambda: tiff(RGB16, photometric="rgb", compression="zlib"),
}


@pytest.mark.parametrize("name", ENCODERS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_truncated_file_is_an_error_and_never_half_an_image(
    name: str, data: st.DataObject
) -> None:
    whole = ENCODERS[name]()
    at = data.draw(st.integers(0, len(whole) - 1))
    expected = decode_image(whole, "a")
    try:
        image = decode_image(whole[:at], "a")
    except ImageError:
        return
    # nothing but an end mark or trailing metadata was missing
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("name", ENCODERS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_changed_bytes_never_raise_anything_else(name: str, data: st.DataObject) -> None:
    hurt = bytearray(ENCODERS[name]())
    for _ in range(data.draw(st.integers(1, 6))):
        hurt[data.draw(st.integers(0, len(hurt) - 1))] = data.draw(st.integers(0, 255))
    try:
        image = decode_image(bytes(hurt), "a", pixel_limit=10**6)
    except DelineateError:
        return
    assert image.ndim == 3
    assert image.dtype in (np.uint8, np.uint16, np.float32)


def test_a_wrong_checksum_is_named() -> None:
    data = bytearray(saved(RGB8, "PNG"))
    at = data.index(b"IDAT") + 20
    data[at] ^= 1
    assert "is damaged: the checksum of the PNG's IDAT chunk at byte 33 is wrong" in message(
        bytes(data)
    )


@settings(max_examples=60, deadline=None)
@given(
    pixels=hnp.arrays(
        st.sampled_from([np.uint8, np.uint16]),
        st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3])),
    )
)
def test_png_round_trip(pixels: np.ndarray) -> None:
    flip = pixels[:, :, ::-1]  # OpenCV writes blue first
    _, data = cv2.imencode(".png", flip)
    np.testing.assert_array_equal(decode_image(data.tobytes(), "a"), pixels)


def test_fit_channels() -> None:
    grey = RGB8[:, :, :1]
    assert fit_channels(RGB8, 3, "a") is RGB8
    np.testing.assert_array_equal(fit_channels(grey, 3, "a"), np.dstack([grey] * 3))
    with pytest.raises(ImageError) as caught:
        fit_channels(RGB8, 4, "a.png")
    assert str(caught.value) == "a.png: has 3 channels and 4 are wanted. Give images of 4 channels."
    with pytest.raises(ImageError) as caught:
        fit_channels(RGB8, 1, "a.png")
    assert str(caught.value) == "a.png: has 3 channels and 1 is wanted. Give images of 1 channel."


REFUSED = {
    "geotiff/corrupt.tif": "is truncated: 298232 bytes are there and its pixels end at 307086",
    "geotiff/float_nan.tif": "has 1 value of 6 that is NaN or infinite",
    "slides_and_odd_files/ojpeg-tile.tif": "old JPEG compression of 1992",
    "slides_and_odd_files/truncated.jpg": "is a damaged or truncated JPEG",
    "slides_and_odd_files/multi-channel-z-series.ome.tif": "stack with the axes C 3, Z (depth) 5",
}
READ = {
    "geotiff/RGB.byte.tif": (3, "uint8"),
    "geotiff/RGBA.uint16.tif": (3, "uint16"),
    "geotiff/all-nodata.tif": (4, "uint16"),
    "geotiff/alpha.tif": (3, "uint8"),
    "geotiff/buildings_uint16.tif": (1, "uint16"),
    "geotiff/cogeo.tif": (3, "uint8"),
    "slides_and_odd_files/1bit.tif": (1, "uint8"),
    "slides_and_odd_files/2bit.tif": (1, "uint8"),
    "slides_and_odd_files/4bit.tif": (1, "uint8"),
    "slides_and_odd_files/indexed.png": (3, "uint8"),
    "aerial/potsdam.png": (3, "uint8"),
    "voc/JPEGImages/2011_000003.jpg": (3, "uint8"),
}


@needs_shared
@pytest.mark.parametrize("name", REFUSED)
def test_odd_real_files_are_refused_by_name(name: str) -> None:
    with pytest.raises(ImageError) as caught:
        read_image(SHARED / name)
    assert REFUSED[name] in str(caught.value)


@needs_shared
@pytest.mark.parametrize("name", READ)
def test_real_files_are_read(name: str) -> None:
    image = read_image(SHARED / name)
    assert (image.shape[2], str(image.dtype)) == READ[name]
    assert image_size(SHARED / name) == image.shape[:2]
    if "16" in READ[name][1]:
        expected = tifffile.imread(SHARED / name)
        if name.endswith("all-nodata.tif"):  # stored plane by plane
            expected = np.moveaxis(expected, 0, 2)
        elif expected.ndim == 3:
            expected = expected[:, :, :3]
    else:
        with Pillow.open(SHARED / name) as picture:
            mode = "RGB" if image.shape[2] == 3 else "L"
            expected = np.asarray(picture.convert(mode))
    np.testing.assert_array_equal(image, expected.reshape((*image.shape[:2], -1)))
