from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from delineate.bundle.load import Bundle
from delineate.data.dataset import Dataset
from delineate.errors import DatasetError, ImageError, SettingsError
from delineate.evaluation.details import Details
from delineate.workflows.evaluate import EvaluateSettings, evaluate, labelled, predict_with

Make = Callable[..., Path]
Fake = Callable[..., Bundle]


def test_a_bundle_on_disk(trained: Any, tmp_path: Path) -> None:
    seen: list[int] = []
    report = tmp_path / "report.html"
    found = evaluate(
        trained.bundle,
        trained.dataset,
        engine="onnxruntime",
        report=report,
        on_progress=lambda done, _: seen.append(done),
    )
    assert seen == [1, 2]
    assert found.scores == trained.result.evaluation.scores
    page = report.read_text()
    assert "first on data, val" in page
    assert "onnxruntime" in page


def test_another_split(trained: Any) -> None:
    found = evaluate(trained.bundle, trained.dataset, split="train", engine="onnxruntime")
    assert found.n_images == 4


def test_perfect_predictions(fake_bundle: Fake, trained: Any) -> None:
    found = evaluate(fake_bundle("sky", "ground", "car"), trained.dataset)
    assert found.scores.mean_iou == 1


def test_post_processing_counts(fake_bundle: Fake, trained: Any) -> None:
    found = evaluate(fake_bundle("sky", "ground", "car", smallest_object_px=10**6), trained.dataset)
    assert found.scores.iou[1:] == (0, 0)


def test_other_classes(fake_bundle: Fake, trained: Any) -> None:
    with pytest.raises(DatasetError) as caught:
        evaluate(fake_bundle("sky", "car", "ground"), trained.dataset)
    assert str(caught.value) == (
        f"{trained.dataset}: its classes are sky, ground, car, those of by-brightness are sky, "
        "car, ground. Evaluate on a dataset with the same classes in the same order."
    )


def test_a_bundle_may_predict_what_the_dataset_ignores(
    fake_bundle: Fake, tmp_path: Path, make_dataset: Make
) -> None:
    data = make_dataset(tmp_path / "data", classes=("a", "b"), ignore_index=2)
    void = fake_bundle("a", "b", "void", ignore_index=2)
    found = evaluate(void, data)
    assert found.scores.iou[:2] == (1, 1)
    assert math.isnan(found.scores.iou[2])
    assert found.scores.mean_iou == 1
    # one class too far: b is predicted as void, which misses it, and a as b
    shifted = evaluate(fake_bundle("a", "b", "void", ignore_index=2, shift=1), data)
    counts = shifted.confusion.counts
    assert counts[2].sum() == 0  # ignored pixels count nowhere
    assert counts[1, 2] == counts[1].sum() > 0
    assert shifted.scores.recall[:2] == (0, 0)
    assert shifted.scores.mean_iou == 0
    assert shifted.scores.pixel_accuracy == 0


def test_a_void_class_without_an_ignore_index_is_told(
    fake_bundle: Fake, tmp_path: Path, make_dataset: Make
) -> None:
    data = make_dataset(tmp_path / "data", classes=("a", "b"), ignore_index=2)
    with pytest.raises(DatasetError) as caught:
        evaluate(fake_bundle("a", "b", "void"), data)
    assert str(caught.value) == (
        f"{data}: its classes are a, b, those of by-brightness are a, b, void. If void is what "
        "the dataset ignores, import the network with --ignore-index 2."
    )


@pytest.mark.parametrize("ignore_index", [None, 255])
def test_one_class_more_is_void_only_if_the_dataset_says_so(
    fake_bundle: Fake, tmp_path: Path, make_dataset: Make, ignore_index: int | None
) -> None:
    data = make_dataset(tmp_path / "data", classes=("a", "b"), ignore_index=ignore_index)
    with pytest.raises(DatasetError, match=r"in the same order\.$"):
        evaluate(fake_bundle("a", "b", "void", ignore_index=2), data)


def test_an_ignored_class_among_those_of_both(
    fake_bundle: Fake, tmp_path: Path, make_dataset: Make
) -> None:
    data = make_dataset(tmp_path / "data", classes=("a", "b", "void"), ignore_index=2)
    found = evaluate(fake_bundle("a", "b", "void", ignore_index=2), data)
    assert found.scores.mean_iou == 1
    assert math.isnan(found.scores.iou[2])


def test_labelled(tmp_path: Path, make_dataset: Make) -> None:
    path = make_dataset(tmp_path / "data")
    assert [sample.name for sample in labelled(Dataset.open(path), "val")] == ["val0", "val1"]
    with pytest.raises(DatasetError, match=r"has no split 'test'"):
        labelled(Dataset.open(path), "test")


