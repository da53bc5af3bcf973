"""``delineate plan``: from a dataset and a latency budget to the plan of a training."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from delineate.bundle.load import engines_on
from delineate.config import Duration, ModelSettings, dump_yaml
from delineate.data.dataset import Dataset
from delineate.data.encode import encode_image
from delineate.data.files import refuse_existing, write_together
from delineate.data.piece import top_left
from delineate.data.statistics import describe
from delineate.errors import SettingsError
from delineate.evaluation.scores import none_if_nan
from delineate.planning.candidates import Candidate, candidate, candidates
from delineate.planning.choice import Budget, Choice, Row, choose
from delineate.planning.contender import LeftOut, NetworkKind, Place
from delineate.planning.fingerprint import Fingerprint, fingerprint
from delineate.planning.latency import quick_look
from delineate.planning.look import look_at, read_alike
from delineate.planning.measure import Work, rows_of
from delineate.planning.prospect import by_promise, prospects, worth_timing
from delineate.planning.rules import Ruled, ruled
from delineate.planning.simple import SimpleMethod, advice, simple_methods
from delineate.training.job import Event
from delineate.workflows.evaluate import labelled
from delineate.workflows.plan_page import write_plan_page
from delineate.workflows.trying import Trial, Tried, after_trying, shares

MEASURED_IMAGES = 200  # of train, for the fingerprint
QUICK_SHARE = 0.55  # of the limit, after which no candidate is begun
TIMED_SHARE = 0.2  # of the limit, for rounds of timing at length


@dataclass(frozen=True)
class PlanSettings:
    """How a plan is looked for.

    Attributes:
        engine: ``auto`` tries all that run on the device.
        device: ``cpu``, ``cuda`` or ``gpu``.
        threads: inside one call; all cores when left out.
        image_hw: size (height, width) that is timed, pixels; the median of train when left out.
        train_s: time there is for the training, seconds.
        limit_s: for the whole search, about.
        models: that are compared; the usual ones when left out.
        curve: the folder of ``train --curve``, whose verdict is told too.
        tries: how many of the best candidates are really trained; none when 0.
        tried_for: how long, all together; or steps of each training of the last round.
    """

    engine: str = "auto"
    device: str = "cpu"
    threads: int | None = None
    image_hw: tuple[int, int] | None = None
    train_s: float | None = None
    limit_s: float = 240.0
    models: tuple[ModelSettings, ...] | None = None
    curve: Path | None = None
    tries: int = 0
    tried_for: Duration | None = None


@dataclass(frozen=True)
class Planned:
    """What was measured, and chosen.

    Attributes:
        fingerprint: of the dataset.
        budget: that had to be met.
        rows: candidates timed at length, by their median.
        left_out: those that were not, and why.
        choice: the candidate and why; none when nothing fits.
        advice: sentences: whether a network is needed, and what a learning curve said.
        simple: classical methods, the best first.
        ruled: the plan with the chosen network, or the default where there is none.
        image_hw: what was timed (height, width), pixels.
        seconds: that it took.
        tried: trainings of the best candidates, where they were asked for.
        files: that were written.
    """

    fingerprint: Fingerprint
    budget: Budget
    rows: tuple[Row, ...]
    left_out: tuple[LeftOut, ...]
    choice: Choice
    advice: tuple[str, ...]
    simple: tuple[SimpleMethod, ...]
    ruled: Ruled
    image_hw: tuple[int, int]
    seconds: float
    tried: tuple[Tried, ...] = ()
    files: Mapping[str, Path] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        chosen = self.choice.row
        return {
            "fingerprint": self.fingerprint.to_dict(),
            "chosen": None if chosen is None else chosen.name,
            "why": list(self.choice.why),
            "advice": list(self.advice),
            "simple": [asdict(method) for method in self.simple],
            "budget": {
                "p95_ms": self.budget.p95_ms,
                "means": self.budget.means,
                "end_to_end": self.budget.end_to_end,
                "memory_bytes": self.budget.memory_bytes,
            },
            "image_hw": list(self.image_hw),
            "candidates": [row_dict(row) for row in self.rows],
            "tried": [one.to_dict() for one in self.tried],
            "left_out": [{"name": item.name, "reason": item.reason} for item in self.left_out],
            "plan": self.ruled.plan.model_dump(mode="json"),
            "reasons": dict(self.ruled.reasons),
            "seconds": round(self.seconds, 1),
            "files": {name: str(path) for name, path in self.files.items()},
        }


def row_dict(row: Row) -> dict[str, Any]:
    """A candidate as plain values: milliseconds, bytes, seconds."""
    found: dict[str, Any] = {
        "name": row.name,
        "model": row.contender.candidate.model.model_dump(mode="json"),
        "engine": row.contender.engine,
        "precision": row.contender.precision,
    }
    for part, timing in (("network", row.network), ("end_to_end", row.end_to_end)):
        for q in (50, 95):
            interval = timing.quantile(q / 100)
            found[f"{part}_p{q}_ms"] = round(interval.value, 3)
        high = timing.quantile(0.95).high
        found[f"{part}_p95_at_most_ms"] = round(high, 3) if np.isfinite(high) else None
    return found | {
        "memory_bytes": row.memory_bytes,
        "file_bytes": row.file_bytes,
        "parameters": row.contender.size.parameters,
        "multiply_adds": row.contender.size.multiply_adds,
        "step_s": row.step_s,
        "expected_miou": None if row.expected is None else none_if_nan(row.expected.miou),
        "expected_from": None if row.expected is None else row.expected.source,
        "fits": not row.reasons,
        "reasons": list(row.reasons),
    }


def plan(
    dataset: Path | str,
    budget: Budget,
    *,
    out: Path | str | None = None,
    force: bool = False,
    settings: PlanSettings = PlanSettings(),
    tell: Callable[[str], None] = lambda _: None,
    watch: Callable[[Event], None] | None = None,
) -> Planned:
    """Measure candidate networks on this machine and choose one that fits the budget.

    Args:
        dataset: a canonical dataset with a labelled split train.
        budget: latency and memory.
        out: ``plan.yaml``; a page and a JSON document of the same name go beside it. Nothing is
            written when it is left out, or when nothing fits.
        force: replace them.
        settings: engine, device, sizes, limits.
        tell: given a line for each thing that is done.
        watch: told about the trainings of ``settings.tries``.

    Raises:
        DatasetError: train is absent or unlabelled; val as well, where candidates are tried.
        EngineError: an engine or the device is absent.
        SettingsError: an engine is unknown, or there is no learning curve in ``settings.curve``.
        OutputError: a file exists.
    """
    began = time.monotonic()
    trial = _trial(settings, out, force=force)
    files = {} if out is None else _files(Path(out), force=force)
    place = Place(engines_on(settings.device, settings.engine), settings.device, settings.threads)
    told = () if settings.curve is None else (_verdict(settings.curve),)
    data = Dataset.open(Path(dataset))
    if trial is not None:
        labelled(data, "val")
    tell("reading the dataset")
    print_ = _fingerprint(data)
    kind = _kind(data, print_)
    work = _work(data, print_, settings.image_hw)
    image_hw = (work.image.shape[0], work.image.shape[1])
    simple = _simple(data, print_)
    base, train_s = ruled(print_).plan, settings.train_s
    contenders, left_out = quick_look(
        by_promise(_candidates(settings, image_hw), print_, plan=base, train_s=train_s),
        kind,
        place,
        work.image,
        budget_ms=budget.p95_ms,
        limit_s=QUICK_SHARE * settings.limit_s - (time.monotonic() - began),
        tell=tell,
    )
    hopes = prospects(contenders, kind, print_, plan=base, train_s=train_s, tell=tell)
    worthy, passed = worth_timing(hopes, budget.p95_ms)
    left_out += passed
    limit_s = TIMED_SHARE * settings.limit_s
    rows = rows_of(worthy, kind, place, work, budget, limit_s=limit_s, tell=tell)
    rows.sort(key=lambda row: row.network.quantile(0.5).value)
    choice = choose(rows, left_out, budget)
    tried: tuple[Tried, ...] = ()
    if trial is not None and choice.row is not None:
        choice, tried = after_trying(
            choice, rows, data, print_, budget, trial, tell=tell, watch=watch
        )
    found = Planned(
        fingerprint=print_,
        budget=budget,
        rows=tuple(rows),
        left_out=tuple(left_out),
        choice=choice,
        advice=(*_cut(print_, image_hw, settings), *advice(simple, print_), *told),
        simple=tuple(simple),
        ruled=ruled(print_, choice.model),
        image_hw=image_hw,
        seconds=time.monotonic() - began,
        tried=tried,
        files=files if choice.row is not None else {},
    )
    if found.files:
        _write(found, data.path.resolve().name)
    return found


def _trial(settings: PlanSettings, out: Path | str | None, *, force: bool) -> Trial | None:
    """What is to be tried; None where nothing is."""
    if settings.tries == 0 and settings.tried_for is None:
        return None
    if settings.tries == 0:
        raise SettingsError(
            "is the time of --try", where="--budget", mend="Add --try 3, or leave it out."
        )
    if settings.tries < 2 or settings.tried_for is None:
        raise SettingsError(
            "trying candidates needs two or more of them, and a time",
            where="--try",
            mend="Write --try 3 --budget 2h.",
        )
    if out is None:
        raise SettingsError("the tried runs need a place", where="out", mend="Name a plan.yaml.")
    shares(settings.tried_for, settings.tries)  # refuses too little time before anything is done
    folder = Path(f"{Path(out).with_suffix('')}-tries")
    return Trial(folder, settings.tries, settings.tried_for, force)


def _files(out: Path, *, force: bool) -> dict[str, Path]:
    files = {
        "plan": out,
        "page": out.with_suffix(".html"),
        "document": out.with_suffix(".json"),
    }
    if out.suffix not in (".yaml", ".yml"):
        raise SettingsError(f"{out} is no name of a plan", where="--out", mend="End it in .yaml.")
    if not force:
        for path in files.values():
            refuse_existing(path)
    return files


def _fingerprint(data: Dataset) -> Fingerprint:
    samples = labelled(data, "train")
    look = look_at(samples, data.info)
    statistics = describe(data.path, splits=("train",), most=MEASURED_IMAGES)
    return fingerprint(data, look, statistics)


def _simple(data: Dataset, print_: Fingerprint) -> list[SimpleMethod]:
    read = partial(read_alike, info=data.info, first=print_.look)
    val = [sample for sample in data.splits.get("val", ()) if sample.mask is not None]
    return simple_methods(labelled(data, "train"), val, read, print_, data.info.ignore_index)


def _verdict(run: Path) -> str:
    """What ``train --curve`` said."""
    path = run / "curve.json"
    try:
        text = json.loads(path.read_text(encoding="utf-8"))["verdict"]
    except FileNotFoundError as error:
        raise SettingsError(
            "holds no learning curve",
            where=run,
            mend="Name the folder of: delineate train --curve.",
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(
            f"is no learning curve ({error})",
            where=path,
            mend="Name the folder of: delineate train --curve.",
        ) from error
    return f"By the learning curve in {run}: {text}"


def _cut(print_: Fingerprint, image_hw: tuple[int, int], settings: PlanSettings) -> tuple[str, ...]:
    """What the budget means where images are cut into tiles."""
    height, width = settings.image_hw or _median_hw(print_)
    if image_hw == (height, width):
        return ()
    whose = "as asked for" if settings.image_hw is not None else "the median"
    return (
        f"The images are larger than one tile ({height} x {width} px, {whose}): the budget was "
        f"taken for one tile of {image_hw[0]} x {image_hw[1]} px.",
    )


def _kind(data: Dataset, print_: Fingerprint) -> NetworkKind:
    classes = data.info.classes
    return NetworkKind(
        channels=print_.look.channels,
        dtype=print_.look.dtype,
        classes=classes,
        task="binary" if len(classes) == 2 else "multiclass",
        normalisation=print_.look.normalisation.model_copy(
            update={"by": ruled(print_).plan.normalisation}
        ),
    )


def _candidates(settings: PlanSettings, image_hw: tuple[int, int]) -> Sequence[Candidate]:
    if settings.models is not None:
        return [candidate(model) for model in settings.models]
    return candidates(min(image_hw))


def _work(data: Dataset, print_: Fingerprint, image_hw: tuple[int, int] | None) -> Work:
    """An image of train, of the size that is timed, and as a file of the same kind."""
    sample = labelled(data, "train")[0]
    image, _ = read_alike(sample, data.info, print_.look)
    hw = _one_tile(print_, image_hw or _median_hw(print_))
    if image.shape[:2] == hw:
        return Work(sample.image.read_bytes(), image, data.colours)
    fitted = top_left(image, hw, hw)
    return Work(encode_image(fitted, sample.image.suffix), fitted, data.colours)


def _median_hw(print_: Fingerprint) -> tuple[int, int]:
    return round(print_.height_px.median), round(print_.width_px.median)


def _one_tile(print_: Fingerprint, image_hw: tuple[int, int]) -> tuple[int, int]:
    """The size of images, or of their tiles where they are cut."""
    tile_px = ruled(print_).plan.tiling.tile_px
    return min(image_hw[0], tile_px), min(image_hw[1], tile_px)


def _write(found: Planned, dataset: str) -> None:
    document = found.to_dict()
    files = {
        found.files["document"]: json.dumps(document, indent=2).encode(),
        found.files["page"]: write_plan_page(document, dataset).encode(),
        found.files["plan"]: _annotated(found).encode(),
    }
    write_together(files)


def _annotated(found: Planned) -> str:
    """The plan as YAML, with the reasons as comments above it."""
    lines = [f"# {sentence}" for sentence in (*found.choice.why, *found.advice)]
    lines += [f"# {path}: {reason}" for path, reason in found.ruled.reasons.items()]
    return "\n".join(lines) + "\n" + dump_yaml(found.ruled.plan)
