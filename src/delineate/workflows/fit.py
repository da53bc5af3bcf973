"""``delineate fit``: a classical method, fitted to a dataset in seconds, as a bundle."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from delineate.bundle.classical import METHOD, restored, stored
from delineate.bundle.manifest import (
    CLASSICAL,
    InputInfo,
    Manifest,
    Variant,
    bundle_name,
    class_infos,
)
from delineate.bundle.store import refuse_other_folder
from delineate.config import Normalisation, TilingSettings
from delineate.data.dataset import Dataset
from delineate.data.files import refuse_existing
from delineate.data.palette import is_background
from delineate.engines.classical import METHODS
from delineate.errors import SettingsError
from delineate.evaluation.evaluate import Evaluation
from delineate.planning.look import FirstLook, look_at, read_alike
from delineate.planning.simple import spread
from delineate.release import refuse_without_images, release
from delineate.words import plural
from delineate.workflows.evaluate import labelled

FITTED_IMAGES = 60
# thresholds are found in what is seen at once, so as little as possible is cut
TILING = TilingSettings(tile_px=2048, overlap_px=64)
_ONE_CLASS = ("otsu", "watershed")  # tell one class from the rest
_SOFTWARE = {  # beside NumPy and OpenCV
    "multi-otsu": ("scikit-image",),
    "watershed": ("scikit-image",),
    "forest": ("scikit-learn", "skl2onnx", "onnxruntime"),
}


@dataclass(frozen=True)
class FitSettings:
    """How a classical method is fitted.

    Attributes:
        foreground: the class that Otsu's threshold, GrabCut and the watershed look for; of two
            classes the one that is not called background, when left out.
        images: of train at most, evenly spread.
        name: of the bundle; that of its file when left out.
        canary: put a few labelled validation images into the bundle.
        force: replace what is there.
    """

    foreground: str | None = None
    images: int = FITTED_IMAGES
    name: str | None = None
    canary: bool = True
    force: bool = False


@dataclass(frozen=True)
class Fitted:
    """A fitted method.

    Attributes:
        bundle: where it was written.
        method: its name.
        images: that it was fitted on.
        fit_s: seconds that the fitting took.
        evaluation: on val.
    """

    bundle: Path
    method: str
    images: int
    fit_s: float
    evaluation: Evaluation

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "bundle": str(self.bundle),
            "method": self.method,
            "images": self.images,
            "fit_s": round(self.fit_s, 2),
            "validation": self.evaluation.scores.to_dict(),
        }


def fit(
    dataset: Path | str,
    out: Path | str,
    *,
    method: str,
    settings: FitSettings = FitSettings(),
    tell: Callable[[str], None] = lambda _: None,
) -> Fitted:
    """Fit a classical method to train, score it on val, and write it as a bundle.

    Args:
        dataset: a canonical dataset with train and val, of 8-bit images with one or three channels.
        out: the bundle, a folder or ``.zip``.
        method: one of :data:`delineate.engines.classical.METHODS`.
        settings: how.
        tell: given a line for each thing that is done.

    Raises:
        DatasetError: train or val is absent or unlabelled.
        SettingsError: there is no such method or class, or the method cannot tell so many classes.
        ImageError: an image is not 8 bit, or has two or more than three channels.
        MissingExtraError: scikit-image, scikit-learn or skl2onnx is not installed.
        OutputError: ``out`` exists or cannot be written.
    """
    out = Path(out)
    if method not in METHODS:
        raise SettingsError(
            f"{method!r} is no method", where="--method", mend=f"Choose from {', '.join(METHODS)}."
        )
    if settings.images < 1:
        raise SettingsError("there is nothing to fit on", where="--images", mend="Give 1 or more.")
    if not settings.force:
        refuse_existing(out)
    else:
        refuse_other_folder(out)
    name = bundle_name(out.resolve().parent / out.resolve().stem, settings.name)
    data = Dataset.open(Path(dataset))
    train, val = labelled(data, "train"), labelled(data, "val")
    refuse_without_images(val, out)
    foreground = _foreground(data.info.classes, method, settings.foreground)
    look = look_at(train, data.info)
    read = partial(read_alike, info=data.info, first=look)
    chosen = spread(train, settings.images)
    tell(f"fitting {method} to {plural(len(chosen), 'image')}")
    began = time.perf_counter()
    pairs = (read(sample) for sample in chosen)
    predictor = METHODS[method].fit(pairs, data.info.classes, foreground)
    fit_s = time.perf_counter() - began
    files = stored(predictor)
    draft = _draft(data, look, name, method, len(chosen))
    tell(f"scoring on {len(val)} images of val")
    _, found = release(
        restored(files.__getitem__, METHOD, draft.spec(), str(out)),  # what is loaded is scored
        files,
        draft,
        out,
        val=val,
        read=read,
        software=("numpy", "opencv-python-headless", *_SOFTWARE.get(method, ())),
        force=settings.force,
        canary=settings.canary,
        choose=True,
    )
    return Fitted(out, method, len(chosen), fit_s, found.evaluation)


def _foreground(classes: Sequence[str], method: str, wanted: str | None) -> str:
    """The class to find; the methods refuse one that there is not."""
    if len(classes) > 2 and method == "grabcut":
        raise SettingsError(
            f"GrabCut tells two classes apart, not {len(classes)}",
            where="--method",
            mend="Join classes with delineate data import --map, or take multi-otsu, kmeans or "
            "forest.",
        )
    if wanted is not None and method not in (*_ONE_CLASS, "grabcut"):
        raise SettingsError(
            f"{method} tells all classes apart and looks for none of them",
            where="--foreground",
            mend="Leave it out, or take otsu, grabcut or watershed.",
        )
    if wanted is not None:
        return wanted
    things = [name for name in classes if not is_background(name)]
    if len(classes) > 2 and method in _ONE_CLASS:
        raise SettingsError(
            f"{method} tells one class from the rest, and there are {len(classes)}",
            where="--foreground",
            mend=f"Name one of: {', '.join(things)}; or take multi-otsu, kmeans or forest.",
        )
    return things[-1] if things else classes[-1]


def _draft(data: Dataset, look: FirstLook, name: str, method: str, images: int) -> Manifest:
    classes = data.info.classes
    return Manifest(
        name=name,
        task="binary" if len(classes) == 2 else "multiclass",
        classes=class_infos(classes, data.colours),
        ignore_index=data.info.ignore_index,
        input=InputInfo(
            channels=look.channels,
            dtype=look.dtype,
            pixel_size_um=data.info.pixel_size_um,
            normalisation=Normalisation(mean=(0.0,) * look.channels, std=(1.0,) * look.channels),
        ),
        tiling=TILING,
        variants={"float32": Variant(file=METHOD, engine=CLASSICAL)},
        provenance={
            "dataset_sha256": data.fingerprint(),
            "training_images": images,
            "method": method,
            "licence": "that of the training data",
        },
    )
