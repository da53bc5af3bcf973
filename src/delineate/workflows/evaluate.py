"""``delineate evaluate``: a bundle's scores on a dataset, a comparison, and a report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from delineate.bundle.load import Bundle, load
from delineate.bundle.manifest import Manifest
from delineate.config import TilingSettings, with_changes
from delineate.data.class_map import ClassMap
from delineate.data.dataset import Dataset, Sample, read_instances, read_pair
from delineate.data.images import fit_channels
from delineate.data.palette import Colour
from delineate.engines.tta import TtaPredictor
from delineate.errors import DatasetError, ImageError, SettingsError
from delineate.evaluation.comparison import Comparison, compare_models
from delineate.evaluation.details import DetailSettings, Predicted
from delineate.evaluation.evaluate import Answer, Evaluation, ImageScore, Predict
from delineate.evaluation.evaluate import evaluate as score
from delineate.evaluation.report import write_report
from delineate.tiling.segment import segment
from delineate.types import Image, LabelMap, Predictor, PredictorSpec


@dataclass(frozen=True)
class EvaluateSettings:
    """How a bundle is evaluated.

    Attributes:
        details: boundary IoU, calibration, bootstrap intervals, and instance scores where the
            dataset has object ids; without them, the confusion matrix and its scores alone.
        against: another bundle, or its path, to compare with on the same images; it needs the
            details of both.
        tta: average over mirrored (``flips``) or also turned (``dihedral``) views of each image.
        tile_px: side of a tile, pixels; the bundle's own when left out.
        overlap_px: overlap of tiles, pixels; the bundle's own when left out.
    """

    details: bool = True
    against: Bundle | Path | str | None = None
    tta: str | None = None
    tile_px: int | None = None
    overlap_px: int | None = None

    def tiling(self, bundle: Bundle) -> TilingSettings:
        """The tiling of ``bundle`` with what is to be changed.

        Raises:
            SettingsError: the two sizes do not fit each other.
        """
        given = {"tile_px": self.tile_px, "overlap_px": self.overlap_px}
        changes = {name: value for name, value in given.items() if value is not None}
        return with_changes(bundle.manifest.tiling, changes, "--tile, --overlap")

    def predictor(self, bundle: Bundle) -> Predictor:
        """``bundle``, with test-time augmentation if it is asked for."""
        return bundle if self.tta is None else TtaPredictor(bundle, self.tta)


def labelled(data: Dataset, split: str) -> tuple[Sample, ...]:
    """The samples of a split, each of which must have a mask.

    Raises:
        DatasetError: the split is absent or empty, or a mask is missing.
    """
    samples = data.split(split)
    without = [sample.image.name for sample in samples if sample.mask is None]
    mend = f"delineate data check {data.path} lists everything that is wrong."
    if not samples:
        raise DatasetError(f"the split {split} has no images", where=data.path, mend=mend)
    if without:
        raise DatasetError(
            f"{len(without)} of {len(samples)} images of {split} have no mask ({without[0]})",
            where=data.path,
            mend=mend,
        )
    return samples


def as_input(image: Image, spec: PredictorSpec, where: Path) -> Shaped[np.ndarray, "h w k"]:
    """``image`` as a model takes it: grey is repeated into three channels.

    Raises:
        ImageError: the pixel type or the number of channels differs otherwise.
    """
    if image.dtype != spec.dtype:
        raise ImageError(
            f"pixels are {image.dtype}, the model takes {spec.dtype}",
            where=where,
            mend=f"Convert the image to {spec.dtype} in the value range the model was trained on.",
        )
    return fit_channels(image, spec.channels, str(where))


def predict_with(bundle: Bundle, settings: EvaluateSettings = EvaluateSettings()) -> Predict:
    """A function from an image of any size to its class ids, as the bundle's manifest says."""
    predictor, tiling = settings.predictor(bundle), settings.tiling(bundle)

    def predict(image: Image) -> LabelMap:
        labels: LabelMap = segment(
            predictor,
            fit_channels(image, bundle.spec.channels, "the image"),
            tiling=tiling,
            postprocessing=bundle.manifest.postprocessing,
        )["labels"][0]
        return labels

    return predict


