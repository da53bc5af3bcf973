"""``delineate demo``: every stage once, on generated tissue, told in one page."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from delineate.bundle.load import Bundle, load
from delineate.config import Duration
from delineate.data.dataset import INFO_FILE, Dataset, read_pair
from delineate.data.files import atomic_folder
from delineate.data.synth import TissueSettings, synthesise
from delineate.engines.classical import ColourPredictor, OtsuPredictor
from delineate.evaluation.evaluate import evaluate as score
from delineate.serving.server import running
from delineate.tiling.segment import segment
from delineate.training.job import Event
from delineate.training.log import read_metrics
from delineate.types import Image, LabelMap, Predictor
from delineate.workflows.demo_page import write_page
from delineate.workflows.demo_result import Demo
from delineate.workflows.evaluate import evaluate, labelled
from delineate.workflows.serve import serving_app
from delineate.workflows.train import TrainResult, TrainSettings, train

FOREGROUND = "tumour"


@dataclass(frozen=True)
class DemoSettings:
    """How large the demo is.

    Attributes:
        images: generated for training and validation.
        test_images: generated with stains and scanners that training never saw.
        size_px: side of an image.
        large_px: side of the image that is cut into tiles.
        budget_s: for training, export included.
        steps: for training, in place of the budget (for tests).
        seed: of everything.
    """

    images: int = 60
    test_images: int = 12
    size_px: int = 512
    large_px: int = 4096
    budget_s: float = 330.0
    steps: int | None = None
    seed: int = 7


def demo(
    out: Path | str,
    *,
    settings: DemoSettings | None = None,
    force: bool = False,
    say: Callable[[str], None] = print,
    watch: Callable[[Event], None] | None = None,
) -> Demo:
    """Generate data, train, evaluate, export, predict a large image, ask the server, tell it all.

    Args:
        out: folder for data, run, bundle and page.
        settings: how large; the ten-minute demo when left out.
        force: replace ``out``.
        say: told what happens, one line a stage.
        watch: told about every training step.
    """
    out, settings = Path(out), settings or DemoSettings()
    stages = _Stages(say)
    # an empty folder of that name, an old one gone
    with atomic_folder(out, marker=f"data/{INFO_FILE}", force=force):
        pass
    with stages.stage("generate", f"{settings.images + settings.test_images} images of tissue"):
        data, held_out = _generate(out, settings)
    with stages.stage("train", f"a network for {settings.budget_s:.0f} s, export included"):
        training = _train(out, data, settings, watch)
    bundle = load(training.bundle)
    with stages.stage("evaluate", "on stains and scanners that training never saw"):
        test = evaluate(bundle, held_out, split="val", report=out / "test.html")
        dice = {"network": test.scores.dice[bundle.spec.classes.index(FOREGROUND)]}
        dice |= _controls(data, held_out)
    with stages.stage("predict", f"one image of {settings.large_px} x {settings.large_px} pixels"):
        wanted = TissueSettings(
            n=1, size=settings.large_px, seed=settings.seed + 2000, held_out=True
        )
        large = wanted.sample(0)
        labels, tiles = _predict_large(bundle, large.image)
    with stages.stage("serve", "the bundle over HTTP, and one question"):
        sample = labelled(Dataset.open(held_out), "val")[0]
        answer, server_timing = _ask(bundle, sample.image)
    result = Demo(
        out=out,
        training=training,
        test=test,
        dice=dice,
        example=read_pair(sample, Dataset.open(held_out).info),
        large=(large.image, labels),
        large_dice=_dice(labels, large.labels, bundle.spec.classes.index(FOREGROUND)),
        large_tiles=tiles,
        answer=answer,
        server_timing=server_timing,
        seconds=stages.seconds,
    )
    write_page(result, bundle, read_metrics(training.run))
    return result


class _Stages:
    """Says and times the stages."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self.seconds: dict[str, float] = {}

    def stage(self, name: str, what: str) -> _Stage:
        self._say(f"{name}: {what}")
        return _Stage(name, self.seconds)