def test_images_of_another_kind_are_named(
    fake_bundle: Fake, tmp_path: Path, make_dataset: Make
) -> None:
    data = make_dataset(tmp_path / "data", dtype="uint16")
    with pytest.raises(ImageError) as caught:
        evaluate(fake_bundle(), data)
    assert str(caught.value) == (
        f"{data / 'val/images/val0.png'}: pixels are uint16, the model takes uint8. Convert the "
        "image to uint8 in the value range the model was trained on."
    )


def test_a_grey_image_is_given_as_colour(
    fake_bundle: Fake, make_picture: Callable[..., Any]
) -> None:
    image, mask = make_picture(0, channels=1)
    labels = predict_with(fake_bundle("sky", "ground", "car"))(image)
    assert np.array_equal(labels, mask)


def test_a_class_map_over_both(fake_bundle: Fake, trained: Any, tmp_path: Path) -> None:
    bundle = fake_bundle("sky", "automobile", "earth")  # what is ground is called automobile
    joined = "car=thing,ground=thing,automobile=thing,earth=thing"
    found = evaluate(bundle, trained.dataset, class_map=joined, report=str(tmp_path / "r.html"))
    assert found.scores.classes == ("sky", "thing")
    assert found.scores.mean_iou == 1
    assert "thing" in (tmp_path / "r.html").read_text()
    crossed = evaluate(bundle, trained.dataset, class_map="automobile=car,earth=ground")
    assert found.scores.classes != crossed.scores.classes == ("sky", "ground", "car")
    assert crossed.scores.iou == (1, 0, 0)
    named = evaluate(bundle, trained.dataset, class_map="automobile=ground,earth=car")
    assert named.scores.iou == (1, 1, 1)


def test_an_ignored_class_counts_nowhere(fake_bundle: Fake, trained: Any) -> None:
    bundle = fake_bundle("sky", "ground", "ground2")
    found = evaluate(bundle, trained.dataset, class_map="car=ignore,ground2=ground")
    assert found.scores.classes == ("sky", "ground")
    assert found.scores.mean_iou == 1
    whole = evaluate(fake_bundle("sky", "ground", "car"), trained.dataset)
    assert found.scores.pixels < whole.scores.pixels


@pytest.mark.parametrize(
    ("class_map", "message"),
    [
        (
            "car=void",
            "--map: would ignore predictions of car; only true labels are ignored. Map it to a "
            "class: car=sky.",
        ),
        (
            "ground=car,earth=car",
            "--map: makes sky, car of the dataset's classes and sky, car, pond of the model's. "
            "Map both to the same names.",
        ),
        ("care=sky", "--map: maps 'care', and there is no such class. Did you mean car?"),
    ],
)
def test_maps_that_do_not_fit(
    fake_bundle: Fake, trained: Any, class_map: str, message: str
) -> None:
    names = ("sky", "earth", "pond") if "earth" in class_map else ("sky", "ground", "car")
    bundle = fake_bundle(*names)
    with pytest.raises(SettingsError) as caught:
        evaluate(bundle, trained.dataset, class_map=class_map)
    assert str(caught.value) == message


def write_instances(data: Path, split: str = "val") -> None:
    """Object ids for every image of a split: each stripe of a class but the first."""
    (data / split / "instances").mkdir()
    for file in sorted((data / split / "masks").iterdir()):
        mask = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        _, ids = cv2.connectedComponents((mask > 0).astype(np.uint8))
        ids = 2 * ids + (mask == 2)  # stripes of two classes touch
        ids[mask == 0] = 0
        cv2.imwrite(str(data / split / "instances" / file.name), ids.astype(np.uint16))


class TestDetails:
    def test_they_are_measured(self, fake_bundle: Fake, trained: Any, tmp_path: Path) -> None:
        report = tmp_path / "r.html"
        found = evaluate(fake_bundle(shift=1), trained.dataset, report=report)
        details = found.details
        assert details.boundary is not None
        assert details.boundary.mean_iou < 1
        assert details.calibration is not None
        wrong = 1 - found.scores.pixel_accuracy
        assert details.calibration.error == pytest.approx(wrong)  # it is always certain
        assert details.intervals is not None
        assert (details.intervals.unit, details.intervals.units) == ("images", 2)
        assert details.instances is None
        document = found.to_dict()
        assert {"boundary", "calibration", "intervals"} <= set(document)
        assert not {"instances", "comparison"} & set(document)
        page = report.read_text()
        assert "Boundary IoU" in page
        assert "Reliability diagram" in page
        assert "bootstrap over 2 images" in page

    def test_they_can_be_spared(self, fake_bundle: Fake, trained: Any) -> None:
        plain = EvaluateSettings(details=False)
        found = evaluate(fake_bundle(), trained.dataset, settings=plain)
        assert found.details == Details()
        assert found.scores.mean_iou == 1

    def test_groups_are_drawn(self, fake_bundle: Fake, tmp_path: Path, make_dataset: Make) -> None:
        data = make_dataset(tmp_path / "data", val=4)
        info = data / "dataset.yaml"
        groups = {f"train{i}": "a" for i in range(4)} | {f"val{i}": f"b{i % 2}" for i in range(4)}
        info.write_text(f"{info.read_text()}groups: {json.dumps(groups)}\n")
        found = evaluate(fake_bundle(shift=1), data).details.intervals
        assert found is not None
        assert (found.unit, found.units) == ("groups", 2)

    def test_objects(self, fake_bundle: Fake, tmp_path: Path, make_dataset: Make) -> None:
        data = make_dataset(tmp_path / "data")
        write_instances(data)
        report = tmp_path / "r.html"
        found = evaluate(fake_bundle("sky", "ground", "car"), data, report=report)
        instances = found.details.instances
        assert instances is not None
        assert instances.scored == (1, 2)
        assert instances.pq[1:] == (1.0, 1.0)
        assert found.to_dict()["instances"]["mean_pq"] == 1.0  # type: ignore[index]
        assert "Panoptic quality" in report.read_text()

    def test_joined_classes_have_no_confidence(self, fake_bundle: Fake, trained: Any) -> None:
        found = evaluate(fake_bundle(), trained.dataset, class_map="car=ground")
        assert found.details.calibration is None
        assert found.details.boundary is not None


