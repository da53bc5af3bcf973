from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delineate.config import AugmentationSettings
from delineate.data.augment import Augmentation, as_augmentation
from delineate.data.elastic import smooth_field, spline_basis
from delineate.data.light import value_range
from delineate.errors import MaskError, SettingsError

IGNORE = 255
STILL = AugmentationSettings(
    scale=(1.0, 1.0),
    horizontal_flip=0,
    vertical_flip=0,
    rotation=0,
    elastic=0,
    colour=0,
    blur=0,
    noise=0,
)
DARK = {"colour": 0.0, "blur": 0.0, "noise": 0.0}  # nothing but the warp


def change(**fields: Any) -> AugmentationSettings:
    return AugmentationSettings.model_validate(STILL.model_dump() | fields)


def coordinates(height: int, width: int) -> np.ndarray:
    """An image whose two channels are the column and the row of each pixel."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([columns, rows], axis=2).astype(np.float32)


def id_of(rows: np.ndarray, columns: np.ndarray, width: int) -> np.ndarray:
    return ((rows * width + columns) * 7 % 251).astype(np.uint8)


def coded(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.mgrid[:height, :width]
    return coordinates(height, width), id_of(rows, columns, width)


@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    zoom=st.tuples(st.floats(0.3, 3.0), st.floats(0.3, 3.0)),
    degrees=st.floats(0, 180),
    elastic=st.sampled_from([0.0, 1.0]),
    ignore=st.sampled_from([None, IGNORE]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=150, deadline=None)
def test_every_mask_pixel_is_that_of_the_image_pixel_shown(
    height: int,
    width: int,
    zoom: tuple[float, float],
    degrees: float,
    elastic: float,
    ignore: int | None,
    seed: int,
) -> None:
    spec = AugmentationSettings(
        scale=zoom,
        vertical_flip=0.5,
        rotation=1.0,
        rotation_degrees=degrees,
        elastic=elastic,
        elastic_displacement_px=4,
        elastic_spacing_px=16,
        **DARK,
    )
    image, mask = coded(height, width)
    result = Augmentation(spec, 32, ignore)(image=image, mask=mask, rng=np.random.default_rng(seed))
    columns, rows = result["image"][..., 0], result["image"][..., 1]
    # OpenCV places samples to a 32nd of a pixel; half-way between two pixels either is right
    clear = np.ones(rows.shape, dtype=bool)
    for place in (columns, rows):
        clear &= np.abs(place - np.floor(place) - 0.5) > 0.05
    shown = id_of(np.rint(rows).astype(int), np.rint(columns).astype(int), width)
    outside = result["mask"] == IGNORE
    assert ignore is not None or not outside.any()
    assert np.array_equal(result["mask"][clear & ~outside], shown[clear & ~outside])
    assert set(np.unique(result["mask"])) <= set(np.unique(mask)) | {ignore}


@given(
    channels=st.integers(1, 16),
    dtype=st.sampled_from([np.uint8, np.uint16, np.float32]),
    mask_dtype=st.sampled_from([np.uint8, np.uint16]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_shape_dtype_and_determinism_with_everything_on(
    channels: int, dtype: type, mask_dtype: type, seed: int
) -> None:
    spec = AugmentationSettings(rotation=1, elastic=1, colour=1, blur=1, noise=1)
    rng = np.random.default_rng(seed)
    image = (rng.random((50, 70, channels)) * 200).astype(dtype)
    mask = rng.integers(0, 5, (50, 70)).astype(mask_dtype)
    kept_image, kept_mask = image.copy(), mask.copy()
    augment = Augmentation(spec, 48, IGNORE)
    first = augment(image=image, mask=mask, rng=np.random.default_rng(seed))
    augment(image=image, mask=mask, rng=np.random.default_rng(seed + 1))
    np.random.seed(seed % 1000)
    second = augment(image=image, mask=mask, rng=np.random.default_rng(seed))
    assert first["image"].shape == (48, 48, channels)
    assert first["mask"].shape == (48, 48)
    assert first["image"].dtype == dtype
    assert first["mask"].dtype == mask_dtype
    assert np.isfinite(first["image"]).all()
    assert np.array_equal(first["image"], second["image"])
    assert np.array_equal(first["mask"], second["mask"])
    assert np.array_equal(image, kept_image)
    assert np.array_equal(mask, kept_mask)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_still_settings_give_a_crop_unchanged(dtype: type) -> None:
    rng = np.random.default_rng(0)
    image = (rng.random((80, 100, 6)) * 255).astype(dtype)
    mask = rng.integers(0, 9, (80, 100)).astype(np.uint8)
    places = np.broadcast_to(coordinates(80, 100), (80, 100, 2))
    seen = set()
    for seed in range(40):
        augment = Augmentation(STILL, 32, IGNORE)
        result = augment(image=image, mask=mask, rng=np.random.default_rng(seed))
        where = augment(image=places, mask=mask, rng=np.random.default_rng(seed))
        left, top = where["image"][0, 0].astype(int)
        window = np.s_[top : top + 32, left : left + 32]
        assert np.array_equal(result["image"], image[window])
        assert np.array_equal(result["mask"], mask[window])
        seen.add((left, top))
    assert len(seen) > 30


def test_still_settings_on_an_image_of_the_crop_size_change_nothing() -> None:
    image, mask = coded(32, 32)
    result = Augmentation(STILL, 32, IGNORE)(image=image, mask=mask, rng=np.random.default_rng(0))
    assert np.array_equal(result["image"], image)
    assert np.array_equal(result["mask"], mask)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("ignore", [None, IGNORE])
def test_a_smaller_image_is_padded_around_its_unchanged_pixels(
    dtype: type, ignore: int | None
) -> None:
    rng = np.random.default_rng(0)
    image = (rng.random((20, 40, 3)) * 255).astype(dtype)
    mask = rng.integers(0, 9, (20, 40)).astype(np.uint8)
    result = Augmentation(STILL, 32, ignore)(image=image, mask=mask, rng=np.random.default_rng(3))
    left = next(x for x in range(9) if np.array_equal(image[:, x : x + 32], result["image"][6:26]))
    padding = ((6, 6), (0, 0))
    assert np.array_equal(
        result["image"], np.pad(image[:, left : left + 32], (*padding, (0, 0)), mode="reflect")
    )
    expected = (
        np.pad(mask[:, left : left + 32], padding, mode="reflect")
        if ignore is None
        else np.pad(mask[:, left : left + 32], padding, constant_values=IGNORE)
    )
    assert np.array_equal(result["mask"], expected)


def test_a_zoom_out_never_leaves_the_image_and_never_shrinks_a_small_one() -> None:
    spec = change(scale=(0.1, 0.1))
    for side, step in ((64, 2.0), (48, 1.5), (32, 1.0), (20, 1.0)):
        image, mask = coded(side, side)
        result = Augmentation(spec, 32, IGNORE)(
            image=image, mask=mask, rng=np.random.default_rng(0)
        )
        middle = result["image"][16, 12:20, 0]
        assert np.diff(middle) == pytest.approx(step)
        assert (result["mask"] == IGNORE).any() == (side < 32)


def test_the_zoom_is_drawn_from_the_range() -> None:
    image, mask = coded(200, 200)
    augment = Augmentation(change(scale=(0.5, 2.0)), 32, IGNORE)
    zooms = [
        1
        / np.diff(augment(image=image, mask=mask, rng=np.random.default_rng(s))["image"][..., 0])[
            16, 16
        ]
        for s in range(200)
    ]
    assert 0.5 <= min(zooms) + 1e-2 < 0.56
    assert 1.8 < max(zooms) <= 2.01
    assert np.mean(np.array(zooms) < 1) == pytest.approx(0.5, abs=0.12)


@pytest.mark.parametrize("elastic", [0.0, 1e-9])
@pytest.mark.parametrize(("horizontal", "vertical"), [(1, 0), (0, 1), (1, 1)])
def test_flips_are_exact_in_both_ways_of_cropping(
    horizontal: int, vertical: int, elastic: float
) -> None:
    image, mask = coded(32, 32)
    spec = change(
        horizontal_flip=horizontal,
        vertical_flip=vertical,
        elastic=float(elastic > 0),
        elastic_displacement_px=elastic,
    )
    result = Augmentation(spec, 32, IGNORE)(image=image, mask=mask, rng=np.random.default_rng(0))
    step = np.s_[:: -1 if vertical else 1, :: -1 if horizontal else 1]
    assert np.array_equal(result["image"], image[step])
    assert np.array_equal(result["mask"], mask[step])


def test_rotation_stays_within_its_largest_angle_and_keeps_distances() -> None:
    image, mask = coded(120, 120)
    augment = Augmentation(change(rotation=1, rotation_degrees=30), 32, IGNORE)
    angles = []
    for seed in range(60):
        shown = augment(image=image, mask=mask, rng=np.random.default_rng(seed))["image"]
        if (shown[[0, 0, -1, -1], [0, -1, 0, -1]] % 119 == 0).any():
            continue
        step = (shown[14:18, 24] - shown[14:18, 8]).mean(axis=0)
        angles.append(np.degrees(np.arctan2(step[1], step[0])))
        if (np.abs(shown - 60) < 40).all():
            assert np.hypot(*step) == pytest.approx(16, abs=0.1)
    assert max(np.abs(angles)) <= 30.3
    assert min(angles) < -20
    assert max(angles) > 20


def test_elastic_moves_smoothly_and_never_further_than_it_says() -> None:
    places = coordinates(200, 200)
    mask = np.zeros((200, 200), np.uint8)
    spec = change(elastic=1, elastic_displacement_px=5, elastic_spacing_px=16)
    still, moved = Augmentation(STILL, 64, IGNORE), Augmentation(spec, 64, IGNORE)
    largest = 0.0
    for seed in range(40):
        before = still(image=places, mask=mask, rng=np.random.default_rng(seed))
        after = moved(image=places, mask=mask, rng=np.random.default_rng(seed))
        if (after["mask"] == IGNORE).any() or before["image"].min() < 6:
            continue
        shift = after["image"] - before["image"]
        largest = max(largest, float(np.abs(shift).max()))
        assert np.abs(np.diff(shift, axis=0)).max() < 0.7
        assert np.abs(np.diff(shift, axis=1)).max() < 0.7
    assert 1.5 < largest <= 5.05


def test_only_a_window_of_a_wide_image_is_read() -> None:
    # OpenCV's warps refuse sources of 32768 pixels and more
    image, mask = coded(40, 70_000)
    spec = change(scale=(0.8, 1.5), rotation=1, rotation_degrees=20)
    for seed in range(5):
        result = Augmentation(spec, 32, IGNORE)(
            image=image, mask=mask, rng=np.random.default_rng(seed)
        )
        assert np.ptp(result["image"][..., 0]) < 70


def test_channels_beyond_four_are_warped_like_the_others() -> None:
    image = np.random.default_rng(0).random((60, 60, 9)).astype(np.float32)
    mask = np.zeros((60, 60), np.uint8)
    spec = AugmentationSettings(rotation=1, elastic=1, blur=1, noise=0, colour=0)
    augment = Augmentation(spec, 32, IGNORE)
    together = augment(image=image, mask=mask, rng=np.random.default_rng(5))["image"]
    for channel in range(9):
        alone = augment(
            image=image[..., channel : channel + 1], mask=mask, rng=np.random.default_rng(5)
        )["image"]
        assert together[..., channel] == pytest.approx(alone[..., 0], abs=1e-6)


def test_light_never_reaches_the_mask() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (32, 32, 3)).astype(np.uint8)
    mask = rng.integers(0, 4, (32, 32)).astype(np.uint8)
    result = Augmentation(change(colour=1, blur=1, noise=1), 32, IGNORE)(
        image=image, mask=mask, rng=rng
    )
    assert np.array_equal(result["mask"], mask)
    assert not np.array_equal(result["image"], image)


def relit(image: np.ndarray, seed: int, *, rgb: bool = True, **fields: float) -> np.ndarray:
    """Only the light changed, with certainty and only by what is named."""
    only = {"colour": 1.0, "brightness": 0.0, "contrast": 0.0, "hue": 0.0} | fields
    augment = Augmentation(change(**only), image.shape[0], None, colour=rgb)
    mask = np.zeros(image.shape[:2], np.uint8)
    return augment(image=image, mask=mask, rng=np.random.default_rng(seed))["image"]


@pytest.mark.parametrize(
    ("dtype", "low", "high", "spread"),
    [(np.uint8, 100, 150, 50), (np.uint16, 1000, 2000, 1000), (np.float32, -3, 5, 8)],
)
def test_brightness_is_a_share_of_the_range_in_use(
    dtype: type, low: float, high: float, spread: float
) -> None:
    image = np.full((32, 32, 2), low, dtype)
    image[:, 16:] = high
    shifts = []
    for seed in range(60):
        bright = relit(image, seed, brightness=0.1)
        assert float(bright[0, 16, 0]) - float(bright[0, 0, 0]) == pytest.approx(high - low)
        shifts.append((float(bright[0, 0, 0]) - low) / spread)
    assert -0.102 <= min(shifts) < -0.08
    assert 0.08 < max(shifts) <= 0.102


def test_a_dark_image_is_not_made_black() -> None:
    # a fluorescence image fills a tenth of 8 bits; a share of all 256 values would wipe it out
    image = np.full((32, 32, 1), 5, np.uint8)
    image[8:24, 8:24] = 30
    for seed in range(60):
        dark = relit(image, seed, brightness=0.2).astype(int)
        assert dark[16, 16, 0] - dark[0, 0, 0] >= 24


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_range_leaves_out_a_hundredth_on_either_side(dtype: type) -> None:
    values = np.arange(101, dtype=dtype).repeat(101).reshape(101, 101, 1)
    assert value_range(np.tile(values, (4, 4, 1))) == pytest.approx(98, abs=2)
    values[0], values[-1] = 0, 200
    assert value_range(np.tile(values, (4, 4, 1))) == pytest.approx(98, abs=2)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_contrast_stretches_about_the_mean(dtype: type) -> None:
    image = np.full((32, 32, 1), 100, dtype)
    image[:, 16:] = 140
    factors = []
    for seed in range(60):
        changed = relit(image, seed, contrast=0.5).astype(np.float64)
        assert changed.mean() == pytest.approx(120, abs=0.6)
        factors.append(np.ptp(changed) / 40)
    assert 0.48 <= min(factors) < 0.6
    assert 1.4 < max(factors) <= 1.52


def test_integers_saturate_instead_of_wrapping() -> None:
    for dtype, top in ((np.uint8, 255), (np.uint16, 65535)):
        image = np.linspace(0, top, 32 * 32).reshape(32, 32, 1).astype(dtype)
        for seed in range(20):
            changed = relit(image, seed, brightness=1.0, contrast=1.0)
            assert (np.diff(changed.reshape(-1).astype(int)) >= 0).all()


def test_hue_keeps_greys_and_the_sum_of_the_channels() -> None:
    image = np.random.default_rng(0).integers(60, 190, (32, 32, 3)).astype(np.uint8)
    image[:8] = image[:8, :, :1]
    changed = relit(image, 1, hue=0.05)
    assert np.array_equal(changed[:8], image[:8])
    difference = changed.astype(int) - image
    assert np.abs(difference).max() > 5
    assert np.abs(difference.sum(axis=2)).max() <= 2


@pytest.mark.parametrize(
    ("channels", "dtype", "rgb"),
    [(3, np.uint8, False), (3, np.uint16, True), (1, np.uint8, True), (4, np.uint8, True)],
)
def test_hue_leaves_other_images_alone(channels: int, dtype: type, rgb: bool) -> None:
    image = np.random.default_rng(0).integers(0, 255, (32, 32, channels)).astype(dtype)
    assert np.array_equal(relit(image, 1, rgb=rgb, hue=0.5), image)


def test_images_without_a_finite_range_pass_through() -> None:
    image = np.full((32, 32, 1), np.nan, np.float32)
    image[:16] = 1.0
    changed = relit(image, 0, brightness=0.5, contrast=0.5, noise=1.0)
    assert np.array_equal(changed, image, equal_nan=True)


def test_blur_lowers_the_variance_and_keeps_the_mean() -> None:
    image = np.random.default_rng(0).random((64, 64, 2)).astype(np.float32)
    blurred = relit(image, 0, colour=0, blur=1, blur_sigma_px=3)
    assert blurred.std() < 0.8 * image.std()
    assert blurred.mean() == pytest.approx(image.mean(), abs=0.01)


@pytest.mark.parametrize(("dtype", "spread"), [(np.uint8, 100), (np.float32, 100)])
def test_noise_has_at_most_the_sigma_it_says(dtype: type, spread: float) -> None:
    image = np.full((64, 64, 1), 50, dtype)
    image[:, 32:] = 150
    sigmas = [
        float((relit(image, seed, colour=0, noise=1, noise_sigma=0.05) - image.astype(float)).std())
        for seed in range(30)
    ]
    assert max(sigmas) <= 0.055 * spread
    assert max(sigmas) > 0.035 * spread


def test_an_ignore_index_that_a_byte_cannot_hold_makes_the_mask_wider() -> None:
    image, mask = coded(20, 20)
    result = Augmentation(STILL, 32, 65535)(image=image, mask=mask, rng=np.random.default_rng(0))
    assert result["mask"].dtype == np.uint16
    assert result["mask"][0, 0] == 65535


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(MaskError) as caught:
        Augmentation(STILL, 32, IGNORE)(
            image=np.zeros((40, 50, 3), np.uint8),
            mask=np.zeros((50, 40), np.uint8),
            rng=np.random.default_rng(0),
        )
    assert str(caught.value) == "the mask is 40 x 50 px where its image is 50 x 40 px."


@given(size=st.integers(1, 300), spacing=st.integers(1, 80), seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_a_smooth_field_stays_within_its_control_points(size: int, spacing: int, seed: int) -> None:
    basis = spline_basis(size, spacing)
    points = basis.shape[1]
    assert basis.sum(axis=1) == pytest.approx(np.ones(size), abs=1e-5)
    assert basis.min() >= 0
    control = np.random.default_rng(seed).uniform(-1, 1, (points, points)).astype(np.float32)
    field = smooth_field(basis, control)
    assert field.shape == (size, size)
    assert field.min() >= control.min() - 1e-5
    assert field.max() <= control.max() + 1e-5


IMAGE = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
MASK = np.arange(16, dtype=np.uint8).reshape(4, 4)


def adapted(result: Any, crop_px: int | None = None) -> dict[str, np.ndarray]:
    def custom(image: np.ndarray, mask: np.ndarray) -> Any:
        np.testing.assert_array_equal(image, IMAGE)
        np.testing.assert_array_equal(mask, MASK)
        return result

    augment = as_augmentation(custom, crop_px=crop_px)
    return dict(augment(image=IMAGE, mask=MASK, rng=np.random.default_rng(0)))  # type: ignore[arg-type]


def test_a_callable_takes_the_place_of_the_augmentation() -> None:
    result = adapted({"image": IMAGE[::-1], "mask": MASK[::-1].astype(np.int64), "other": 1}, 4)
    assert sorted(result) == ["image", "mask"]
    assert np.array_equal(result["image"], IMAGE[::-1])
    assert np.array_equal(result["mask"], MASK[::-1])
    assert result["mask"].dtype == np.uint8


def test_a_callable_with_a_parameter_rng_is_given_the_generator() -> None:
    spec = AugmentationSettings(rotation=1, elastic=1)
    image, mask = coded(64, 64)
    own = Augmentation(spec, 32, IGNORE)
    through = as_augmentation(own, crop_px=32)
    a = own(image=image, mask=mask, rng=np.random.default_rng(9))
    b = through(image=image, mask=mask, rng=np.random.default_rng(9))
    assert np.array_equal(a["image"], b["image"])
    assert np.array_equal(a["mask"], b["mask"])


IMAGE_MEND = "Return an array (height, width, 3) of uint8: normalisation is part of the network."
MASK_MEND = (
    "Return an integer array (height, width) of class ids, resampled by the nearest neighbour."
)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, "returned a NoneType. Return a mapping with the keys image and mask."),
        ((IMAGE, MASK), "returned a tuple. Return a mapping with the keys image and mask."),
        (
            {"image": IMAGE},
            "returned a mapping with the keys image. Return a mapping with the keys image and "
            "mask.",
        ),
        (
            {"image": IMAGE.astype(np.float32), "mask": MASK},
            f"returned as image an array (4, 4, 3) of float32. {IMAGE_MEND}",
        ),
        (
            {"image": IMAGE.transpose(2, 0, 1), "mask": MASK},
            f"returned as image an array (3, 4, 4) of uint8. {IMAGE_MEND}",
        ),
        ({"image": [1], "mask": MASK}, f"returned as image a list. {IMAGE_MEND}"),
        (
            {"image": IMAGE, "mask": MASK.astype(np.float32)},
            f"returned as mask an array (4, 4) of float32. {MASK_MEND}",
        ),
        (
            {"image": IMAGE, "mask": MASK[..., None]},
            f"returned as mask an array (4, 4, 1) of uint8. {MASK_MEND}",
        ),
        (
            {"image": IMAGE, "mask": MASK[:2]},
            "returned a mask of 4 x 2 px with an image of 4 x 4 px. Change the size of both alike.",
        ),
        (
            {"image": IMAGE, "mask": MASK.astype(np.int32) - 1},
            "returned the class id -1. Return ids from 0 to 255, the ignore index for pixels "
            "outside the image.",
        ),
        (
            {"image": IMAGE, "mask": MASK.astype(np.int32) + 256},
            "returned the class id 271. Return ids from 0 to 255, the ignore index for pixels "
            "outside the image.",
        ),
        (
            {"image": IMAGE[:2, :3], "mask": MASK[:2, :3]},
            "returned 3 x 2 px where the crops are 4 x 4 px. End it with a crop of 4 x 4 px, or "
            "change crop_px.",
        ),
    ],
)
def test_what_a_callable_returns_is_checked(result: Any, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        adapted(result, 4)
    assert str(caught.value) == f"augmentation custom: {message}"
