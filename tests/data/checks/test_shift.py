from __future__ import annotations

from pathlib import Path

import numpy as np

from delineate.data.checks.listing import Pair
from delineate.data.checks.shift import label_shift
from delineate.data.dataset import DatasetInfo, Sample

CLASSES = ("background", "a", "b", "c")


def shifted(rng: np.random.Generator, extra: float, groups: int = 0) -> bool:
    """Whether a shift is found; ``extra`` is added to class 3 in val. Shares are skewed."""
    shares = rng.dirichlet([4, 2, 0.5, 0.2], 60)
    if groups:
        shares = shares[np.arange(60) % groups]  # images of a group are alike
    side = rng.permutation(60) < 15 if not groups else np.arange(60) % groups < groups // 4
    pairs, counts = [], []
    for index, (row, in_val) in enumerate(zip(shares, side, strict=True)):
        pixels = np.round(10_000 * row).astype(int)
        pixels[3] += int(extra * 10_000) * int(in_val)
        group = f"g{index % groups}" if groups else None
        sample = Sample(str(index), Path(f"{index}.png"), None, group)
        pairs.append(Pair("val" if in_val else "train", sample))
        counts.append({i: int(n) for i, n in enumerate(pixels) if n})
    return bool(label_shift(DatasetInfo(classes=CLASSES), pairs, counts))


def test_random_splits_give_no_alarm() -> None:
    rng = np.random.default_rng(5)
    assert (
        sum(shifted(rng, 0.0) for _ in range(300)) <= 5
    )  # under 1 % expected; 5 of 300 is p < 0.02
    assert sum(shifted(rng, 0.0, groups=20) for _ in range(50)) <= 2


def test_a_shift_is_found() -> None:
    rng = np.random.default_rng(5)
    assert sum(shifted(rng, 0.3) for _ in range(20)) >= 18


def test_too_few_images_say_nothing() -> None:
    pair = Pair("val", Sample("v", Path("v.png"), None, None))
    train = Pair("train", Sample("t", Path("t.png"), None, None))
    assert label_shift(DatasetInfo(classes=CLASSES), [train, pair], [{0: 9}, {3: 9}]) == []
