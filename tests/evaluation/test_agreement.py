"""Scores agree with independent implementations on random cases.

Where torchmetrics 1.9 is another thing and is not compared:

- Its ``MulticlassJaccardIndex(average="macro")`` gives a class that is in neither truth nor
  prediction 0 unless it is the ignored one; here such a class is left out. Its per-class values
  are compared where they are defined.
- Its ``ignore_index`` inside the classes also drops what was predicted as that class; here it is
  a mistake to predict it. Only an index outside the classes is compared.
- ``PanopticQuality`` leaves out a true object that lies mostly on void *predictions*, of which a
  label map has none.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from sklearn.metrics import confusion_matrix, f1_score, jaccard_score
from torchmetrics.classification import (
    MulticlassCalibrationError,
    MulticlassConfusionMatrix,
    MulticlassJaccardIndex,
)
from torchmetrics.functional.detection import panoptic_quality

from delineate.evaluation.boundary import BoundaryTally, boundary_width
from delineate.evaluation.calibration import CalibrationTally
from delineate.evaluation.confusion import Confusion
from delineate.evaluation.instances import InstanceTally, connected_objects
from delineate.evaluation.scores import compute_scores

SEEDS = st.integers(0, 2**32 - 1)
IGNORE = 255


def case(
    seed: int, k: int, *, ignore: bool, absent: bool = False, hw: tuple[int, int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Blobs of truth, and a prediction that differs from it here and there."""
    rng = np.random.default_rng(seed)
    height, width = hw or (int(rng.integers(4, 40)), int(rng.integers(4, 40)))
    ids = np.arange(k - 1) if absent and k > 2 else np.arange(k)
    cell = int(rng.integers(1, 9))

    def blobs() -> np.ndarray:
        coarse = rng.choice(ids, (-(-height // cell), -(-width // cell)))
        return coarse.repeat(cell, 0).repeat(cell, 1)[:height, :width].astype(np.uint8)

    truth = blobs()
    labels = np.where(rng.random((height, width)) < 0.7, truth, blobs()).astype(np.uint8)
    if ignore:
        truth[rng.random((height, width)) < 0.1] = IGNORE
        truth[: int(rng.integers(0, height)), : int(rng.integers(0, width))] = IGNORE
    return truth, labels


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.integers(2, 6), st.booleans(), st.booleans())
def test_scores_of_the_confusion_matrix(seed: int, k: int, ignore: bool, absent: bool) -> None:
    truth, labels = case(seed, k, ignore=ignore, absent=absent)
    confusion = Confusion([f"c{i}" for i in range(k)], IGNORE)
    confusion.update(truth, labels)
    scores = compute_scores(confusion)
    counted = truth != IGNORE
    t, p = truth[counted], labels[counted]
    if t.size:
        expected = confusion_matrix(t, p, labels=range(k))
        np.testing.assert_array_equal(confusion.counts, expected)
    metric = MulticlassConfusionMatrix(k, ignore_index=IGNORE)
    tensors = torch.from_numpy(labels.astype(int)), torch.from_numpy(truth.astype(int))
    np.testing.assert_array_equal(confusion.counts, metric(*tensors).numpy())
    defined = [i for i in range(k) if (t == i).any() or (p == i).any()]
    assert [i for i in range(k) if not math.isnan(scores.iou[i])] == defined
    if not defined:
        return
    iou = jaccard_score(t, p, labels=defined, average=None)
    f1 = f1_score(t, p, labels=defined, average=None)
    assert [scores.iou[i] for i in defined] == pytest.approx(iou)
    assert [scores.dice[i] for i in defined] == pytest.approx(f1)
    assert scores.mean_iou == pytest.approx(iou.mean())
    assert scores.mean_dice == pytest.approx(f1.mean())
    other = MulticlassJaccardIndex(k, average="none", ignore_index=IGNORE)(*tensors).numpy()
    assert [scores.iou[i] for i in defined] == pytest.approx(other[defined], abs=1e-6)


def published_boundary(mask: np.ndarray, share: float) -> np.ndarray:
    """The band of a binary mask, step by step as the published code makes it."""
    height, width = mask.shape
    steps = max(1, round(share * math.sqrt(height**2 + width**2)))
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    for _ in range(steps):
        padded = cv2.erode(padded, np.ones((3, 3), np.uint8))
    return mask & ~padded[1:-1, 1:-1].astype(bool)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.integers(2, 5), st.booleans(), st.sampled_from([0.02, 0.07, 0.4]))
def test_boundary_iou(seed: int, k: int, absent: bool, share: float) -> None:
    cases = [case(seed + i, k, ignore=False, absent=absent) for i in range(2)]
    tally = BoundaryTally([f"c{i}" for i in range(k)], None, share)
    shared, union = np.zeros(k), np.zeros(k)
    for truth, labels in cases:
        tally.update(truth, labels)
        for i in range(k):
            g, p = published_boundary(truth == i, share), published_boundary(labels == i, share)
            shared[i] += np.sum(g & p)
            union[i] += np.sum(g | p)
    expected = np.divide(shared, union, out=np.full(k, np.nan), where=union > 0)
    found = tally.scores()
    np.testing.assert_allclose(found.iou, expected)
    assert found.mean_iou == pytest.approx(np.nanmean(expected))


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.integers(2, 5), st.sampled_from([0.05, 0.2]))
def test_boundary_iou_beside_ignored_pixels(seed: int, k: int, share: float) -> None:
    """No mask ends at an ignored pixel: there, the erosion sees more of the same."""
    truth, labels = case(seed, k, ignore=True)
    tally = BoundaryTally([f"c{i}" for i in range(k)], IGNORE, share)
    tally.update(truth, labels)
    void = truth == IGNORE
    reach = boundary_width(*truth.shape, share)
    for i, found in enumerate(tally.scores().iou):
        bands = []
        for mask in (truth == i, labels == i):
            open_mask = np.pad(mask | void, 1)  # beyond the image is another class
            near = ndimage.minimum_filter(open_mask, 2 * reach + 1, mode="constant", cval=0)
            bands.append(mask & ~void & ~near[1:-1, 1:-1])
        union = np.sum(bands[0] | bands[1])
        expected = np.sum(bands[0] & bands[1]) / union if union else math.nan
        np.testing.assert_allclose(found, expected)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.booleans())
