"""Any image through any predictor: stitched as if it had been one tile."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass, field

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delineate.bundle.load import load
from delineate.bundle.postprocess import postprocess
from delineate.config import PostprocessingSettings, TilingSettings
from delineate.engines.check import check_batch
from delineate.errors import ImageError, SettingsError
from delineate.tiling.grid import UNIT, blend_weights, tile_starts
from delineate.tiling.segment import class_shares, finished_strips, segment
from delineate.types import OUTPUTS, Prediction, PredictorSpec

CLASSES = ("background", "cell", "dirt")
SMALL = TilingSettings(tile_px=32, overlap_px=8)
SPEC = PredictorSpec(CLASSES, "multiclass", 3, "uint8")
EXACT = ("labels", "confidence", "probabilities")


@dataclass
class Pixelwise:
    """Each pixel's three channels are its scores; ``blur_px`` makes its neighbours matter."""

    spec: PredictorSpec = SPEC
    blur_px: int = 0
    shapes: list[tuple[int, ...]] = field(default_factory=list)

    def predict(self, images, outputs=("labels",)):
        check_batch(images, outputs, self.spec)
        self.shapes.append(images.shape)
        seen = np.stack([self._seen(image) for image in images])
        planes = np.moveaxis(seen, -1, 1) + 1.0
        planes /= planes.sum(axis=1, keepdims=True)
        labels, top = planes.argmax(axis=1).astype(np.uint8), planes.max(axis=1)
        entropy = -(planes * np.log(planes)).sum(axis=1)
        shares = [(labels == k).mean(axis=(1, 2)) for k in range(3)]
        summary = [*shares, top.mean(axis=(1, 2)), entropy.mean(axis=(1, 2))]
        found = {
            "labels": labels,
            "confidence": np.rint(top * 255).astype(np.uint8),
            "probabilities": np.rint(planes * 255).astype(np.uint8),
            "summary": np.stack(summary, axis=1).astype(np.float32),
        }
        return Prediction(**{name: found[name] for name in outputs})

    def _seen(self, image):
        if not self.blur_px:
            return image.astype(np.float64)
        side = 2 * self.blur_px + 1
        return cv2.blur(image.astype(np.float64), (side, side), borderType=cv2.BORDER_REPLICATE)


def _fixed(height, width, largest_batch=None):
    return Pixelwise(
        PredictorSpec(
            CLASSES, "multiclass", 3, "uint8",
            fixed_hw=(height, width), largest_batch=largest_batch,
        )
    )  # fmt: skip


