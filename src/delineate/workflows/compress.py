"""``delineate compress``: smaller and faster variants of a bundle, through the gate."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import onnx

from delineate.bundle.card import model_card
from delineate.bundle.footprint import graph_footprint
from delineate.bundle.load import (
    Bundle,
    engine_predictor,
    engines_on,
    golden_file,
    golden_name,
    network_of,
)
from delineate.bundle.manifest import EngineName, Precision, Variant
from delineate.bundle.store import MANIFEST, BundleStore, write_bundle
from delineate.compression.attempts import Attempt, Place
from delineate.compression.calibration import IMAGES, calibration_pieces, calibration_samples
from delineate.compression.piece import Piece
from delineate.compression.quantise import prepared
from delineate.compression.search import Search, SearchSettings
from delineate.data.dataset import Dataset, Sample, read_pair
from delineate.data.files import refuse_existing
from delineate.data.piece import top_left
from delineate.engines.timing import time_calls
from delineate.evaluation.evaluate import Evaluation
from delineate.evaluation.scores import none_if_nan, score_figures
from delineate.types import Image, LabelMap, Predictor
from delineate.workflows.evaluate import as_input, labelled, refuse_other_classes
from delineate.workflows.evaluate import evaluate as score

CALIBRATED_SIDE_PX = 1024  # of an image at most, so that ranges fit the memory


@dataclass(frozen=True)
class CompressSettings:
    """How variants are looked for.

    Attributes:
        search: thresholds, tools and the limit of time.
        engine: ``auto`` tries all that run on the device.
        device: ``cpu``, ``cuda`` or ``gpu``.
        threads: inside one call; all cores when left out.
        image_hw: size (height, width) that is timed, pixels; that of the first image of val, or a
            tile of it, when left out.
        images: of the training split for the ranges.
        may_lack: go on where these images show not every class.
    """

    search: SearchSettings = SearchSettings()  # noqa: RUF009 - frozen
    engine: str = "auto"
    device: str = "cpu"
    threads: int | None = None
    image_hw: tuple[int, int] | None = None
    images: int = IMAGES
    may_lack: bool = False


@dataclass(frozen=True)
class Compressed:
    """What was tried and what the gate said.

    Attributes:
        attempts: floats first, the fastest of them first.
        admitted: the fastest variant of each precision that was admitted, by its name.
        left_out: what could not be made or run, and why.
        timed_hw: size of the timed image (height, width), pixels.
        bundle: the written bundle; None where nothing was admitted, and nothing written.
    """

    attempts: tuple[Attempt, ...]
    admitted: Mapping[str, Attempt]
    left_out: tuple[str, ...]
    timed_hw: tuple[int, int]
    bundle: Path | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "bundle": None if self.bundle is None else str(self.bundle),
            "admitted": {name: item.label for name, item in self.admitted.items()},
            "timed_hw": list(self.timed_hw),
            "attempts": [row(item) for item in self.attempts],
            "left_out": list(self.left_out),
        }


def row(item: Attempt) -> dict[str, Any]:
    """An attempt as plain values: milliseconds, points, and the reasons of a refusal."""
    timing, ratio, loss = item.timing, item.speedup, item.loss
    found: dict[str, Any] = {
        "name": item.name,
        "engine": item.engine,
        "precision": item.precision,
        "float_layers": sorted(item.how.float_nodes) if item.how is not None else [],
        "p50_ms": round(timing.quantile(0.5).value, 3),
        "p95_ms": round(timing.quantile(0.95).value, 3),
        "mean_iou": None,
        "admitted": item.admitted,
        "reasons": list(item.reasons),
    }
    if item.evaluation is not None:
        found["mean_iou"] = none_if_nan(item.evaluation.scores.mean_iou)
    if ratio is not None:
        values = {"speedup": ratio.value, "speedup_low": ratio.low, "speedup_high": ratio.high}
        found |= {name: round(value, 4) for name, value in values.items()} | {"against": item.base}
    if loss is not None:
        name, points = loss.worst_class
        found["points_lost"] = {
            "mean_iou": none_if_nan(loss.miou),
            "worst_class": name,
            "of_worst_class": none_if_nan(points),
            "boundary_iou": none_if_nan(loss.boundary),
        }
    return found


def compress(
    bundle: Path | str,
    dataset: Path | str,
    *,
    out: Path | str | None = None,
    force: bool = False,
    settings: CompressSettings = CompressSettings(),
    tell: Callable[[str], None] = lambda _: None,
) -> Compressed:
    """Look for variants of a bundle that are faster and hold their scores, and add them to it.

    Ranges are calibrated on the training split, scores judged on the validation split, speed on
    this machine. float32 stays as it is.

    Args:
        bundle: folder or ``.zip``.
        dataset: a canonical dataset with the splits train and val.
        out: another bundle to write; the variants are added to ``bundle`` itself when left out.
        force: replace ``out``.
        settings: thresholds, engines, limits.
        tell: given a line for every thing that is done.

    Raises:
        DatasetError: a split is absent, its classes are not those of the bundle, or train lacks
            one.
        EngineError: an engine or a device is absent.
        ModelError: the network cannot be prepared, or none of its operators quantised.
        OutputError: ``out`` exists or cannot be written.
    """
    path = Path(bundle)
    if out is not None and not force:
        refuse_existing(Path(out))
    store = BundleStore(path)
    model = network_of(store)
    work = _Work(store, Dataset.open(Path(dataset)), settings)
    with tempfile.TemporaryDirectory() as cache:
        search = Search(
            model,
            prepared(model),
            work.calibration(),
            work.place(),
            settings.search,
            cache=Path(cache),
            tell=tell,
        )
        attempts = search.run()
    admitted = _fastest(attempts)
    written = None
    if admitted:
        written = path if out is None else Path(out)
        work.write(attempts, admitted, search.left_out, written, force=force or out is None)
    left_out = (*search.left_out, *(() if written else work.older()))
    return Compressed(attempts, admitted, left_out, work.timed_hw, written)


def _fastest(attempts: Sequence[Attempt]) -> dict[str, Attempt]:
    """The fastest admitted attempt of each precision but float32."""
    found: dict[str, Attempt] = {}
    for item in sorted(attempts, key=lambda item: item.timing.quantile(0.5).value):
        if item.admitted and item.precision != "float32":
            found.setdefault(item.precision, item)
    return found


class _Work:
    """A bundle, a dataset, and what makes attempts of them."""

    def __init__(self, store: BundleStore, data: Dataset, settings: CompressSettings) -> None:
        self.store, self.data, self.settings = store, data, settings
        self.manifest, self.spec = store.manifest, store.manifest.spec()
        refuse_other_classes(data, self.manifest)
        self._train, self._val = labelled(data, "train"), labelled(data, "val")
        self._image = self._timed_image()

    @property
    def timed_hw(self) -> tuple[int, int]:
        height, width = self._image.shape[:2]
        return height, width

    def read(self, sample: Sample) -> tuple[Image, LabelMap]:
        image, mask = read_pair(sample, self.data.info)
        return as_input(image, self.spec, sample.image), mask

    def calibration(self) -> list[Piece]:
        """Pieces that the network takes of images of train, every class among them."""
        chosen = calibration_samples(
            self._train,
            self.read,
            self.data.info.classes,
            count=self.settings.images,
            may_lack=self.settings.may_lack,
            where=self.data.path,
        )
        side = min(CALIBRATED_SIDE_PX, self.manifest.tiling.tile_px)
        return calibration_pieces(chosen, self.read, self.spec, side)

    def place(self) -> Place:
        image = self._image[None]
        return Place(
            engines={
                name: partial(self._predictor, name)
                for name in engines_on(self.settings.device, self.settings.engine)
            },
            survive=partial(self._survive, image_hw=(self._image.shape[0], self._image.shape[1])),
            score=self._score,
            call=lambda predictor: predictor.predict(image),
            timed=time_calls,
        )

    def older(self) -> tuple[str, ...]:
        """That variants of an earlier call stay in a bundle that is not written anew."""
        names = [name for name in self.manifest.variants if name != "float32"]
        if not names:
            return ()
        return (f"the bundle keeps what an earlier call admitted: {', '.join(names)}",)

    def write(
        self,
        attempts: Sequence[Attempt],
        admitted: Mapping[str, Attempt],
        left_out: Sequence[str],
        out: Path,
        *,
        force: bool,
    ) -> None:
        """The bundle with its new variants; those of an earlier call go."""
        kept = {"float32"}
        old = {name: variant for name, variant in self.manifest.variants.items() if name in kept}
        dropped = {v.file for n, v in self.manifest.variants.items() if n not in kept}
        files = {
            name: self.store.read(name)
            for name in self.manifest.files
            if name != MANIFEST
            and name not in dropped - {v.file for v in old.values()}
            and not (name.startswith("canary/golden/") and name.split("/")[2] not in kept)
        }
        variants = {"float32": self._float32(attempts)}
        for name, item in admitted.items():
            file = "model.int8.onnx" if name == "int8" else variants["float32"].file
            if name == "int8":
                files[file] = item.graph.SerializeToString()
            variants[name] = self._variant(file, [item])
            predictor = self._predictor(item.engine, item.graph, item.precision)
            for image_name, image in Bundle(self.store, predictor, item.engine, name).canary():
                golden = golden_file(predictor, image, self.manifest.tiling.tile_px)
                files[golden_name(name, image_name)] = golden
        note = {
            "date": datetime.now(UTC).date().isoformat(),
            "thresholds": self.settings.search.gate.model_dump(),
            "dataset_sha256": self.data.fingerprint(),
            "attempts": [row(item) for item in attempts],
            "left_out": list(left_out),
        }
        manifest = self.manifest.model_copy(
            update={
                "variants": variants,
                "provenance": {**self.manifest.provenance, "compression": note},
            }
        )
        files["card.md"] = model_card(manifest).encode()
        write_bundle(out, manifest, files, force=force)

    def _float32(self, attempts: Sequence[Attempt]) -> Variant:
        own = [item for item in attempts if item.precision == "float32"]
        found = self._variant(self.manifest.variants["float32"].file, own)
        before = self.manifest.variants["float32"]
        return found.model_copy(
            update={
                "engine": None,
                "scores": before.scores or found.scores,
                "tolerance": before.tolerance,
            }
        )

    def _variant(self, file: str, items: Sequence[Attempt]) -> Variant:
        first = items[0]
        height, width = self.timed_hw
        threads = "all" if self.settings.threads is None else self.settings.threads
        where = f"{self.settings.device}, {threads} threads, {height}x{width}"
        medians = {item.engine: item.timing.quantile(0.5).value for item in items}
        return Variant(
            file=file,
            precision=first.precision,
            engine=first.engine,
            scores={} if first.evaluation is None else score_figures(first.evaluation.scores),
            latency_ms={f"{name}, {where}": round(ms, 3) for name, ms in medians.items()},
        )

    def _predictor(
        self, engine: EngineName, graph: onnx.ModelProto, precision: Precision
    ) -> Predictor:
        settings = self.settings
        return engine_predictor(
            graph, self.spec, engine, precision, settings.device, settings.threads
        )

    def _survive(
        self,
        graph: onnx.ModelProto,
        engine: EngineName,
        precision: Precision,
        image_hw: tuple[int, int],
    ) -> None:
        device, threads = self.settings.device, self.settings.threads
        graph_footprint(
            graph,
            self.spec,
            engine,
            precision,
            image_hw=image_hw,
            device=device,
            threads=threads,
        )

    def _score(self, predictor: Predictor) -> Evaluation:
        return score(Bundle(self.store, predictor, "", ""), self.data.path, split="val")

    def _timed_image(self) -> Image:
        image = self.read(self._val[0])[0]
        wanted, side = self.settings.image_hw, self.manifest.tiling.tile_px
        fixed = self.spec.fixed_hw or wanted
        return top_left(image, fixed or (side, side), fixed or (0, 0))
