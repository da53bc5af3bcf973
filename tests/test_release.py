"""A release with post-processing chosen on val: what the manifest says is what was scored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from delineate.bundle.manifest import ClassInfo, InputInfo, Manifest, Variant
from delineate.config import Normalisation, PostprocessingSettings
from delineate.data.dataset import Sample
from delineate.release import release
from delineate.types import Images, Output, Prediction, PredictorSpec

SIDE = 64
COUNT = 8


class Speckled:
    """Finds the bright square, and specks of 3 x 3 pixels beside it."""

    spec = PredictorSpec(("background", "cell"), "binary", 3, "uint8")

    def predict(self, images: Images, outputs: Sequence[Output] = ("labels",)) -> Prediction:
        labels = (images[..., 0] > 100).astype(np.uint8)
        labels[:, 50:53, ::8] = labels[:, 51, 1::8] = 0
        labels[:, 50:53, 4:7] = labels[:, 50:53, 14:17] = 1
        full: Prediction = {
            "labels": labels,
            "confidence": np.full(labels.shape, 200, np.uint8),
            "probabilities": np.stack([255 - 255 * labels, 255 * labels], axis=1),
            "summary": np.array(
                [[1 - one.mean(), one.mean(), 0.8, 0.5] for one in labels], np.float32
            ),
        }
        return {name: full[name] for name in outputs}  # type: ignore[return-value]


@pytest.fixture(scope="module")
def val(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sample, ...]:
    folder = tmp_path_factory.mktemp("val")
    samples = []
    for index in range(COUNT):
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[4 + index : 34, 8:40] = 1
        image = np.repeat(40 + 160 * mask[..., None], 3, axis=2)
        for kind, pixels in (("image", image), ("mask", mask)):
            cv2.imwrite(str(folder / f"{kind}{index}.png"), pixels)
        paths = (folder / f"image{index}.png", folder / f"mask{index}.png")
        samples.append(Sample(f"image{index}", *paths, None))
    return tuple(samples)


def read(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    assert sample.mask is not None
    mask = cv2.imread(str(sample.mask), cv2.IMREAD_UNCHANGED)
    return cv2.imread(str(sample.image)), mask


def released(
    val: Sequence[Sample], out: Path, *, choose: bool, post: PostprocessingSettings | None = None
) -> Manifest:
    draft = Manifest(
        name="specks",
        task="binary",
        classes=tuple(
            ClassInfo(id=i, name=name, colour=(i, i, i))
            for i, name in enumerate(("background", "cell"))
        ),
        input=InputInfo(
            channels=3, dtype="uint8", normalisation=Normalisation(mean=(0.0,) * 3, std=(1.0,) * 3)
        ),
        postprocessing=post or PostprocessingSettings(),
        variants={"float32": Variant(file="model.onnx")},
    )
    manifest, _ = release(
        Speckled(),
        {"model.onnx": b"none"},
        draft,
        out,
        val=val,
        read=read,
        software=(),
        canary=False,
        choose=choose,
    )
    return manifest


def test_what_helps_is_in_the_manifest_and_in_the_scores(
    val: tuple[Sample, ...], tmp_path: Path
) -> None:
    raw = released(val, tmp_path / "raw.bundle", choose=False)
    clean = released(val, tmp_path / "clean.bundle", choose=True)
    assert raw.postprocessing == PostprocessingSettings()
    assert "postprocessing_tried" not in raw.provenance
    assert clean.postprocessing.smallest_object_px == 16
    assert clean.provenance["postprocessing_tried"]
    scores = [one.variants["float32"].scores["mean_iou"] for one in (raw, clean)]
    assert scores[1] == 1.0
    assert scores[0] is not None
    assert scores[0] < 1.0
    card = (tmp_path / "clean.bundle/card.md").read_text()
    assert "Objects of fewer than 16 px become background." in card
    assert "postprocessing tried" not in card
    assert "Objects of fewer" not in (tmp_path / "raw.bundle/card.md").read_text()


def test_what_was_set_by_hand_stays(val: tuple[Sample, ...], tmp_path: Path) -> None:
    by_hand = PostprocessingSettings(largest_hole_px=3)
    found = released(val, tmp_path / "hand.bundle", choose=True, post=by_hand)
    assert found.postprocessing == by_hand
    assert "postprocessing_tried" not in found.provenance