class _Stage:
    def __init__(self, name: str, seconds: dict[str, float]) -> None:
        self._name, self._seconds, self._began = name, seconds, time.monotonic()

    def __enter__(self) -> None:
        pass

    def __exit__(self, *details: object) -> None:
        self._seconds[self._name] = time.monotonic() - self._began


def _generate(out: Path, settings: DemoSettings) -> tuple[Path, Path]:
    data, held_out = out / "tissue", out / "held-out"
    train_and_val = TissueSettings(n=settings.images, size=settings.size_px, seed=settings.seed)
    synthesise(data, train_and_val)
    test = TissueSettings(
        n=settings.test_images,
        size=settings.size_px,
        seed=settings.seed + 1000,
        val_fraction=1.0,
        held_out=True,
    )
    synthesise(held_out, test)
    return data, held_out


def demo_changes() -> dict[str, Any]:
    """What the demo changes in the default plan: stains vary, and magnification does little."""
    return {
        "augmentation.scale": (0.8, 1.25),
        "augmentation.brightness": 0.25,
        "augmentation.contrast": 0.25,
        "augmentation.hue": 0.06,
        "augmentation.blur": 0.3,
        "validations": 4,
    }


def _train(
    out: Path, data: Path, settings: DemoSettings, watch: Callable[[Event], None] | None
) -> TrainResult:
    if settings.steps is None:
        duration = Duration(budget_s=settings.budget_s)
    else:
        duration = Duration(steps=settings.steps)
    wanted = TrainSettings(duration=duration, name="tissue", command="delineate demo")
    return train(data, out / "run", changes=demo_changes(), settings=wanted, watch=watch)


def _controls(data: Path, held_out: Path) -> dict[str, float]:
    """Dice of tumour by Otsu and by colour alone, fitted on the training images."""
    trained, tested = Dataset.open(data), Dataset.open(held_out)
    classes = trained.info.classes
    read = partial(read_pair, info=trained.info)
    pairs = [read(sample) for sample in labelled(trained, "train")]
    controls: dict[str, Predictor] = {
        "otsu": OtsuPredictor.fit(pairs, classes, FOREGROUND),
        "colour": ColourPredictor.fit(pairs, classes, FOREGROUND),
    }
    dice: dict[str, float] = {}
    for name, control in controls.items():
        found = score(
            labelled(tested, "val"),
            read,
            lambda image, control=control: segment(control, image)["labels"][0],  # type: ignore[misc]
            classes=classes,
            ignore_index=None,
        )
        dice[name] = found.scores.dice[classes.index(FOREGROUND)]
    return dice


def _predict_large(bundle: Bundle, image: Image) -> tuple[LabelMap, int]:
    tiles = 0

    def count(done: int, total: int) -> None:  # noqa: ARG001
        nonlocal tiles
        tiles = total

    found = segment(bundle, image, tiling=bundle.manifest.tiling, on_tile=count)
    return found["labels"][0], tiles


def _dice(labels: LabelMap, truth: LabelMap, class_id: int) -> float:
    found, wanted = labels == class_id, truth == class_id
    both = int(np.count_nonzero(found & wanted))
    return 2 * both / max(int(np.count_nonzero(found)) + int(np.count_nonzero(wanted)), 1)


def _ask(bundle: Bundle, image: Path) -> tuple[dict[str, Any], str]:
    """Serve the bundle on a free port and ask it for one image; the second answer counts."""
    with running(serving_app(bundle)) as url:
        request = urllib.request.Request(
            f"{url}/v1/segment",
            data=image.read_bytes(),
            headers={"Content-Type": "image/png", "Accept": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=120) as response:
            answer: dict[str, Any] = json.load(response)
            return answer, response.headers["Server-Timing"]
