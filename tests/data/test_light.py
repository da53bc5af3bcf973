from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from delineate.data.light import add_noise, as_dtype


@pytest.mark.parametrize("sigma", [0.4, 2.0, 12.75])
def test_noise_of_bytes_is_a_rounded_gaussian(sigma: float) -> None:
    image = np.full((300, 301, 3), 128, np.uint8)
    noise = add_noise(image, sigma, np.random.default_rng(0)).astype(int) - 128
    normal = NormalDist(0, sigma)
    for value in range(-round(3 * sigma), round(3 * sigma) + 1):
        expected = normal.cdf(value + 0.5) - normal.cdf(value - 0.5)
        assert (noise == value).mean() == pytest.approx(expected, abs=0.004)
    assert noise.mean() == pytest.approx(0, abs=0.03 * sigma)
    # neighbours know nothing of each other
    assert abs(np.corrcoef(noise[:-1].ravel(), noise[1:].ravel())[0, 1]) < 0.01
    assert abs(np.corrcoef(noise[:, :-1].ravel(), noise[:, 1:].ravel())[0, 1]) < 0.01
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.01


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_noise_keeps_kind_and_range(dtype: type, channels: int) -> None:
    top = {np.uint8: 255, np.uint16: 65535, np.float32: 1.0}[dtype]
    image = np.zeros((33, 35, channels), dtype)
    image[:, 17:] = top
    kept = image.copy()
    noisy = add_noise(image[:, ::-1], 0.04 * top, np.random.default_rng(1))
    assert (noisy.shape, noisy.dtype) == (image.shape, image.dtype)
    assert np.array_equal(image, kept)
    dark, bright = noisy[:, 18:].astype(float), noisy[:, :18].astype(float)
    assert dark.mean() == pytest.approx(0, abs=0.03 * top)
    assert bright.mean() == pytest.approx(top, abs=0.03 * top)
    if dtype is not np.float32:
        assert (dark == 0).mean() == pytest.approx(0.5, abs=0.1)
    assert dark.max() > 0.08 * top


def test_noise_comes_from_the_generator() -> None:
    image = np.full((20, 20, 3), 100, np.uint8)
    a, b, c = (add_noise(image, 5.0, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_floats_become_whole_numbers_in_range() -> None:
    values = np.array([-3.0, 0.5, 1.5, 254.6, 900.0], np.float32)
    assert as_dtype(values, np.dtype(np.uint8)).tolist() == [0, 0, 2, 255, 255]
