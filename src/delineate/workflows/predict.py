"""``delineate predict``: files, folders and globs in, masks out."""

from __future__ import annotations

import glob
import io
import json
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from delineate.bundle.load import Bundle, load
from delineate.config import TilingSettings
from delineate.data.dataset import list_files
from delineate.data.files import write_together
from delineate.data.images import read_image
from delineate.data.masks import encode_mask
from delineate.data.overlay import overlay
from delineate.data.rle import label_map_to_coco
from delineate.engines.tta import TtaPredictor
from delineate.errors import DelineateError, ImageError, OutputError
from delineate.tiling.segment import segment
from delineate.types import Image, Output, Prediction, Predictor
from delineate.workflows.evaluate import as_input

AHEAD = 2  # images read while one is predicted


@dataclass(frozen=True)
class PredictSettings:
    """What is written beside the masks.

    Attributes:
        overlay: the image with classes and borders drawn over it, PNG.
        probabilities: (K, H, W) uint8, ``.npz``.
        rle: COCO RLE with class shares, JSON.
        force: replace files that are there.
        tiling: how large images are cut; the bundle's own when left out.
        tta: average over mirrored (``flips``) or also turned (``dihedral``) views of each image.
    """

    overlay: bool = False
    probabilities: bool = False
    rle: bool = False
    force: bool = False
    tiling: TilingSettings | None = None
    tta: str | None = None


@dataclass(frozen=True)
class ImageResult:
    """One image that was segmented.

    Attributes:
        shares: share of the pixels of each class, by name.
        mean_confidence: 0 to 1.
    """

    image: Path
    mask: Path
    height: int
    width: int
    shares: dict[str, float]
    mean_confidence: float

    def to_dict(self) -> dict[str, Any]:
        return {
            "image": str(self.image),
            "mask": str(self.mask),
            "height": self.height,
            "width": self.width,
            "shares": {name: round(share, 6) for name, share in self.shares.items()},
            "mean_confidence": round(self.mean_confidence, 6),
        }


