"""A predictor becomes a bundle: scored on val, with its reference, its canary and its card."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from delineate.bundle.card import model_card
from delineate.bundle.load import golden_file, golden_name
from delineate.bundle.manifest import Manifest
from delineate.bundle.store import write_bundle
from delineate.config import PostprocessingSettings
from delineate.data.dataset import Sample
from delineate.errors import DatasetError
from delineate.evaluation.details import DetailSettings, Predicted
from delineate.evaluation.evaluate import Evaluation, Read, evaluate
from delineate.evaluation.postprocessing import choose_postprocessing
from delineate.evaluation.scores import score_figures
from delineate.tiling.segment import segment
from delineate.types import Image, LabelMap, Predictor

CANARY_IMAGES = 4
DECILES = tuple(i / 10 for i in range(11))


@dataclass(frozen=True)
class HeldOut:
    """Scores of a network that has seen every labelled image, an ensemble of folds.

    Attributes:
        evaluation: of each image by a member that has not seen it.
        summaries: of the same predictions, (images, K + 2).
    """

    evaluation: Evaluation
    summaries: Float32[np.ndarray, "images columns"]


def release(
    predictor: Predictor,
    files: Mapping[str, bytes],
    draft: Manifest,
    out: Path,
    *,
    val: Sequence[Sample],
    read: Read,
    software: Sequence[str],
    force: bool = False,
    canary: bool = True,
    held_out: HeldOut | None = None,
    choose: bool = False,
) -> tuple[Manifest, HeldOut]:
    """Score a predictor and write it as a bundle.

    Args:
        predictor: what the files give when they are loaded.
        files: of the variant ``float32``, by name.
        draft: the manifest, with one variant ``float32`` and no scores yet.
        out: the bundle's folder or ``.zip``.
        val: labelled images, for scores, reference and canary.
        read: gives image and mask of a sample.
        software: packages whose versions are noted, beside our own.
        force: replace ``out``.
        canary: put labelled images into the bundle; leave it out for images that must not travel.
        held_out: scores and reference of a network that has seen ``val``; nothing is measured.
        choose: the post-processing, on ``val``, unless the draft has one or ``held_out`` is given.

    Raises:
        DatasetError: ``val`` is empty.
        OutputError: ``out`` exists or cannot be written.
    """
    refuse_without_images(val, out)
    if held_out is None:
        if choose and draft.postprocessing == PostprocessingSettings():
            draft = _with_postprocessing(predictor, draft, val, read)
        held_out = HeldOut(*measure(predictor, draft, val, read))
    content = {**files, "reference.json": _reference(held_out.summaries, draft).encode()}
    if canary:
        content |= _canary(predictor, val, read, draft.tiling.tile_px)
    manifest = _finished(draft, held_out.evaluation, software)
    content["card.md"] = model_card(manifest).encode()
    write_bundle(out, manifest, content, force=force)
    return manifest, held_out


def _with_postprocessing(
    predictor: Predictor, draft: Manifest, val: Sequence[Sample], read: Read
) -> Manifest:
    """The draft with what helps on val, and all that was tried in its provenance."""

    def predict(image: Image) -> LabelMap:
        labels: LabelMap = segment(predictor, image, tiling=draft.tiling)["labels"][0]
        return labels

    chosen = choose_postprocessing(
        val, read, predict, classes=draft.class_names, ignore_index=draft.ignore_index
    )
    provenance = {**draft.provenance, "postprocessing_tried": chosen.note()}
    return draft.model_copy(update={"postprocessing": chosen.settings, "provenance": provenance})


def refuse_without_images(val: Sequence[Sample], out: Path) -> None:
    """Nothing can be released that no image tells the score of.

    Raises:
        DatasetError: ``val`` is empty.
    """
    if not val:
        raise DatasetError(
            "there is no labelled image to compare and score on",
            where=out,
            mend="Nothing was written. Name a split that has images.",
        )


def measure(
    predictor: Predictor, draft: Manifest, val: Sequence[Sample], read: Read
) -> tuple[Evaluation, Float32[np.ndarray, "images columns"]]:
    """Scores on val, and the summary of every image (images, K + 2)."""
    summaries: list[np.ndarray] = []

    def predict(image: Image) -> Predicted:
        found = segment(
            predictor,
            image,
            ("labels", "confidence", "summary"),
            tiling=draft.tiling,
            postprocessing=draft.postprocessing,
        )
        summaries.append(found["summary"][0])
        return Predicted(found["labels"][0], found["confidence"][0])

    evaluation = evaluate(
        val,
        read,
        predict,
        classes=draft.class_names,
        ignore_index=draft.ignore_index,
        details=DetailSettings(),
    )
    return evaluation, np.stack(summaries)


def _reference(summaries: np.ndarray, draft: Manifest) -> str:
    """Statistics of predictions at release, by column of the summary."""
    columns: dict[str, Any] = {}
    for name, values in zip(draft.spec().summary_names, summaries.T, strict=True):
        columns[name] = {
            "mean": float(values.mean()),
            "std": float(values.std()),
            "deciles": [float(value) for value in np.quantile(values, DECILES)],
        }
    return json.dumps({"images": len(summaries), "split": "val", "columns": columns}, indent=2)


def _canary(
    predictor: Predictor, val: Sequence[Sample], read: Read, tile_px: int
) -> dict[str, bytes]:
    """Labelled images as they are on disk, spread over the split, and their golden outputs."""
    files: dict[str, bytes] = {}
    count = min(CANARY_IMAGES, len(val))
    for index in np.linspace(0, len(val) - 1, count).round().astype(int):
        sample = val[index]
        if sample.mask is None:
            continue
        files[f"canary/images/{sample.image.name}"] = sample.image.read_bytes()
        files[f"canary/masks/{sample.mask.name}"] = sample.mask.read_bytes()
        golden = golden_file(predictor, read(sample)[0], tile_px)
        files[golden_name("float32", sample.image.stem)] = golden
    return files


def _finished(draft: Manifest, evaluation: Evaluation, software: Sequence[str]) -> Manifest:
    """The draft with scores and software versions."""
    variant = draft.variants["float32"].model_copy(
        update={"scores": score_figures(evaluation.scores)}
    )
    versions = {name: importlib.metadata.version(name) for name in ("delineate", *software)}
    return draft.model_copy(
        update={
            "variants": {"float32": variant},
            "provenance": {**draft.provenance, "software": versions},
        }
    )