def refuse_other_classes(data: Dataset, manifest: Manifest) -> None:
    classes, ignore = data.info.classes, data.info.ignore_index
    if classes == manifest.class_names:
        return
    mend = "Evaluate on a dataset with the same classes in the same order."
    if classes == manifest.class_names[:-1] and ignore == len(classes):
        if manifest.ignore_index == ignore:
            return
        mend = (
            f"If {manifest.class_names[-1]} is what the dataset ignores, import the network with "
            f"--ignore-index {ignore}."
        )
    raise DatasetError(
        f"its classes are {', '.join(classes)}, those of {manifest.name} are "
        f"{', '.join(manifest.class_names)}",
        where=data.path,
        mend=mend,
    )


@dataclass(frozen=True)
class _Terms:
    """The classes in which truth and prediction are compared, and the way of both to them."""

    classes: tuple[str, ...]
    ignore_index: int | None
    colours: tuple[Colour, ...]
    of_truth: Callable[[LabelMap], LabelMap]
    of_prediction: Callable[[LabelMap], LabelMap]


def _terms(data: Dataset, manifest: Manifest, class_map: str | None) -> _Terms:
    if class_map is None:
        refuse_other_classes(data, manifest)
        ignore = data.info.ignore_index
        return _Terms(manifest.class_names, ignore, manifest.colours, _as_it_is, _as_it_is)
    truth, prediction = ClassMap.parse(class_map).over_both(
        data.info.classes, data.info.ignore_index, manifest.class_names
    )
    colours = prediction.colours(manifest.colours) or manifest.colours
    return _Terms(truth.classes, truth.ignore_index, colours, truth.apply, prediction.apply)


def _as_it_is(labels: LabelMap) -> LabelMap:
    return labels


def evaluate(
    bundle: Bundle | Path | str,
    dataset: Path | str,
    *,
    split: str = "val",
    engine: str = "auto",
    device: str = "cpu",
    class_map: str | None = None,
    report: Path | str | None = None,
    on_progress: Callable[[int, ImageScore], None] | None = None,
    settings: EvaluateSettings = EvaluateSettings(),
) -> Evaluation:
    """Score a bundle on a split of a dataset.

    Args:
        bundle: a loaded bundle or its path.
        dataset: a canonical dataset whose classes are those of the bundle, in the same order. The
            bundle may have one more at the end that both call ignored (void); where it predicts
            that one, the true class is missed.
        split: which split.
        engine: ``auto``, ``onnxruntime`` or ``openvino``, when ``bundle`` is a path.
        device: ``cpu``, ``cuda`` or ``gpu``, when ``bundle`` is a path.
        class_map: classes renamed or joined, ``car=vehicle,truck=vehicle,*=background``, of the
            dataset and of the bundle alike; then both must come to the same names, in any order.
        report: write an HTML report there.
        on_progress: called after every image; those of ``settings.against`` are counted on.
        settings: what else is measured, and how images are predicted.

    Raises:
        DatasetError: the split is absent, or its classes are not those of the bundle.
        SettingsError: the class map, the tiling or the test-time augmentation does not fit, or
            two bundles are not scored over the same classes.
    """
    data = Dataset.open(Path(dataset))
    subject = _subject(bundle, data, settings, class_map, engine, device)
    against = settings.against
    other = (
        None if against is None else _subject(against, data, settings, class_map, engine, device)
    )
    if other is not None:
        _refuse_other_terms(subject, other)
    samples = labelled(data, split)
    found = subject.score(samples, settings, on_progress)
    if other is not None:

        def go_on(done: int, row: ImageScore) -> None:
            if on_progress is not None:
                on_progress(len(samples) + done, row)

        beside = other.score(samples, settings, go_on)
        found = replace(found, comparison=_comparison(subject, other, found, beside))
    if report is not None:
        write_report(
            found,
            Path(report),
            title=f"{subject.bundle.manifest.name} on {data.path.name}, {split}",
            colours=subject.terms.colours,
            read=subject.read,
            predict=subject.labels_with(settings),
            provenance=_provenance(subject, other, split, settings),
        )
    return found


