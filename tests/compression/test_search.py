"""Searches on small networks that are really quantised; only their speed is made up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import helper

from delineate.bundle.graph import Wrapping, finish
from delineate.bundle.manifest import Precision
from delineate.compression.attempts import Attempt, Place
from delineate.compression.piece import Piece
from delineate.compression.quantise import prepared
from delineate.compression.search import Search, SearchSettings
from delineate.config import Normalisation
from delineate.data.dataset import Sample
from delineate.engines.onnxruntime import OnnxRuntimePredictor
from delineate.engines.timing import Timing
from delineate.errors import EngineError
from delineate.evaluation.details import DetailSettings
from delineate.evaluation.evaluate import Evaluation, evaluate
from delineate.types import Predictor, PredictorSpec

if TYPE_CHECKING:
    from tests.conftest import Forge

CLASSES = ("a", "b", "c")
SPEC = PredictorSpec(CLASSES, "multiclass", 3, "uint8")
WRAPPING = Wrapping(3, "uint8", "multiclass", 3, Normalisation(mean=(127.0,) * 3, std=(60.0,) * 3))
IMAGES = tuple(
    np.kron(
        np.random.default_rng(seed).permuted(np.tile(np.uint8([230, 90, 40]), (4, 4, 1)), axis=2),
        np.ones((8, 8, 1), np.uint8),
    )
    for seed in range(4)
)  # patches of which one channel is the brightest
PIECES = tuple(Piece(image) for image in IMAGES)
ORT: SearchSettings = SearchSettings(tools=(("onnxruntime", "minmax"),))


def network(forge: Forge, *, harmed: bool) -> onnx.ModelProto:
    """Names the brightest channel, through three convolutions.

    ``harmed``: the one in the middle has a huge weight for a channel that is always 0, which
    leaves no levels to the weights that matter.
    """
    through = np.zeros((16, 16, 1, 1))
    through[range(3), range(3)] = 1.0
    through[:, 3] = 1000.0 if harmed else 0.0
    weights = {
        "w1": np.pad(through[:, :3], ((0, 0), (0, 0), (1, 1), (1, 1))),
        "w2": through,
        "w3": np.eye(3, 16)[:, :, None, None],
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="first", pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("Conv", ["b", "w2"], ["c"], name="middle"),
        helper.make_node("Conv", ["c", "w3"], ["y"], name="last"),
    ]
    constants = {name: value.astype(np.float32) for name, value in weights.items()}
    return finish(forge.model(nodes, ["n", 3, "h", "w"], constants), WRAPPING)


def engine(graph: onnx.ModelProto, precision: Precision) -> Predictor:
    if precision in ("bfloat16", "float16"):
        raise EngineError(f"this processor has no {precision}")
    return OnnxRuntimePredictor(graph, SPEC, threads=1)


def place(model: onnx.ModelProto, ms: Callable[[str], float]) -> Place:
    """Where float32 is always right, and ``ms`` says how long a variant takes."""
    truth = OnnxRuntimePredictor(model, SPEC, threads=1)
    samples = [Sample(str(i), Path(f"{i}.png"), None, None) for i in range(len(IMAGES))]

    def score(predictor: Predictor) -> Evaluation:
        return evaluate(
            samples,
            lambda s: (IMAGES[int(s.name)], truth.predict(IMAGES[int(s.name)][None])["labels"][0]),
            lambda image: predictor.predict(image[None])["labels"][0],
            classes=CLASSES,
            ignore_index=None,
            details=DetailSettings(),
        )

    def timed(calls: Mapping[str, Callable[[], object]]) -> dict[str, Timing]:
        return {n: Timing(0.0, True, (np.full(3, ms(n)), np.full(2, ms(n)))) for n in calls}

    return Place(
        engines={"onnxruntime": engine},
        survive=lambda *_: None,
        score=score,
        call=lambda predictor: predictor.predict(IMAGES[0][None]),
        timed=timed,
    )


def search(
    model: onnx.ModelProto,
    folder: Path,
    ms: Callable[[str], float],
    settings: SearchSettings = ORT,
) -> tuple[tuple[Attempt, ...], Search, list[str]]:
    told: list[str] = []
    made = Search(
        model,
        prepared(model),
        PIECES,
        place(model, ms),
        settings,
        cache=folder,
        tell=told.append,
    )
    return made.run(), made, told


def int8_is_faster(label: str) -> float:
    return 10.0 if "int8" in label else 20.0


def test_a_harmless_variant_is_admitted(forge: Forge, tmp_path: Path) -> None:
    found, made, told = search(network(forge, harmed=False), tmp_path, int8_is_faster)
    assert [item.label for item in found] == [
        "float32 on onnxruntime",
        "int8 (ONNX Runtime) on onnxruntime",
    ]
    assert [item.admitted for item in found] == [True, True]
    assert found[1].speedup is not None
    assert found[1].speedup.value == 2.0
    assert found[1].base == "float32 on onnxruntime"
    assert found[1].loss is not None
    assert abs(found[1].loss.miou) < 1
    assert made.left_out == [
        "bfloat16 on onnxruntime: this processor has no bfloat16",
        "float16 on onnxruntime: this processor has no float16",
    ]
    assert told == [
        "making int8 (ONNX Runtime)",
        "timing 2 variants in turns",
        "scoring float32 on onnxruntime",
        "scoring int8 (ONNX Runtime) on onnxruntime",
    ]


def test_a_harmful_variant_is_refused_and_mended(forge: Forge, tmp_path: Path) -> None:
    found, _, told = search(network(forge, harmed=True), tmp_path, int8_is_faster)
    _, harmful, mended = found
    assert not harmful.admitted
    assert harmful.loss is not None
    assert harmful.loss.miou > 5
    assert harmful.reasons[0].startswith("loses ")
    assert mended.admitted
    assert mended.how is not None
    assert mended.how.float_nodes == {"network/middle"}
    assert mended.name == "int8 (ONNX Runtime, 1 layer float)"
    assert "looking for the layers that int8 (ONNX Runtime) on onnxruntime suffers from" in told


def test_mending_ends_where_the_speed_is_gone(forge: Forge, tmp_path: Path) -> None:
    def ms(label: str) -> float:
        return 19.0 if "layer" in label else int8_is_faster(label)

    found, _, _ = search(network(forge, harmed=True), tmp_path, ms)
    assert [item.admitted for item in found] == [True, False, False]
    assert found[2].reasons == (
        "is 1.05 times as fast as float32 on onnxruntime (1.05 to 1.05), and 1.2 times is asked "
        "for",
    )


def test_what_is_not_faster_is_refused_and_not_mended(forge: Forge, tmp_path: Path) -> None:
    found, _, told = search(network(forge, harmed=True), tmp_path, lambda _: 20.0)
    assert len(found) == 2
    assert len(found[1].reasons) >= 2  # it loses points as well, and is told so
    assert "1.00 times as fast" in found[1].reasons[-1]
    assert not any("layers" in line for line in told)


def test_a_limit_ends_the_search(forge: Forge, tmp_path: Path) -> None:
    settings = SearchSettings(tools=(("onnxruntime", "minmax"),), limit_s=0.0)
    found, _, _ = search(network(forge, harmed=True), tmp_path, int8_is_faster, settings)
    assert len(found) == 2
    assert not found[1].admitted


def test_a_tool_that_fails_is_told(
    forge: Forge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError("an odd node")

    monkeypatch.setattr("delineate.compression.quantise.quantize_static", broken)
    found, made, _ = search(network(forge, harmed=False), tmp_path, int8_is_faster)
    assert len(found) == 1
    assert made.left_out[-1] == (
        "int8 (ONNX Runtime): ONNX Runtime cannot quantise this network (an odd node)."
    )


def test_int8_is_compared_with_the_best_float(forge: Forge, tmp_path: Path) -> None:
    """A bf16 that is 1.1 times as fast is not admitted, and still what int8 has to beat."""

    def with_bf16(graph: onnx.ModelProto, precision: Precision) -> Predictor:
        if precision == "float16":
            raise EngineError("no float16")
        return OnnxRuntimePredictor(graph, SPEC, threads=1)

    def ms(label: str) -> float:
        return {"float32": 22.0, "bfloat16": 20.0}.get(label.split()[0], 17.0)

    model = network(forge, harmed=False)
    where = place(model, ms)
    where = replace(where, engines={"onnxruntime": with_bf16})
    settings = SearchSettings(tools=(("onnxruntime", "minmax"),))
    found = Search(
        model, prepared(model), PIECES, where, settings, cache=tmp_path, tell=lambda _: None
    ).run()
    assert [item.precision for item in found] == ["bfloat16", "float32", "int8"]
    assert [item.admitted for item in found] == [False, True, False]
    assert found[2].reasons == (
        "is 1.18 times as fast as bfloat16 on onnxruntime (1.18 to 1.18), and 1.2 times is asked "
        "for",
    )


def test_an_engine_that_crashes_on_int8_is_not_asked(forge: Forge, tmp_path: Path) -> None:
    def dies(*_: object) -> None:
        raise EngineError("a process with onnxruntime ended with SIGSEGV")

    model = network(forge, harmed=False)
    where = replace(place(model, int8_is_faster), survive=dies)
    looking = Search(
        model, prepared(model), PIECES, where, ORT, cache=tmp_path, tell=lambda _: None
    )
    assert {item.precision for item in looking.run()} == {"float32"}
    assert any("ended with SIGSEGV" in line for line in looking.left_out)


def test_a_mend_that_fails_loses_nothing(
    forge: Forge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise EngineError("it broke")

    monkeypatch.setattr("delineate.compression.search.rank_layers", broken)
    found, made, _ = search(network(forge, harmed=True), tmp_path, int8_is_faster)
    assert [item.admitted for item in found] == [True, False]
    assert made.left_out[-1] == ("layers of int8 (ONNX Runtime) on onnxruntime in float: it broke.")


def test_no_engine_at_all(forge: Forge, tmp_path: Path) -> None:
    def absent(*_: object) -> Predictor:
        raise EngineError("device 'cuda' is not offered by this ONNX Runtime")

    model = network(forge, harmed=False)
    where = place(model, int8_is_faster)
    where = replace(where, engines={"onnxruntime": absent})
    with pytest.raises(EngineError, match="no engine runs this network in float32"):
        Search(
            model, prepared(model), PIECES, where, ORT, cache=tmp_path, tell=lambda _: None
        ).run()