def _image(height, width, seed=0):
    """One channel stands clear of the others in each pixel, so that rounding decides nothing."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 90, (height, width, 3), np.uint8)
    winner = rng.integers(0, 3, (height, width, 1))
    np.put_along_axis(image, winner, rng.integers(120, 256, (height, width, 1), np.uint8), axis=2)
    return image


def _assert_equal(found, expected, names=EXACT):
    for name in names:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    overlap_px=st.integers(0, 16),
    batch=st.integers(1, 5),
)
def test_pixelwise_stitched_is_untiled(height, width, overlap_px, batch):
    image = _image(height, width)
    tiling = TilingSettings(tile_px=32, overlap_px=overlap_px, batch=batch)
    found = segment(Pixelwise(), image, OUTPUTS, tiling=tiling)
    whole = Pixelwise().predict(image[None], OUTPUTS)
    _assert_equal(found, whole)
    # confidence and entropy are summed from 8-bit probabilities
    np.testing.assert_array_equal(found["summary"][:, :3], whole["summary"][:, :3])
    np.testing.assert_allclose(found["summary"], whole["summary"], atol=1 / 255)


@pytest.mark.parametrize("value", [0, 7, 255])
def test_a_constant_image(value):
    image = np.full((70, 45, 3), value, np.uint8)
    image[..., 1] = 100
    found = segment(Pixelwise(), image, OUTPUTS, tiling=SMALL)
    for name in EXACT:
        planes = found[name] if name == "probabilities" else found[name][:, None]
        assert (planes == planes[..., :1, :1]).all()


def test_one_tile_goes_through_whole():
    predictor = Pixelwise()
    image = _image(32, 20)
    calls = []
    found = segment(
        predictor, image, OUTPUTS, tiling=SMALL, on_tile=lambda *done: calls.append(done)
    )
    assert predictor.shapes == [(1, 32, 20, 3)]
    assert calls == [(1, 1)]
    _assert_equal(found, Pixelwise().predict(image[None], OUTPUTS), OUTPUTS)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_every_batch_size_gives_the_same_bits(tiny_bundle, engine):
    bundle = load(tiny_bundle, engine=engine, threads=1)
    image = np.random.default_rng(1).integers(0, 256, (75, 100, 3), np.uint8)
    expected = segment(bundle, image, OUTPUTS, tiling=SMALL)
    for batch in (2, 3, 8):
        tiling = SMALL.model_copy(update={"batch": batch})
        _assert_equal(segment(bundle, image, OUTPUTS, tiling=tiling), expected, OUTPUTS)


@settings(max_examples=15, deadline=None)
@given(order=st.randoms(use_true_random=False))
def test_no_tile_order_matters(order):
    """Sums are of whole numbers: tiles added in any order, one by one, give the strips' bits."""
    predictor = Pixelwise(blur_px=5)
    image = np.random.default_rng(2).integers(0, 256, (97, 75, 3), np.uint8)
    tiling = TilingSettings(tile_px=64, overlap_px=32)  # three tiles share some rows
    ys, xs = tile_starts(97, 64, 32), tile_starts(75, 64, 32)
    tiles = [
        (y, x, y_weight[:, None] * x_weight)
        for y, y_weight in zip(ys, blend_weights(ys, 64, 32), strict=True)
        for x, x_weight in zip(xs, blend_weights(xs, 64, 32), strict=True)
    ]
    order.shuffle(tiles)
    total = np.zeros((3, 97, 75), np.uint32)
    for y, x, weight in tiles:
        part = np.s_[y : y + 64, x : x + 64]
        planes = predictor.predict(image[part][None], ("probabilities",))["probabilities"][0]
        total[:, *part] += planes * weight
    strips = np.concatenate(list(finished_strips(predictor, image, tiling)), axis=1)
    np.testing.assert_array_equal(strips, total)
    found = segment(predictor, image, EXACT, tiling=tiling)
    np.testing.assert_array_equal(found["labels"][0], total.argmax(axis=0))
    rounded = (total + 2**15) >> 16
    np.testing.assert_array_equal(found["probabilities"][0], rounded)
    np.testing.assert_array_equal(found["confidence"][0], rounded.max(axis=0))


def test_a_mirrored_image_gives_the_mirrored_result():
    """The grid of 80 px is its own mirror image, and so are the weights."""
    predictor = Pixelwise(blur_px=5)
    image = np.random.default_rng(2).integers(0, 256, (80, 30, 3), np.uint8)
    expected = segment(predictor, image, EXACT, tiling=SMALL)
    found = segment(predictor, np.ascontiguousarray(image[::-1]), EXACT, tiling=SMALL)
    _assert_equal({name: np.flip(value, -2) for name, value in found.items()}, expected)


def test_weights_are_exact_to_the_last_bit():
    """Strips of a certain prediction hold UNIT squared times 255 everywhere."""
    image = np.zeros((90, 77, 3), np.uint8)

    class Certain(Pixelwise):
        def predict(self, images, outputs=("labels",)):
            assert outputs == ("probabilities",)
            planes = np.zeros((len(images), 3, *images.shape[1:3]), np.uint8)
            planes[:, 2] = 255
            return Prediction(probabilities=planes)

    strips = np.concatenate(list(finished_strips(Certain(), image, SMALL)), axis=1)
    assert strips.shape == (3, 90, 77)
    assert strips.dtype == np.uint32
    assert (strips[2] == UNIT * UNIT * 255).all()
    assert not strips[:2].any()


