"""Claim: augmentation is at least as fast on one core as the same pipeline in Albumentations.

Two pipelines: the default settings on CamVid (480 x 360 px, crops of 256 px), and everything on,
with certainty, on aerial images (1024 x 1024 px, crops of 512 px). The images are decoded before.
Both libraries run on one core with one OpenCV thread and take turns, some crops each, in the same
minute; the ratio is that of a turn and the next. Seconds are those of the processor, so that
other work on the machine does not count.

The peer does the same operations with the same probabilities, each by its fastest transform:
RandomResizedCrop for zoom and crop, ElasticTransform in its approximate mode. Its environment is
made once, and named by an environment variable:

    uv venv PEER && uv pip install --python PEER albumentations==2.0.8 opencv-python-headless
    DELINEATE_ALBUMENTATIONS=PEER/bin/python python -m benchmarks.augment
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    os.sched_setaffinity(0, {0})  # before NumPy counts the cores; the peer inherits it

import cv2
import numpy as np

from benchmarks.record import shared, write
from delineate.config import AugmentationSettings
from delineate.data.augment import Augmentation
from delineate.data.images import read_image
from delineate.data.masks import read_mask

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 25
CROPS = {"default_256": 300, "all_on_512": 60}  # in a turn
IMAGES = 64
VARIABLE = "DELINEATE_ALBUMENTATIONS"
ON = ("horizontal_flip", "vertical_flip", "rotation", "elastic", "colour", "blur", "noise")


def settings_of(name: str) -> AugmentationSettings:
    usual = AugmentationSettings()
    return usual if name == "default_256" else usual.model_copy(update=dict.fromkeys(ON, 1.0))


def files_of(name: str) -> list[tuple[Path, Path]]:
    if name == "default_256":
        folder = shared("data/camvid") / "train"
        images = sorted((folder / "images").iterdir())[:IMAGES]
        return [(image, folder / "masks" / f"{image.stem}.png") for image in images]
    images = sorted(shared("data/aerial").glob("loveda_?.png"))
    return [(image, image.with_name(f"{image.stem}_mask.png")) for image in images]


def spec_of(name: str) -> dict[str, object]:
    """The pipeline for the peer, in plain values."""
    settings, files = settings_of(name), files_of(name)
    height, width = read_mask(files[0][1]).shape
    side = int(name.rsplit("_", 1)[1])
    zooms = max(settings.scale[0], side / min(height, width)), settings.scale[1]
    return settings.model_dump() | {
        "files": [[str(path) for path in pair] for pair in files],
        "crop_px": side,
        "area": sorted((side / zoom) ** 2 / (height * width) for zoom in zooms),
        "elastic_sigma": settings.elastic_spacing_px / 2,
        # it shifts by alpha times blurred noise of -1 to 1
        "elastic_alpha": settings.elastic_displacement_px * settings.elastic_spacing_px / 2,
    }


class Ours:
    def __init__(self, name: str) -> None:
        self.augment = Augmentation(settings_of(name), int(name.rsplit("_", 1)[1]), 11)
        self.pairs = [(read_image(image), read_mask(mask)) for image, mask in files_of(name)]

    def turn(self, crops: int, first: int) -> float:
        began = time.process_time()
        for number in range(crops):
            image, mask = self.pairs[number % len(self.pairs)]
            self.augment(image=image, mask=mask, rng=np.random.default_rng((0, first, number)))
        return time.process_time() - began


class Peer:
    def __init__(self, python: str) -> None:
        words = [python, str(Path(__file__).with_name("augment_peer.py"))]
        specs = json.dumps({name: spec_of(name) for name in CROPS})
        self._process = subprocess.Popen(
            [*words, specs],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"NO_ALBUMENTATIONS_UPDATE": "1"},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin, self._process.stdout
        self.versions = self._from.readline().split()

    def turn(self, name: str, crops: int) -> float:
        self._to.write(f"{name} {crops}\n")
        self._to.flush()
        return float(self._from.readline())

    def close(self) -> None:
        self._to.close()
        self._process.wait()


def quartiles(values: list[float]) -> list[float]:
    return [round(float(value), 3) for value in np.percentile(values, (25, 50, 75))]


def main() -> None:
    python = os.environ.get(VARIABLE)
    if python is None:
        sys.exit(f"{VARIABLE} names no Python with Albumentations 2.0.8; see {Path(__file__).name}")
    cv2.setNumThreads(1)
    peer = Peer(python)
    figures: dict[str, float] = {}
    spread: dict[str, list[float]] = {}
    for name, crops in CROPS.items():
        ours = Ours(name)
        times: list[tuple[float, float]] = []
        for number in range(-2, ROUNDS):
            pair = ours.turn(crops, number + 2), peer.turn(name, crops)
            if number >= 0:  # the first two warm up
                times.append(pair)
        rates = [crops / seconds for seconds, _ in times]
        ratios = [theirs / seconds for seconds, theirs in times]
        spread[f"images_per_s_{name}"] = quartiles(rates)
        spread[f"images_per_s_albumentations_{name}"] = quartiles([crops / s for _, s in times])
        spread[f"ratio_vs_albumentations_{name}"] = quartiles(ratios)
    peer.close()
    for name, values in spread.items():
        figures[name] = values[1]
    # the pipeline that training has when nothing is set
    for name in ("images_per_s", "ratio_vs_albumentations"):
        figures[name] = figures[f"{name}_default_256"]
    library, opencv = peer.versions
    write(
        "augment",
        "augmentation is at least as fast on one core as the same pipeline in Albumentations",
        dict(sorted(figures.items())),
        {"albumentations": f"Albumentations {library}, OpenCV {opencv}, turns of {CROPS} crops"},
        {"quartiles": spread, "rounds": ROUNDS, "opencv": cv2.__version__},
    )


if __name__ == "__main__":
    main()