@dataclass(frozen=True)
class _Subject:
    """A bundle and the classes in which it meets a dataset."""

    bundle: Bundle
    data: Dataset
    terms: _Terms

    def read(self, sample: Sample) -> tuple[Image, LabelMap]:
        image, mask = read_pair(sample, self.data.info)
        return as_input(image, self.bundle.spec, sample.image), self.terms.of_truth(mask)

    def labels_with(self, settings: EvaluateSettings) -> Predict:
        """A function from an image to its class ids in the terms of the comparison."""
        whole = predict_with(self.bundle, settings)

        def predict(image: Image) -> LabelMap:
            return self.terms.of_prediction(whole(image))

        return predict

    def answers_with(self, settings: EvaluateSettings) -> Answer:
        """A function from an image to its class ids, mapped to no others, and the confidence."""
        predictor, tiling = settings.predictor(self.bundle), settings.tiling(self.bundle)
        post = self.bundle.manifest.postprocessing

        def predict(image: Image) -> Predicted:
            found = segment(
                predictor, image, ("labels", "confidence"), tiling=tiling, postprocessing=post
            )
            return Predicted(found["labels"][0], found["confidence"][0])

        return predict

    def score(
        self,
        samples: tuple[Sample, ...],
        settings: EvaluateSettings,
        on_progress: Callable[[int, ImageScore], None] | None,
    ) -> Evaluation:
        detailed = settings.details or settings.against is not None
        # of joined classes, the network's confidence in one of them says too little
        calibrated = detailed and self.terms.of_prediction is _as_it_is
        return score(
            samples,
            self.read,
            self.answers_with(settings) if calibrated else self.labels_with(settings),
            classes=self.terms.classes,
            ignore_index=self.terms.ignore_index,
            on_progress=on_progress,
            details=DetailSettings(read_instances) if detailed else None,
        )


def _subject(
    bundle: Bundle | Path | str,
    data: Dataset,
    settings: EvaluateSettings,
    class_map: str | None,
    engine: str,
    device: str,
) -> _Subject:
    loaded = bundle if isinstance(bundle, Bundle) else load(bundle, engine=engine, device=device)
    settings.predictor(loaded)  # what does not fit is refused before the first image
    settings.tiling(loaded)
    return _Subject(loaded, data, _terms(data, loaded.manifest, class_map))


def _refuse_other_terms(one: _Subject, other: _Subject) -> None:
    if one.terms.classes != other.terms.classes:
        raise SettingsError(
            f"{one.bundle.manifest.name} is scored over {', '.join(one.terms.classes)} and "
            f"{other.bundle.manifest.name} over {', '.join(other.terms.classes)}",
            where="--against",
            mend="Bring both to the same classes with --map.",
        )


def _comparison(
    one: _Subject, other: _Subject, found: Evaluation, beside: Evaluation
) -> Comparison:
    both = [each.details.images for each in (found, beside) if each.details.images is not None]
    return compare_models(_names(one, other), (found.scores, beside.scores), (both[0], both[1]))


def _names(one: _Subject, other: _Subject) -> tuple[str, str]:
    """Names of two bundles that tell them apart: with the version, or as A and B."""
    a, b = one.bundle.manifest, other.bundle.manifest
    if a.name != b.name:
        return a.name, b.name
    if a.version != b.version:
        return f"{a.name} {a.version}", f"{b.name} {b.version}"
    return f"A ({a.name})", f"B ({b.name})"


def _provenance(
    subject: _Subject, other: _Subject | None, split: str, settings: EvaluateSettings
) -> dict[str, Any]:
    bundle = subject.bundle
    tiling = settings.tiling(bundle)
    rows: dict[str, Any] = {
        "bundle": f"{bundle.manifest.name} {bundle.manifest.version}",
        "engine": bundle.engine,
        "variant": bundle.variant,
        "dataset": subject.data.path.name,
        "split": split,
        "tiles": f"{tiling.tile_px} px, overlap {tiling.overlap_px} px",
    }
    if settings.tta is not None:
        rows["test-time augmentation"] = settings.tta
    if other is not None:
        rows["compared with"] = f"{other.bundle.manifest.name} {other.bundle.manifest.version}"
    return {**rows, **bundle.manifest.provenance.get("software", {})}