@dataclass
class Predictions:
    """What came of a call: results in the order of the inputs, and the files that failed."""

    results: list[ImageResult] = field(default_factory=list)
    failures: list[tuple[Path, DelineateError]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {
            "results": [result.to_dict() for result in self.results],
            "failures": [
                {"image": str(path), "found": error.found, "mend": error.mend}
                for path, error in self.failures
            ],
        }


def find_images(inputs: Sequence[str | Path]) -> list[Path]:
    """Files, the images of folders, and what globs match, each once, in order.

    Raises:
        ImageError: an input names nothing.
    """
    found: dict[Path, Path] = {}
    for item in inputs:
        path = Path(item)
        if path.is_dir():
            matches = list_files(path)
        elif path.exists():
            matches = [path]
        else:
            names = sorted(glob.glob(str(item), recursive=True))  # noqa: PTH207  (absolute too)
            matches = [Path(name) for name in names if Path(name).is_file()]
        if not matches:
            what = "holds no images" if path.is_dir() else "no such file, and no glob that matches"
            raise ImageError(what, where=path)
        for match in matches:
            found.setdefault(match.resolve(), match)
    return list(found.values())


def predict(
    bundle: Bundle | Path | str,
    inputs: Sequence[str | Path],
    out: Path | str,
    *,
    settings: PredictSettings = PredictSettings(),
    engine: str = "auto",
    device: str = "cpu",
    on_progress: Callable[[int, int], None] | None = None,
) -> Predictions:
    """Segment images and write their masks as indexed PNGs with the bundle's palette.

    One bad file does not end the rest: it is among the ``failures``.

    Args:
        bundle: a loaded bundle or its path.
        inputs: files, folders, globs.
        out: a folder; ``NAME.png`` is written there for each image.
        settings: what else is written.
        engine: ``auto``, ``onnxruntime`` or ``openvino``, when ``bundle`` is a path.
        device: ``cpu``, ``cuda`` or ``gpu``, when ``bundle`` is a path.
        on_progress: told how many images of how many are done.

    Raises:
        ImageError: an input names nothing.
        OutputError: a file would be overwritten, two images would share one, or nothing can be
            written.
        SettingsError: the test-time augmentation does not fit the bundle.
    """
    images, out = find_images(inputs), Path(out)
    targets = _targets(images, out, settings)
    loaded = bundle if isinstance(bundle, Bundle) else load(bundle, engine=engine, device=device)
    predictor = loaded if settings.tta is None else TtaPredictor(loaded, settings.tta)
    predictions = Predictions()
    with ThreadPoolExecutor(2, thread_name_prefix="files") as pool:
        reading = [pool.submit(_read, path, loaded) for path in images[:AHEAD]]
        writing: list[tuple[Path, Future[ImageResult]]] = []
        for number, path in enumerate(images):
            if number + AHEAD < len(images):
                reading.append(pool.submit(_read, images[number + AHEAD], loaded))
            try:
                image = reading[number].result()
                found = _segment(loaded, predictor, image, settings)
                job = pool.submit(_write, path, targets[path], image, found, loaded, settings)
                writing.append((path, job))
            except DelineateError as error:
                predictions.failures.append((path, error))
            reading[number] = Future()  # lets go of the image
            _collect(writing, predictions, keep=AHEAD)
            if on_progress is not None:
                on_progress(number + 1, len(images))
        _collect(writing, predictions, keep=0)
    return predictions


def _targets(images: list[Path], out: Path, settings: PredictSettings) -> dict[Path, Path]:
    """The mask of each image; nothing that is there is overwritten without ``force``."""
    targets: dict[Path, Path] = {}
    owners: dict[Path, Path] = {}
    inputs = {image.resolve() for image in images}
    for image in images:
        targets[image] = mask = out / f"{image.stem}.png"
        for path in (mask, *_extra_paths(mask, settings)):
            if path in owners:
                raise OutputError(
                    f"{owners[path]} and {image} would both be written to it",
                    where=path,
                    mend="Predict them into two folders.",
                )
            if path.resolve() in inputs:
                raise OutputError("is an input", where=path, mend="Name another folder with -o.")
            if path.exists() and not settings.force:
                raise OutputError(
                    "exists already", where=path, mend="Name another folder, or add --force."
                )
            owners[path] = image
    return targets


def _extra_paths(mask: Path, settings: PredictSettings) -> list[Path]:
    names = {
        ".overlay.png": settings.overlay,
        ".probabilities.npz": settings.probabilities,
        ".json": settings.rle,
    }
    return [mask.with_name(mask.stem + suffix) for suffix, wanted in names.items() if wanted]


def _read(path: Path, bundle: Bundle) -> Image:
    return as_input(read_image(path), bundle.spec, path)


def _segment(
    bundle: Bundle, predictor: Predictor, image: Image, settings: PredictSettings
) -> Prediction:
    outputs: list[Output] = ["labels", "summary"]
    if settings.probabilities:
        outputs.append("probabilities")
    return segment(
        predictor,
        image,
        outputs,
        tiling=settings.tiling or bundle.manifest.tiling,
        postprocessing=bundle.manifest.postprocessing,
    )


def _write(
    path: Path,
    mask: Path,
    image: Image,
    found: Prediction,
    bundle: Bundle,
    settings: PredictSettings,
) -> ImageResult:
    labels, summary = found["labels"][0], found["summary"][0]
    names, colours = bundle.spec.classes, bundle.manifest.colours
    result = ImageResult(
        image=path,
        mask=mask,
        height=labels.shape[0],
        width=labels.shape[1],
        shares={name: float(share) for name, share in zip(names, summary, strict=False)},
        mean_confidence=float(summary[len(names)]),
    )
    files: dict[Path, bytes] = {}
    if settings.overlay:
        drawn = overlay(image, labels, colours)
        _, data = cv2.imencode(".png", drawn[:, :, ::-1])  # OpenCV writes BGR
        files[mask.with_name(mask.stem + ".overlay.png")] = data.tobytes()
    if settings.probabilities:
        packed = io.BytesIO()
        np.savez_compressed(packed, probabilities=found["probabilities"][0])
        files[mask.with_name(mask.stem + ".probabilities.npz")] = packed.getvalue()
    if settings.rle:
        document = {**result.to_dict(), "regions": label_map_to_coco(labels, names)}
        files[mask.with_name(mask.stem + ".json")] = json.dumps(document).encode()
    files[mask] = encode_mask(labels, colours)  # last, so that a mask means that all is there
    write_together(files)
    return result


def _collect(
    writing: list[tuple[Path, Future[ImageResult]]], predictions: Predictions, *, keep: int
) -> None:
    while len(writing) > keep:
        path, job = writing.pop(0)
        try:
            predictions.results.append(job.result())
        except OutputError:  # a full disk, say: the next image would fare no better
            raise
        except DelineateError as error:
            predictions.failures.append((path, error))
