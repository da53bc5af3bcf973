from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delineate.data.overlay import (
    FALSE_ALARM,
    MISSED,
    WRONG,
    borders,
    displayable,
    error_map,
    overlay,
    thumbnail,
    thumbnail_labels,
)
from delineate.errors import MaskError, SettingsError

RED, GREEN = (255, 0, 0), (0, 255, 0)


def noise(shape: tuple[int, int, int], dtype: type, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if dtype == np.float32:
        return rng.normal(3.0, 200.0, shape).astype(np.float32)
    return rng.integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [*range(1, 17)])
def test_every_image_can_be_drawn_on(dtype: type, channels: int) -> None:
    image = noise((9, 14, channels), dtype)
    labels = np.arange(9 * 14, dtype=np.uint8).reshape(9, 14) % 3
    out = overlay(image, labels, [RED, GREEN])
    assert out.shape == (9, 14, 3)
    assert out.dtype == np.uint8
    assert np.array_equal(out[labels == 2], displayable(image)[labels == 2])


class TestDisplayable:
    def test_bytes_are_shown_as_they_are(self) -> None:
        image = noise((5, 6, 4), np.uint8)
        assert np.array_equal(displayable(image), image[..., :3])

    @pytest.mark.parametrize("channels", [1, 2])
    def test_fewer_than_three_channels_are_grey(self, channels: int) -> None:
        image = noise((5, 6, channels), np.uint8)
        assert np.array_equal(displayable(image), np.repeat(image[..., :1], 3, axis=2))

    @pytest.mark.parametrize("dtype", [np.uint16, np.float32])
    def test_other_types_are_stretched_between_percentiles(self, dtype: type) -> None:
        ramp = np.arange(10_000).reshape(100, 100, 1).astype(dtype)
        shown = displayable(ramp)[..., 0].ravel()
        assert (shown[:200] == 0).all()
        assert (shown[-200:] == 255).all()
        assert abs(int(shown[5000]) - 128) <= 1
        assert (np.diff(shown.astype(int)) >= 0).all()

    def test_each_channel_is_stretched_by_itself(self) -> None:
        ramp = np.arange(10_000, dtype=np.float32).reshape(100, 100)
        shown = displayable(np.stack([ramp, ramp * 1e-6, ramp * 1e6 + 5], axis=-1))
        assert np.ptp(shown.astype(int), axis=2).max() <= 1

    def test_pixels_that_are_no_number_are_black(self) -> None:
        image = noise((20, 20, 1), np.float32)
        image[0, :3, 0] = np.nan, np.inf, -np.inf
        shown = displayable(image)
        assert (shown[0, :3] == 0).all()
        assert shown.max() == 255

    @pytest.mark.parametrize("value", [0.0, 7.5, -1e30, np.nan])
    def test_a_constant_image_is_black(self, value: float) -> None:
        assert displayable(np.full((4, 4, 1), value, np.float32)).max() == 0

    def test_a_few_bright_pixels_on_nothing_are_seen(self) -> None:
        image = np.zeros((100, 100, 1), np.uint16)
        image[4, 7] = 9
        assert displayable(image)[4, 7].tolist() == [255, 255, 255]

    def test_the_largest_floats_do_not_overflow(self) -> None:
        top = np.finfo(np.float32).max
        image = np.linspace(-top / 4, top / 4, 400, dtype=np.float32).reshape(20, 20, 1)
        shown = displayable(image)
        assert (shown.min(), shown.max()) == (0, 255)


