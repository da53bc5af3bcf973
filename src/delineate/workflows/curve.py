"""``delineate train --curve``: would more labels help, or a larger network?

The network is trained on 25, 50 and 100 % of train, and a larger one on 100 %, each for the same
time (or number of steps) and scored on the same val. Equal steps are the fair choice at a fixed
budget: a step costs the same whatever the size of the dataset, so the trainings differ in nothing
but the images they see. A small subset is seen more often; that it is then learnt by heart is part
of what having few labels means, and the weights that are kept are the best on val in each.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from delineate.config import Architecture, ModelSettings, Plan
from delineate.data.dataset import Dataset, Sample
from delineate.data.files import write_text
from delineate.evaluation.learning_curve import (
    Estimate,
    LearningCurve,
    difference,
    fit_learning_curve,
)
from delineate.models.build import OWN_ENCODERS
from delineate.planning.candidates import candidate
from delineate.training.job import Event
from delineate.workflows.curve_page import write_curve_page
from delineate.workflows.parts import Done, Part, refuse_short, train_parts
from delineate.workflows.subsets import class_presence, nested
from delineate.workflows.training_setup import Prepared, TrainSettings, prepare, started

CURVE = "curve.json"
FOLDERS = ("full", "quarter", "half", "larger")  # in the order of training: the bundle first
WORTH = 0.005  # of mean IoU: what is expected to bring less is not worth doing

_LADDERS = (
    ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    ("resnext50_32x4d", "resnext101_32x4d"),
    ("densenet121", "densenet169", "densenet201"),
    ("vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn"),
    tuple(f"efficientnet-b{i}" for i in range(8)),
    tuple(f"mobileone_s{i}" for i in range(5)),
    tuple(f"mit-b{i}" for i in range(6)),
    ("mobilenet_v2", "efficientnet-b0"),
    ("tu-convnext_tiny", "tu-convnext_small", "tu-convnext_base", "tu-convnext_large"),
)
# Networks of one size, and what is the next larger of their kind: plain convolutions, coarse cells
_ABOVE: dict[Architecture, ModelSettings] = {
    "fast-scnn": ModelSettings(architecture="ddrnet-23-slim", deep_supervision=True),
    "ddrnet-23-slim": ModelSettings(architecture="deeplabv3+", encoder="resnet34"),
}


@dataclass(frozen=True)
class CurveResult:
    """What a learning curve found.

    Attributes:
        run: its folder.
        done: the trainings by folder: ``full``, ``quarter``, ``half`` and, where there is a larger
            network, ``larger``.
        curve: over the number of images.
        network: what the larger network has over the plan's, in mean IoU; None without one.
        missing: by folder, the classes that are in train and not in that subset.
        elapsed_s: seconds of the whole.
    """

    run: Path
    done: Mapping[str, Done]
    curve: LearningCurve
    network: Estimate | None
    missing: Mapping[str, tuple[str, ...]]
    elapsed_s: float

    @property
    def bundle(self) -> Path:
        """That of the training on all of train with the plan's network."""
        return self.done["full"].bundle

    @property
    def verdict(self) -> str:
        return verdict(self.curve, self.network)

    def to_dict(self) -> dict[str, Any]:
        larger = self.done.get("larger")
        return {
            "run": str(self.run),
            "bundle": str(self.bundle),
            "elapsed_s": round(self.elapsed_s, 2),
            "verdict": self.verdict,
            "labels": self.curve.to_dict(),
            "network": None
            if larger is None or self.network is None
            else {
                "gain": self.network.to_dict(),
                "name": candidate(larger.part.plan.model).name,
                "model": larger.part.plan.model.model_dump(mode="json"),
            },
            "missing_classes": {name: list(classes) for name, classes in self.missing.items()},
            "trainings": {
                name: {
                    "run": name,
                    "bundle": f"{name}/{done.bundle.name}",
                    "images": len(done.part.data.split("train")),
                    "steps": done.steps,
                    "elapsed_s": round(done.elapsed_s, 2),
                    "validation": done.evaluation.scores.to_dict(),
                }
                for name, done in self.done.items()
            },
        }


def verdict(curve: LearningCurve, network: Estimate | None) -> str:
    """Whether labels or a larger network would help, in words."""
    doubled, gain = curve.doubled, curve.gain
    labels = (
        f"with twice the labels: mIoU {doubled.value:.2f} ({doubled.low:.2f} to "
        f"{doubled.high:.2f}), {_points(gain.value)}"
    )
    helps = [
        name
        for name, found in (("more labels", gain), ("a larger network", network))
        if found is not None and found.value >= WORTH and found.low > 0
    ]
    if network is None:
        head = "More labels would help" if helps else "More labels are not sure to help"
        return f"{head}: {labels}. The network has no larger one to compare with."
    larger = (
        f"with the larger network in the same time: {_points(network.value)} "
        f"({100 * network.low:+.1f} to {100 * network.high:+.1f})"
    )
    match helps:
        case []:
            head = "Neither more labels nor a larger network is sure to help"
        case [one]:
            head = f"{one.capitalize()} would help"
        case _:
            first = helps[0] if gain.value >= network.value else helps[1]
            head = f"Both would help, {first} more"
    return f"{head}: {labels}; {larger}."


