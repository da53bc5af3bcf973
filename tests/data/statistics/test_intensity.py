from __future__ import annotations

import numpy as np
import pytest

from delineate.data.statistics.intensity import RealValues, WholeValues, count_values


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_intensity_agrees_with_numpy(dtype: str) -> None:
    rng = np.random.default_rng(3)
    parts = [rng.normal(1000, 60, (31, 17, 2)) for _ in range(3)]
    if dtype == "uint8":
        parts = [part / 8 for part in parts]
    images = [part.astype(dtype) for part in parts]
    mask = rng.random((31, 17)) > 0.5
    for marked in (None, mask):
        total = None
        for image in images:
            found = count_values(image, marked, 10_000)
            assert found is not None
            if total is None:
                total = found
            elif isinstance(total, WholeValues):
                assert isinstance(found, WholeValues)
                total.add(found)
            else:
                assert isinstance(found, RealValues)
                total.add(found)
        assert total is not None
        pixels = np.concatenate([i.reshape(-1, 2) if marked is None else i[mask] for i in images])
        for channel in (0, 1):
            one = total.channel(channel, "all")
            values = pixels[:, channel].astype(np.float64)
            assert one.count == len(values)
            assert one.mean == pytest.approx(values.mean())
            assert one.std == pytest.approx(values.std())
            assert (one.minimum, one.maximum) == (values.min(), values.max())
            expected = np.percentile(values, [0.5, 50, 99.5]).tolist()
            assert [one.p00_5, one.median, one.p99_5] == pytest.approx(expected)
            inside = (values >= one.histogram.edges[0]) & (values <= one.histogram.edges[-1])
            assert sum(one.histogram.counts) == inside.sum()
    assert count_values(images[0], np.zeros((31, 17), bool), 10) is None


def test_a_sample_of_real_values_is_spread_evenly() -> None:
    image = np.arange(100 * 100, dtype=np.float32).reshape(100, 100, 1)
    found = count_values(image, None, 500)
    assert isinstance(found, RealValues)
    assert found.samples[0].shape == (1, 500)
    one = found.channel(0, "all")
    assert one.mean == pytest.approx(4999.5)
    assert one.median == pytest.approx(4999.5, abs=50)
    assert one.p00_5 == pytest.approx(50, abs=25)


def test_a_constant_float_image_has_one_bin() -> None:
    found = count_values(np.full((4, 5, 1), 2.5, np.float32), None, 100)
    assert found is not None
    one = found.channel(0, "all")
    assert (one.std, one.median, one.histogram.counts) == (0.0, 2.5, (20,))
