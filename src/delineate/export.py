"""Checkpoint to bundle: export, compare, release; refused where outputs differ."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from jaxtyping import Float32
from onnx import inliner
from torch import Tensor, nn

from delineate.bundle.graph import OPSET, Wrapping, finish
from delineate.bundle.manifest import Calibration, Manifest
from delineate.data.dataset import Sample
from delineate.engines.onnxruntime import OnnxRuntimePredictor
from delineate.engines.pytorch import Normaliser, TorchPredictor
from delineate.engines.scaling import image_scaling
from delineate.errors import ModelError, RefusedError
from delineate.evaluation.calibration import CalibrationTally
from delineate.evaluation.evaluate import Evaluation, Read
from delineate.models.temperature import Tempered, best_temperature
from delineate.release import HeldOut, refuse_without_images, release
from delineate.types import Image, Predictor

LEAST_AGREEMENT = 0.9995  # share of pixels with the same class
LARGEST_DIFFERENCE = 2  # of a probability, in 255ths
COMPARED_IMAGES = 4
CALIBRATION_IMAGES = 16  # and at most this side of each: a few seconds of PyTorch on a CPU
CALIBRATION_SIDE_PX = 256
CALIBRATION_PIXELS = 1 << 16
CALIBRATION_LOGITS = 1 << 20  # where there are many classes, fewer pixels
SOFTWARE = ("torch", "onnx", "onnxruntime", "segmentation-models-pytorch")


@dataclass(frozen=True)
class Exported:
    """What was exported and how it did.

    Attributes:
        manifest: as written.
        evaluation: of the exported graph on the validation split.
        agreement: share of pixels in which PyTorch and the graph name the same class.
        difference: largest difference of a probability, in 255ths.
        summaries: of the predictions, (images, K + 2), from which ``reference.json`` was made.
    """

    manifest: Manifest
    evaluation: Evaluation
    agreement: float
    difference: int
    summaries: Float32[np.ndarray, "images columns"]


def export_bundle(
    module: nn.Module,
    draft: Manifest,
    out: Path,
    *,
    val: Sequence[Sample],
    read: Read,
    force: bool = False,
    canary: bool = True,
    held_out: HeldOut | None = None,
    choose: bool = False,
) -> Exported:
    """Export a trained network to a bundle.

    Its logits are divided by a temperature fitted on ``val``, inside the graph, unless the network
    has seen ``val``.

    Args:
        module: logits from normalised (N, C, H, W), any size.
        draft: the manifest, with one variant ``float32`` and no scores yet.
        out: the bundle's folder.
        val: labelled images, for comparison, scores, reference and canary.
        read: gives image and mask of a sample.
        force: replace ``out``.
        canary: put labelled images into the bundle; leave it out for images that must not travel.
        held_out: scores and reference of a network that has seen ``val``; nothing is measured.
        choose: post-processing on ``val``, see :func:`delineate.release.release`.

    Raises:
        DatasetError: ``val`` is empty.
        RefusedError: PyTorch and the graph, both in float32, differ on real images.
        OutputError: ``out`` exists or cannot be written.
    """
    refuse_without_images(val, out)
    module = module.cpu().eval()
    calibration = fit_temperature(module, draft, val, read) if held_out is None else None
    if calibration is not None:
        draft = draft.model_copy(update={"calibration": calibration})
        module = Tempered(module, calibration.temperature)
    model = finish(export_network(module, draft.input.channels), _wrapping(draft))
    predictor = OnnxRuntimePredictor(model, draft.spec())
    own = TorchPredictor(module, draft.spec(), draft.input.normalisation)
    images = [read(sample)[0] for sample in val[:COMPARED_IMAGES]]
    agreement, difference = compare(own, predictor, images, draft.tiling.tile_px)
    manifest, found = release(
        predictor,
        {"model.onnx": model.SerializeToString()},
        draft,
        out,
        val=val,
        read=read,
        software=SOFTWARE,
        force=force,
        canary=canary,
        held_out=held_out,
        choose=choose,
    )
    return Exported(manifest, found.evaluation, agreement, difference, found.summaries)


def fit_temperature(
    module: nn.Module, draft: Manifest, val: Sequence[Sample], read: Read
) -> Calibration | None:
    """The temperature with the least negative log-likelihood on pixels of ``val``.

    Both errors are measured on the pixels it is fitted on; it is 1 where it would not lower the
    error.

    Returns:
        None when every pixel that was looked at is ignored.
    """
    logits, truth = _validation_logits(module, draft, val, read)
    if len(truth) == 0:
        return None

    temperature = round(best_temperature(logits, truth), 4)
    before, after = (
        _calibration_error(logits, truth),
        _calibration_error(logits / temperature, truth),
    )
    if after >= before:
        temperature, after = 1.0, before
    return Calibration(
        temperature=temperature, ece_before=round(before, 6), ece_after=round(after, 6)
    )


def _validation_logits(
    module: nn.Module, draft: Manifest, val: Sequence[Sample], read: Read
) -> tuple[Tensor, Tensor]:
    """Logits (M, K) and true classes (M,) of pixels drawn from windows of some images."""
    rng = np.random.default_rng(0)
    count = min(CALIBRATION_IMAGES, len(val))
    classes = len(draft.classes)
    quota = min(CALIBRATION_PIXELS, CALIBRATION_LOGITS // classes) // count
    normalised = Normaliser(draft.input.normalisation, torch.device("cpu"))
    rows, targets = [], []
    for index in np.linspace(0, len(val) - 1, count).round().astype(int):
        image, mask = read(val[index])
        side = min(CALIBRATION_SIDE_PX, draft.tiling.tile_px)
        top, left = (int(rng.integers(max(0, length - side) + 1)) for length in mask.shape)
        window = np.s_[top : top + side, left : left + side]
        scalings = image_scaling(image)[None] if normalised.by_image else None
        image, truth = image[window], mask[window].astype(np.int64).ravel()
        with torch.inference_mode():
            x = normalised(image[None], scalings)
            logits = module(x.contiguous(memory_format=torch.channels_last)).float()
        logits = logits[0].flatten(1).T  # (pixels, K or 1)
        counted = np.flatnonzero(truth != draft.ignore_index)
        chosen = torch.from_numpy(rng.permutation(counted)[:quota])
        rows.append(logits[chosen])
        targets.append(torch.from_numpy(truth)[chosen])
    found = torch.cat(rows)
    if found.shape[1] == 1:  # the background's logit is 0
        found = torch.cat([torch.zeros_like(found), found], dim=1)
    return found, torch.cat(targets)


def _calibration_error(logits: Tensor, truth: Tensor) -> float:
    confidence, labels = logits.softmax(dim=1).max(dim=1)
    tally = CalibrationTally(None)
    tally.update(
        truth.numpy().astype(np.uint16)[None],
        labels.numpy().astype(np.uint16)[None],
        (confidence * 255).round().byte().numpy()[None],
    )
    return tally.scores().error


def export_network(
    module: nn.Module, channels: int, *, fixed_hw: tuple[int, int] | None = None
) -> onnx.ModelProto:
    """A module as ONNX, opset 18, with free batch, height and width.

    Args:
        module: logits from normalised images.
        channels: of an image.
        fixed_hw: one image of this size (height, width) is all that it will take; such an export
            takes a third of the time.

    Raises:
        ModelError: PyTorch cannot export it.
    """
    example = torch.zeros(2, channels, 96, 128)
    free = torch.export.Dim.DYNAMIC
    dims: tuple[dict[int, Any], ...] | None = ({0: free, 2: free, 3: free},)
    if fixed_hw is not None:
        example, dims = torch.zeros(1, channels, *fixed_hw), None
    for name in ("torch.onnx", "onnxscript", "onnx_ir"):  # they narrate every rewriting
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=["x"],
                output_names=["logits"],
                dynamic_shapes=dims,
                verbose=False,
            )
    except Exception as error:  # the exporter raises many kinds
        raise ModelError(
            f"PyTorch {torch.__version__} cannot export this network ({error})"
        ) from error
    if program is None:
        raise ModelError(f"PyTorch {torch.__version__} exported nothing")
    model: onnx.ModelProto = program.model_proto
    return inliner.inline_local_functions(model) if model.functions else model


def compare(
    own: Predictor, exported: Predictor, images: Sequence[Image], largest_px: int
) -> tuple[float, int]:
    """Compare two predictors on real images, whole up to ``largest_px`` pixels a side.

    Returns:
        share of pixels with the same class, and the largest difference of a probability in 255ths.

    Raises:
        RefusedError: they differ by more than rounding explains.
    """
    same = pixels = difference = 0
    for image in images:
        batch = image[None, :largest_px, :largest_px]
        a = own.predict(batch, ("labels", "probabilities"))
        b = exported.predict(batch, ("labels", "probabilities"))
        same += int(np.sum(a["labels"] == b["labels"]))
        pixels += a["labels"].size
        apart = np.abs(a["probabilities"].astype(np.int16) - b["probabilities"])
        difference = max(difference, int(apart.max()))
    agreement = same / max(pixels, 1)
    if agreement < LEAST_AGREEMENT or difference > LARGEST_DIFFERENCE:
        raise RefusedError(
            f"the exported graph is not the network: {agreement:.4%} of pixels agree (at least "
            f"{LEAST_AGREEMENT:.2%} wanted), a probability is off by {difference}/255 (at most "
            f"{LARGEST_DIFFERENCE}/255)",
            mend="Nothing was written. Report the architecture and the versions of torch and onnx.",
        )
    return agreement, difference


def _wrapping(draft: Manifest) -> Wrapping:
    return Wrapping(
        channels=draft.input.channels,
        dtype=draft.input.dtype,
        task=draft.task,
        classes=len(draft.classes),
        normalisation=draft.input.normalisation,
    )