def _points(gain: float) -> str:
    return f"{100 * gain:+.1f} points"


def train_curve(
    dataset: Path | str,
    out: Path | str,
    *,
    plan: Plan | None = None,
    changes: Mapping[str, Any] | None = None,
    settings: TrainSettings,
    watch: Callable[[Event], None] | None = None,
) -> CurveResult:
    """Train on subsets and with a larger network, and say which of labels and network helps.

    A budget is that of the whole, shared evenly; a number of steps is that of each training.

    Args:
        dataset: a canonical dataset with train and val.
        out: folder of the whole; it holds ``full`` (whose bundle is the result), ``quarter``,
            ``half``, ``larger``, ``curve.json`` and ``report.html``.
        plan: the configuration; the usual one when left out.
        changes: single fields of the plan by dotted path.
        settings: how long, and how. With ``resume`` finished trainings are kept.
        watch: told about every training, with the progress of the whole.

    Raises:
        DatasetError: no such dataset, or train has fewer than four groups or images.
        SettingsError: the plan does not fit, or the budget is over.
        DelineateError: what :func:`delineate.workflows.train.train` raises.
    """
    began = time.monotonic()
    refuse_short(settings, parts=len(FOLDERS), reserve_s=0.0)
    data = Dataset.open(Path(dataset))
    data = Dataset(data.path, data.info, {name: data.split(name) for name in ("train", "val")})
    prepared = prepare(data, Path(out), plan, changes, settings, kind="a learning curve")
    parts, missing = _parts(prepared)
    run = prepared.job.run
    with started(prepared, began) as clock:
        found = train_parts(parts, prepared, clock, reserve_s=0.0, watch=watch)
        done = {each.part.folder: each for each in found}
        ordered = [done[name] for name in ("quarter", "half", "full")]
        result = CurveResult(
            run,
            done,
            fit_learning_curve(
                [len(each.part.data.split("train")) for each in ordered],
                [each.counts for each in ordered],
            ),
            difference(done["full"].counts, done["larger"].counts) if "larger" in done else None,
            missing,
            clock.elapsed_s(),
        )
        write_text(run / CURVE, json.dumps(result.to_dict(), indent=2))
        write_curve_page(
            run / "report.html", title=f"{prepared.name}, learning curve", document=result.to_dict()
        )
    return result


def _parts(prepared: Prepared) -> tuple[list[Part], dict[str, tuple[str, ...]]]:
    """The trainings, and the classes that the subsets lack."""
    job, data = prepared.job, prepared.data
    presence = class_presence(job.train, len(job.classes))
    quarter, half = nested(job.train, seed=job.plan.seed, presence=presence, root=data.path)
    subsets: dict[str, Sequence[Sample]] = {"full": job.train, "quarter": quarter, "half": half}
    parts = [
        Part(
            folder=folder,
            title=f"training on {len(samples)} of {len(job.train)} images",
            data=Dataset(data.path, data.info, {"train": tuple(samples), "val": tuple(job.val)}),
            plan=job.plan,
            name=prepared.name,
        )
        for folder, samples in subsets.items()
    ]
    larger = larger_model(job.plan.model)
    if larger is not None:
        title = f"training the larger network, {candidate(larger).name}"
        plan = job.plan.model_copy(update={"model": larger})
        replace(job, plan=plan).build()  # refuses what cannot be built before anything is trained
        parts.append(Part("larger", title, parts[0].data, plan, prepared.name))
    everything = frozenset().union(*presence.values())
    missing = {
        folder: tuple(
            job.classes[i]
            for i in sorted(everything - frozenset().union(*(presence[s] for s in samples)))
        )
        for folder, samples in subsets.items()
    }
    return parts, {folder: names for folder, names in missing.items() if names}


def larger_model(model: ModelSettings) -> ModelSettings | None:
    """The next larger encoder of the family, and a decoder twice as wide where it has widths.

    The encoder stays where its weights are a file, or neither ladder nor architecture has a larger
    one. A network of one size has another architecture above it. None where nothing of the network
    can be made larger so.
    """
    above = _ABOVE.get(model.architecture)
    if above is not None:
        return above.model_copy(update={"downscale": model.downscale})
    encoder = model.encoder
    there = OWN_ENCODERS.get(model.architecture)
    if model.encoder_weights in (None, "imagenet"):
        for ladder in _LADDERS:
            if encoder in ladder[:-1]:
                larger = ladder[ladder.index(encoder) + 1]
                encoder = larger if there is None or larger in there else encoder
                break
    widths = model.decoder_channels
    wider = None if widths is None else tuple(2 * width for width in widths)
    if encoder == model.encoder and wider == widths:
        return None
    return model.model_copy(update={"encoder": encoder, "decoder_channels": wider})
