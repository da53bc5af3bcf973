"""``delineate evaluate``: a bundle's scores on a dataset, and a report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from delineate.bundle.load import Bundle, load
from delineate.bundle.manifest import Manifest
from delineate.data.class_map import ClassMap
from delineate.data.dataset import Dataset, Sample, read_pair
from delineate.data.images import fit_channels
from delineate.data.palette import Colour
from delineate.errors import DatasetError, ImageError
from delineate.evaluation.evaluate import Evaluation, ImageScore
from delineate.evaluation.evaluate import evaluate as score
from delineate.evaluation.report import write_report
from delineate.tiling.segment import segment
from delineate.types import Image, LabelMap, PredictorSpec


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


def predict_with(bundle: Bundle) -> Callable[[Image], LabelMap]:
    """A function from an image of any size to its class ids, as the bundle's manifest says."""

    def predict(image: Image) -> LabelMap:
        labels: LabelMap = segment(
            bundle,
            fit_channels(image, bundle.spec.channels, "the image"),
            tiling=bundle.manifest.tiling,
            postprocessing=bundle.manifest.postprocessing,
        )["labels"][0]
        return labels

    return predict


def _refuse_other_classes(data: Dataset, manifest: Manifest) -> None:
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
        _refuse_other_classes(data, manifest)
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
        on_progress: called after every image.

    Raises:
        DatasetError: the split is absent, or its classes are not those of the bundle.
    """
    loaded = bundle if isinstance(bundle, Bundle) else load(bundle, engine=engine, device=device)
    data = Dataset.open(Path(dataset))
    manifest = loaded.manifest
    terms = _terms(data, manifest, class_map)

    def read(sample: Sample) -> tuple[Image, LabelMap]:
        image, mask = read_pair(sample, data.info)
        return as_input(image, loaded.spec, sample.image), terms.of_truth(mask)

    whole = predict_with(loaded)

    def predict(image: Image) -> LabelMap:
        return terms.of_prediction(whole(image))

    found = score(
        labelled(data, split),
        read,
        predict,
        classes=terms.classes,
        ignore_index=terms.ignore_index,
        on_progress=on_progress,
    )
    if report is not None:
        write_report(
            found,
            Path(report),
            title=f"{manifest.name} on {data.path.name}, {split}",
            colours=terms.colours,
            read=read,
            predict=predict,
            provenance=_provenance(loaded, data, split),
        )
    return found


def _provenance(bundle: Bundle, data: Dataset, split: str) -> dict[str, Any]:
    return {
        "bundle": f"{bundle.manifest.name} {bundle.manifest.version}",
        "engine": bundle.engine,
        "variant": bundle.variant,
        "dataset": data.path.name,
        "split": split,
        **bundle.manifest.provenance.get("software", {}),
    }