class TestOverlay:
    def test_colours_are_blended_inside_and_full_at_borders(self) -> None:
        image = np.full((5, 6, 3), 100, np.uint8)
        labels = np.zeros((5, 6), np.uint8)
        labels[:, 3:] = 1
        out = overlay(image, labels, [RED, GREEN], alpha=0.5)
        assert out[2, 0].tolist() == [178, 50, 50]
        assert out[2, 2].tolist() == list(RED)
        assert out[2, 3].tolist() == list(GREEN)
        assert out[2, 5].tolist() == [50, 178, 50]

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_ids_without_a_colour_show_the_image(self, dtype: type) -> None:
        image = noise((5, 6, 3), np.uint8)
        labels = np.full((5, 6), np.iinfo(dtype).max, dtype)
        assert np.array_equal(overlay(image, labels, [RED, GREEN]), image)

    def test_an_object_on_an_untinted_background_is_outlined_all_around(self) -> None:
        image = np.full((7, 7, 3), 80, np.uint8)
        labels = np.zeros((7, 7), np.uint8)
        labels[2:5, 2:5] = 1
        out = overlay(image, labels, [RED, GREEN], untinted=(0,))
        full = (out == GREEN).all(axis=2)
        ring = labels == 1
        ring[3, 3] = False
        assert np.array_equal(full, ring)
        assert (out[labels == 0] == 80).all()

    def test_256_colours(self) -> None:
        labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
        colours = [(i, 255 - i, i // 2) for i in range(256)]
        out = overlay(np.zeros((16, 16, 1), np.uint8), labels, colours, alpha=1.0)
        assert out.reshape(-1, 3).tolist() == [list(c) for c in colours]

    def test_256_colours_with_an_untinted_one(self) -> None:
        labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
        image = np.full((16, 16, 3), 9, np.uint8)
        out = overlay(image, labels, [RED] * 256, alpha=1.0, untinted=(0, 255))
        assert ((out == 9).all(axis=2) == np.isin(labels, (0, 255))).all()
        assert ((out == RED).all(axis=2) == ~np.isin(labels, (0, 255))).all()

    def test_the_input_is_left_alone(self) -> None:
        image = noise((5, 6, 3), np.uint8)
        labels = np.full((5, 6), 255, np.uint8)
        before = image.copy(), labels.copy()
        out = overlay(image, labels, [RED])
        out[:] = 0
        assert np.array_equal(image, before[0])
        assert np.array_equal(labels, before[1])

    def test_another_size_is_refused(self) -> None:
        with pytest.raises(MaskError) as caught:
            overlay(np.zeros((4, 5, 3), np.uint8), np.zeros((5, 4), np.uint8), [RED])
        assert str(caught.value) == (
            "the labels have 4 x 5 pixels (width x height) and the image 5 x 4. "
            "Both must have the same size."
        )

    @pytest.mark.parametrize("alpha", [-0.1, 1.01, float("nan")])
    def test_alpha_is_checked(self, alpha: float) -> None:
        with pytest.raises(SettingsError, match=r"^alpha is .*It must be between 0 and 1\.$"):
            overlay(np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5), np.uint8), [RED], alpha=alpha)


@given(st.integers(0, 2**32), st.integers(1, 9), st.integers(1, 9))
def test_borders_are_where_a_neighbour_differs(seed: int, height: int, width: int) -> None:
    labels = np.random.default_rng(seed).integers(0, 2, (height, width)).astype(np.uint8)
    padded = np.pad(labels, 1, mode="edge")
    expected = np.zeros_like(labels, bool)
    for dy, dx in ((0, 1), (2, 1), (1, 0), (1, 2)):
        expected |= padded[dy : dy + height, dx : dx + width] != labels
    assert np.array_equal(borders(labels), expected)


class TestErrorMap:
    image = np.full((1, 5, 3), 200, np.uint8)
    truth = np.uint8([[0, 1, 0, 1, 255]])

    def test_two_classes_tell_missed_from_falsely_claimed(self) -> None:
        labels = np.uint8([[0, 1, 1, 0, 1]])
        out = error_map(self.image, self.truth, labels, ignore_index=255, n_classes=2)
        assert out[0, :2].tolist() == [[228] * 3] * 2
        assert out[0, 2].tolist() == list(FALSE_ALARM)
        assert out[0, 3].tolist() == list(MISSED)
        assert out[0, 4].tolist() == [90, 90, 90]

    def test_more_classes_have_one_colour_for_wrong(self) -> None:
        labels = np.uint8([[2, 1, 1, 2, 1]])
        out = error_map(self.image, self.truth, labels, ignore_index=255, n_classes=3)
        wrong = (out == WRONG).all(axis=2)
        assert wrong.tolist() == [[True, False, True, True, False]]

    def test_another_size_is_refused(self) -> None:
        with pytest.raises(MaskError, match="the labels have 4 x 1 pixels"):
            error_map(self.image, self.truth, self.truth[:, 1:])


class TestThumbnail:
    @given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 64))
    def test_both_kinds_have_one_size_that_fits(self, height: int, width: int, side: int) -> None:
        small = thumbnail(np.zeros((height, width, 3), np.uint8), side)
        labels = thumbnail_labels(np.zeros((height, width), np.uint16), side)
        assert small.shape[:2] == labels.shape
        assert max(labels.shape) == min(side, max(height, width))
        assert min(labels.shape) >= 1
        assert labels.dtype == np.uint16

    def test_small_pictures_stay(self) -> None:
        rgb = noise((5, 8, 3), np.uint8)
        assert np.array_equal(thumbnail(rgb, 8), rgb)
        assert np.array_equal(thumbnail_labels(rgb[..., 0], 8), rgb[..., 0])

    def test_pictures_are_averaged_and_ids_picked_at_the_same_place(self) -> None:
        labels = np.zeros((60, 60), np.uint8)
        labels[:, 30:] = 9
        rgb = np.repeat(labels[..., None], 3, axis=2)
        small, ids = thumbnail(rgb, 20), thumbnail_labels(labels, 20)
        assert set(np.unique(ids)) == {0, 9}
        assert np.array_equal(small[..., 0], ids)