class Nearsighted(Pixelwise):
    """Sees zeros beyond the border in one channel, as padded convolutions do."""

    def _seen(self, image):
        seen = image.astype(np.float64)
        seen[..., 0] = cv2.blur(seen[..., 0], (13, 13), borderType=cv2.BORDER_CONSTANT)
        return seen


def test_no_seams():
    """A ramp through a network that errs at the edge of what it sees."""
    rows, columns = np.mgrid[:128, :128]
    image = np.stack([255 - rows, 100 + columns, 0 * rows], axis=-1).astype(np.uint8)
    predictor = Nearsighted()

    def planes(overlap_px):
        tiling = TilingSettings(tile_px=64, overlap_px=overlap_px)
        found = segment(predictor, image, ("probabilities",), tiling=tiling)
        return found["probabilities"][0].astype(int)

    whole = predictor.predict(image[None], ("probabilities",))["probabilities"][0].astype(int)
    inside = np.s_[:, 10:-10, 10:-10]  # at the border of the image the network errs either way

    def largest_jump(found):
        return max(np.abs(np.diff(found[inside], axis=axis)).max() for axis in (1, 2))

    soft, hard = planes(32), planes(0)
    assert np.abs(soft - whole).max() <= 5
    assert largest_jump(soft) <= largest_jump(whole) + 1
    # without overlap there are seams: the picture can tell
    assert np.abs(hard - whole).max() > 20
    assert largest_jump(hard) > largest_jump(whole) + 5


@pytest.mark.parametrize("shape", [(5, 7), (1, 60), (60, 1), (24, 40), (24, 41), (100, 30)])
@pytest.mark.parametrize("batch", [1, 4])
def test_a_predictor_of_one_size(shape, batch):
    predictor = _fixed(24, 40, largest_batch=2)
    image = _image(*shape)
    tiling = TilingSettings(tile_px=64, overlap_px=8, batch=batch)
    found = segment(predictor, image, OUTPUTS, tiling=tiling)
    whole = Pixelwise().predict(image[None], OUTPUTS)
    _assert_equal(found, whole)
    np.testing.assert_allclose(found["summary"], whole["summary"], atol=1 / 255)
    assert {seen[1:3] for seen in predictor.shapes} == {(24, 40)}
    assert max(seen[0] for seen in predictor.shapes) <= min(batch, 2)