def test_calibration_error(seed: int, ignore: bool) -> None:
    truth, labels = case(seed, 4, ignore=ignore)
    rng = np.random.default_rng(seed)
    # at the bins' own edges, k * 17, torchmetrics takes the upper bin and the definition the lower
    values = [value for value in range(60, 256) if value % 17 or value == 255]
    confidence = rng.choice(values, truth.shape).astype(np.uint8)
    tally = CalibrationTally(IGNORE)
    tally.update(truth, labels, confidence)
    counted = truth != IGNORE
    sure, right = confidence[counted] / 255, (truth == labels)[counted]
    if not sure.size:
        assert math.isnan(tally.scores().error)
        return
    total = 0.0
    for m in range(15):  # the definition
        inside = (sure > m / 15) & (sure <= (m + 1) / 15)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - sure[inside].mean())
    assert tally.scores().error == pytest.approx(total, abs=1e-9)
    planes = torch.from_numpy(np.repeat((1 - sure)[:, None] / 7, 8, axis=1))
    planes[:, 0] = torch.from_numpy(sure)
    inside = sure < 1  # it has a bin of its own for 1
    metric = MulticlassCalibrationError(8, n_bins=15, norm="l1")
    expected = metric(planes[inside], torch.from_numpy((~right[inside]).astype(int)))
    below_one = CalibrationTally(None)
    zeros = np.zeros((1, int(inside.sum())), np.uint8)
    below_one.update(
        (~right[inside])[None].astype(np.uint8), zeros, confidence[counted][inside][None]
    )
    assert below_one.scores().error == pytest.approx(float(expected), abs=1e-5)


@settings(max_examples=8, deadline=None)  # torchmetrics takes half a second for each
@given(SEEDS, st.integers(2, 4), st.booleans())
def test_panoptic_quality(seed: int, k: int, ignore: bool) -> None:
    tally = InstanceTally([f"c{i}" for i in range(k)], IGNORE)
    predicted, true = [], []
    for i in range(2):
        truth, labels = case(seed + i, k, ignore=False, hw=(14, 14))
        objects = connected_objects(truth)  # each of one class, and none without an id
        ids = objects.ids.astype(np.uint16)
        if ignore:
            truth[np.random.default_rng(seed).random(truth.shape) < 0.2] = IGNORE
        tally.update(truth, ids, labels)
        found = connected_objects(labels)
        predicted.append(np.stack([labels, found.ids], axis=-1).astype(int))
        true.append(np.stack([truth, ids], axis=-1).astype(int))
    # class 255 is neither thing nor stuff: void
    expected = panoptic_quality(
        torch.from_numpy(np.stack(predicted)),
        torch.from_numpy(np.stack(np.where(np.stack(true) == IGNORE, 200, np.stack(true)))),
        things=set(range(k)),
        stuffs=set(),
        allow_unknown_preds_category=True,
        return_sq_and_rq=True,
        return_per_class=True,
    ).numpy()
    scores = tally.scores()
    assert scores is not None
    for i in scores.scored:
        rows = (scores.pq[i], np.nan_to_num(scores.sq[i]), scores.rq[i])
        assert rows == pytest.approx(tuple(expected[i]), abs=1e-6)  # float32


def dsb2018(true: np.ndarray, predicted: np.ndarray, thresholds: np.ndarray) -> float:
    """The 2018 Data Science Bowl's score of one image, from the table of all IoUs."""
    t = [true == i for i in range(1, true.max() + 1)]
    p = [predicted == i for i in range(1, predicted.max() + 1)]
    table = np.array([[np.sum(a & b) / np.sum(a | b) for b in p] for a in t])
    values = []
    for threshold in thresholds:
        hits = table > threshold
        tp = np.sum(hits.sum(axis=1) == 1)
        fp, fn = np.sum(hits.sum(axis=0) == 0), np.sum(hits.sum(axis=1) == 0)
        values.append(tp / (tp + fp + fn))
    return float(np.mean(values))


@settings(max_examples=10, deadline=None)
@given(SEEDS)
def test_average_precision_of_the_data_science_bowl(seed: int) -> None:
    tally = InstanceTally(("background", "nucleus"), None)
    expected: list[tuple[float, float]] = []
    for i in range(3):
        truth, labels = case(seed + i, 2, ignore=False, hw=(24, 24))
        truth[0, 0] = labels[0, 0] = 1  # an object in each
        ids, found = (ndimage.label(m, np.ones((3, 3)))[0] for m in (truth, labels))
        tally.update(truth, ids.astype(np.uint16), labels)
        steps = np.arange(50, 100, 5) / 100
        expected.append((dsb2018(ids, found, steps[:1]), dsb2018(ids, found, steps)))
    scores = tally.scores()
    assert scores is not None
    assert (scores.ap50[1], scores.ap[1]) == pytest.approx(tuple(np.mean(expected, axis=0)))
    assert scores.scored == (1,)
