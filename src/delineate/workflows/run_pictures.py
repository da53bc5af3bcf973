"""A few validation images of a run: truth, and what the network said over time.

They are kept small in ``RUN/samples``: ``0-image.jpg``, ``0-truth.jpg`` and, for each validation,
``0-STEP.jpg``.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt, UInt8

from delineate.data.dataset import Sample
from delineate.data.files import write_bytes, write_text
from delineate.data.overlay import displayable, overlay, thumbnail, thumbnail_labels
from delineate.data.palette import Colour, is_background
from delineate.evaluation.evaluate import Read
from delineate.evaluation.page import Html, escape, join, scroll, swatch
from delineate.types import Image, LabelMap

FOLDER = "samples"
PICTURES_STYLE = """
.filmstrip { display: grid; gap: .5rem; padding: .7rem; }
.filmstrip > b, .filmstrip > span { font-size: .8125rem; font-weight: 500; }
.filmstrip > b { color: var(--muted); overflow-wrap: anywhere; }
.filmstrip > b strong { color: var(--ink); }
.filmstrip > span { grid-column: 1 / -1; margin-bottom: -.3rem; overflow-wrap: anywhere; }
.filmstrip img { display: block; width: 100%; height: auto; border-radius: .3rem; }
.filmstrip img.tiny { image-rendering: pixelated; }
"""

_COUNT = 4
_SIDE_PX = 300
_LARGEST_PX = 1024  # of a larger image its middle is shown, so that a picture costs little
_KEPT = 12  # validations whose pictures stay on the disk
_QUALITY = 80
_ALPHA = 0.5
_TINY_PX = 150  # below, pixels are shown as squares
_INDEX = "samples.json"


class RunPictures:
    """Writes the pictures of a run.

    Args:
        run: the run's folder.
        val: the validation split; four images, evenly spread, are followed.
        read: gives image and mask of a sample.
        classes: names by id.
        colours: of each class by id.
        ignore_index: the id in masks that counts nowhere, or None.
    """

    def __init__(
        self,
        run: Path,
        val: Sequence[Sample],
        read: Read,
        *,
        classes: Sequence[str],
        colours: Sequence[Colour],
        ignore_index: int | None,
    ) -> None:
        self._folder = run / FOLDER
        count = min(_COUNT, len(val))
        self._samples = [val[int((i + 0.5) * len(val) / count)] for i in range(count)]
        self._read = read
        self._classes, self._colours = tuple(classes), tuple(colours)
        background = len(classes) == 2 or is_background(classes[0])
        ignored = () if ignore_index is None else (ignore_index,)
        self._untinted = (*((0,) if background else ()), *ignored)

    def begin(self) -> None:
        """Write the images with their truth.

        Raises:
            ImageError, MaskError: a sample can no longer be read.
            OutputError: the pictures cannot be written.
        """
        tiny = []
        for index, sample in enumerate(self._samples):
            image, truth = (_middle(array) for array in self._read(sample))
            rgb = thumbnail(displayable(image), _SIDE_PX)
            tiny.append(max(rgb.shape) < _TINY_PX)
            self._write(f"{index}-image", rgb)
            self._write(f"{index}-truth", self._drawn(rgb, truth))
        shown = [i for i in range(len(self._classes)) if i not in self._untinted]
        document = {
            "names": [sample.name for sample in self._samples],
            "tiny": tiny,
            "classes": {self._classes[i]: self._colours[i] for i in shown},
        }
        write_text(self._folder / _INDEX, json.dumps(document, ensure_ascii=False))

    def add(
        self, step: int, predict: Callable[[Image], LabelMap], *, valid: Collection[int], best: int
    ) -> None:
        """Write what the network says at ``step``, and remove what nobody will look at.

        Args:
            step: of this validation.
            predict: class ids of an image.
            valid: the steps of all validations; pictures of others are of a life before a resume.
            best: the step of the best one so far, which stays.
        """
        for index, sample in enumerate(self._samples):
            image = _middle(self._read(sample)[0])
            rgb = thumbnail(displayable(image), _SIDE_PX)
            self._write(f"{index}-{step:08d}", self._drawn(rgb, predict(image)))
        there = picture_steps(self._folder)
        kept = most_spread([one for one in there if one in valid], _KEPT, best)
        for gone in set(there) - set(kept):
            for path in self._folder.glob(f"*-{gone:08d}.jpg"):
                path.unlink(missing_ok=True)

    def _drawn(
        self, rgb: UInt8[np.ndarray, "h w 3"], labels: UInt[np.ndarray, "full_h full_w"]
    ) -> UInt8[np.ndarray, "h w 3"]:
        return overlay(
            rgb, thumbnail_labels(labels, _SIDE_PX), self._colours, _ALPHA, self._untinted
        )

    def _write(self, name: str, rgb: UInt8[np.ndarray, "h w 3"]) -> None:
        bgr = np.ascontiguousarray(rgb[..., ::-1])
        options = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
        _, data = cv2.imencode(".jpg", bgr, options)
        write_bytes(self._folder / f"{name}.jpg", data.tobytes())


def _middle(array: np.ndarray) -> np.ndarray:
    """The middle of an image or a mask, at most 1024 px high and wide."""
    top, left = (max(0, side - _LARGEST_PX) // 2 for side in array.shape[:2])
    return np.ascontiguousarray(array[top : top + _LARGEST_PX, left : left + _LARGEST_PX])


def picture_steps(folder: Path) -> list[int]:
    """The steps of which there are pictures, in order."""
    tails = {path.stem.partition("-")[2] for path in folder.glob("0-*.jpg")}
    return sorted(int(tail) for tail in tails if tail.isdigit())


def most_spread(steps: Sequence[int], most: int, best: int) -> list[int]:
    """At most ``most`` of the sorted steps, as evenly spread as dropping one by one leaves them.

    The first, the last and ``best`` always stay.
    """
    kept = list(steps)
    while len(kept) > max(most, 3):
        gaps = {
            kept[i]: kept[i + 1] - kept[i - 1] for i in range(1, len(kept) - 1) if kept[i] != best
        }
        kept.remove(min(gaps, key=lambda step: gaps[step]))
    return kept


def told(steps: Sequence[int], best: int | None) -> list[int]:
    """The steps that tell the story: first, nearest a quarter and a half, best, last; sorted."""
    if not steps:
        return []
    near = [min(steps, key=lambda step: abs(step - share * steps[-1])) for share in (0.25, 0.5)]
    return sorted({steps[0], *near, steps[-1], *((best,) if best in steps else ())})


def legend(run: Path) -> dict[str, Colour]:
    """The colours of the classes that the pictures show, by name."""
    classes = _index(run).get("classes", {})
    return {name: (red, green, blue) for name, (red, green, blue) in classes.items()}


def filmstrips(run: Path, scores: Mapping[int, float], best: int | None) -> Html:
    """A row for each followed image: image, truth, predictions over time; empty without pictures.

    Args:
        run: the run's folder.
        scores: mIoU on val by step, for the headings.
        best: the step of the best validation, or None before the first.
    """
    folder, index = run / FOLDER, _index(run)
    if not index:
        return Html("")
    steps = told(picture_steps(folder), best)
    columns = ["image", "truth", *(f"{step:08d}" for step in steps)]
    heads = ["<b>image</b>", "<b>truth</b>", *(_head(s, scores.get(s), s == best) for s in steps)]
    cells = [*heads]
    for number, (name, tiny) in enumerate(zip(index["names"], index["tiny"], strict=True)):
        cells.append(f"<span>{escape(name)}</span>")
        cells += [
            _img(folder / f"{number}-{column}.jpg", f"{name}: {column}", tiny=tiny)
            for column in columns
        ]
    width = f"grid-template-columns: repeat({len(columns)}, minmax(8rem, 1fr))"
    keys = [f"<li>{swatch(c)}{escape(n)}</li>" for n, c in legend(run).items()]
    strip = Html(f'<div class="filmstrip" style="{width}">{join(cells)}</div>')
    return join([f'<ul class="legend">{join(keys)}</ul>', scroll(strip, "Samples over time")])


def _index(run: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((run / FOLDER / _INDEX).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return found


def _head(step: int, score: float | None, best: bool) -> Html:
    shown = "" if score is None else f"<br>mIoU {score:.3f}"
    return Html(f"<b>step <strong>{step:,}</strong>{', best' if best else ''}{shown}</b>")


def _img(path: Path, alt: str, *, tiny: bool) -> Html:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Html("<i></i>")
    kind = ' class="tiny"' if tiny else ""
    text = base64.b64encode(data).decode("ascii")
    return Html(f'<img{kind} src="data:image/jpeg;base64,{text}" alt="{escape(alt)}">')