def test_a_narrow_image_keeps_its_overlap():
    """One side smaller than the overlap does not shrink the overlap along the other."""
    predictor = Pixelwise()
    segment(predictor, _image(200, 3), tiling=SMALL)
    assert len(predictor.shapes) == -(-(200 - 32) // (32 - 8)) + 1


@pytest.mark.parametrize("outputs", [*((name,) for name in OUTPUTS), OUTPUTS[::-1]])
@pytest.mark.parametrize("shape", [(20, 20), (50, 40)])
def test_only_what_was_asked_for(outputs, shape):
    image = _image(*shape)
    tidy = PostprocessingSettings(smallest_object_px=4)
    for post in (PostprocessingSettings(), tidy):
        found = segment(Pixelwise(), image, outputs, tiling=SMALL, postprocessing=post)
        assert set(found) == set(outputs)
        everything = segment(Pixelwise(), image, OUTPUTS, tiling=SMALL, postprocessing=post)
        _assert_equal(found, everything, outputs)


def test_summary_is_that_of_the_stitched_probabilities():
    image = np.random.default_rng(3).integers(0, 256, (60, 80, 3), np.uint8)
    found = segment(Pixelwise(blur_px=3), image, OUTPUTS, tiling=SMALL)
    strips = np.concatenate(list(finished_strips(Pixelwise(blur_px=3), image, SMALL)), axis=1)
    planes = strips / strips.sum(axis=0)
    labels = strips.argmax(axis=0)
    entropy = -(planes * np.log(np.maximum(planes, 1e-12))).sum(axis=0).mean()
    shares = [(labels == k).mean() for k in range(3)]
    expected = [[*shares, planes.max(axis=0).mean(), entropy]]
    np.testing.assert_allclose(found["summary"], expected, atol=1e-5)
    np.testing.assert_array_equal(found["labels"][0], labels)


@pytest.mark.parametrize("shape", [(30, 30), (70, 50)], ids=["whole", "tiled"])
def test_post_processing_follows_stitching(shape):
    """A disc across the tiles' edges is one object, specks go, and the shares follow."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    disc = (rows - shape[0] // 2) ** 2 + (columns - shape[1] // 2) ** 2 < 100
    image = np.zeros((*shape, 3), np.uint8)
    image[..., 0] = 200
    image[disc] = (0, 200, 0)
    image[1, 1] = image[2, 2] = (0, 0, 200)
    image[shape[0] // 2, shape[1] // 2] = (200, 0, 0)
    tidy = PostprocessingSettings(smallest_object_px=200, largest_hole_px=1)
    raw = segment(Pixelwise(), image, OUTPUTS, tiling=SMALL)
    found = segment(Pixelwise(), image, OUTPUTS, tiling=SMALL, postprocessing=tidy)
    np.testing.assert_array_equal(found["labels"][0], disc)
    np.testing.assert_array_equal(found["labels"][0], postprocess(raw["labels"][0], tidy))
    share = disc.mean()
    np.testing.assert_allclose(found["summary"][0, :3], [1 - share, share, 0], atol=1e-6)
    np.testing.assert_array_equal(found["summary"][0, 3:], raw["summary"][0, 3:])
    _assert_equal(found, raw, ("confidence", "probabilities"))


def test_class_shares_sum_to_one():
    labels = np.random.default_rng(0).integers(0, 3, (31, 17)).astype(np.uint8)
    shares = class_shares(labels, 5)
    assert shares.dtype == np.float32
    np.testing.assert_allclose(shares.sum(), 1, atol=1e-6)
    assert shares[3:].tolist() == [0, 0]


def test_progress_counts_tiles():
    calls = []
    tiling = SMALL.model_copy(update={"batch": 2})
    segment(Pixelwise(), _image(60, 90), tiling=tiling, on_tile=lambda *done: calls.append(done))
    total = calls[-1][1]
    assert calls[-1] == (total, total)
    assert {end for _, end in calls} == {total}
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})


def test_memory_of_strips_does_not_grow_with_height():
    def peak(height, width):
        image = np.zeros((height, width, 3), np.uint8)
        tracemalloc.start()
        for strip in finished_strips(Pixelwise(), image, SMALL):
            del strip
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    low = peak(64, 512)
    assert peak(256, 512) < 1.2 * low
    assert peak(64, 1536) > 2 * low


@pytest.mark.parametrize("shape", [(20, 20), (50, 40)], ids=["whole", "tiled"])
@pytest.mark.usefixtures("unchecked")
def test_what_does_not_fit_is_refused(shape):
    """In the same words, tiled or not."""
    with pytest.raises(ImageError) as caught:
        segment(Pixelwise(), np.zeros((*shape, 4), np.uint8), tiling=SMALL)
    assert str(caught.value) == "the image has 4 channels, the model takes 3."
    with pytest.raises(ImageError, match=r"^pixels are uint16, the model takes uint8"):
        segment(Pixelwise(), np.zeros((*shape, 3), np.uint16), tiling=SMALL)
    for outputs in (("mask",), ()):
        with pytest.raises(SettingsError, match=r"^asked for outputs "):
            segment(Pixelwise(), _image(*shape), outputs, tiling=SMALL)