class TestAgainst:
    def test_two_bundles(self, fake_bundle: Fake, trained: Any, tmp_path: Path) -> None:
        seen: list[int] = []
        worse, report = fake_bundle(shift=1), tmp_path / "r.html"
        found = evaluate(
            worse,
            trained.dataset,
            settings=EvaluateSettings(against=fake_bundle(), details=False),
            report=report,
            on_progress=lambda done, _: seen.append(done),
        )
        assert seen == [1, 2, 3, 4]
        comparison = found.comparison
        assert comparison is not None
        assert comparison.scores.mean_iou == 1
        gain = 1 - found.scores.mean_iou
        assert comparison.mean_iou.value == pytest.approx(gain)
        assert comparison.verdict().startswith(
            f"B (by-brightness) is better by {100 * gain:.1f} points of mean IoU, 95 % interval "
        )
        assert comparison.verdict() in report.read_text()
        assert found.to_dict()["comparison"]["b"] == "B (by-brightness)"  # type: ignore[index]

    def test_a_bundle_on_disk(self, trained: Any) -> None:
        settings = EvaluateSettings(against=trained.bundle)
        found = evaluate(trained.bundle, trained.dataset, engine="onnxruntime", settings=settings)
        assert found.comparison is not None
        assert found.comparison.mean_iou.interval == (0, 0)
        assert found.comparison.a == "A (first)"

    def test_other_classes(self, fake_bundle: Fake, tmp_path: Path, make_dataset: Make) -> None:
        data = make_dataset(tmp_path / "data", classes=("a", "b"), ignore_index=2)
        settings = EvaluateSettings(against=fake_bundle("a", "b"))
        with pytest.raises(SettingsError) as caught:
            evaluate(fake_bundle("a", "b", "void", ignore_index=2), data, settings=settings)
        assert str(caught.value) == (
            "--against: by-brightness is scored over a, b, void and by-brightness over a, b. "
            "Bring both to the same classes with --map."
        )


class TestHowImagesArePredicted:
    def test_tiles(self, fake_bundle: Fake, trained: Any) -> None:
        bundle = fake_bundle()
        predictor = bundle._predictor
        evaluate(bundle, trained.dataset)
        assert set(predictor.sizes) == {(48, 40)}  # type: ignore[attr-defined]
        predictor.sizes.clear()  # type: ignore[attr-defined]
        settings = EvaluateSettings(tile_px=32, overlap_px=8)
        found = evaluate(bundle, trained.dataset, settings=settings)
        assert set(predictor.sizes) == {(32, 32)}  # type: ignore[attr-defined]
        assert found.scores.mean_iou == 1

    def test_tiles_that_do_not_fit(self, fake_bundle: Fake, trained: Any) -> None:
        settings = EvaluateSettings(tile_px=32, overlap_px=17)
        with pytest.raises(SettingsError, match=r"^--tile, --overlap: .*overlap_px is 17, more"):
            evaluate(fake_bundle(), trained.dataset, settings=settings)

    def test_views(self, fake_bundle: Fake, trained: Any) -> None:
        bundle = fake_bundle()
        predictor = bundle._predictor
        found = evaluate(bundle, trained.dataset, settings=EvaluateSettings(tta="dihedral"))
        assert sorted(predictor.sizes) == [(40, 48)] * 8 + [(48, 40)] * 8  # type: ignore[attr-defined]
        assert found.scores.mean_iou == 1

    def test_unknown_views(self, fake_bundle: Fake, trained: Any) -> None:
        with pytest.raises(SettingsError, match="Choose from flips, dihedral"):
            evaluate(fake_bundle(), trained.dataset, settings=EvaluateSettings(tta="turns"))
