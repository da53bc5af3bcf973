from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import helper

from delineate.bundle.graph import Wrapping, finish
from delineate.bundle.scores import ScoreModel
from delineate.config import Normalisation
from delineate.engines.onnxruntime import OnnxRuntimePredictor
from delineate.engines.scaling import image_scaling
from delineate.errors import ModelError
from delineate.types import PredictorSpec, Task

if TYPE_CHECKING:
    from tests.conftest import Forge

    from delineate.bundle.graph import OutputKind

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 20, 24, 3), dtype=np.uint8)


def made(
    forge: Forge, task: Task, kind: OutputKind = "logits", **spec: object
) -> tuple[onnx.ModelProto, PredictorSpec]:
    planes = 1 if task == "binary" else 3
    weight = np.random.default_rng(1).normal(size=(planes, 3, 1, 1)).astype(np.float32)
    nodes = [helper.make_node("Conv", ["x", "w"], ["z"], name="conv")]
    if kind == "probabilities":
        last = {"op_type": "Sigmoid"} if planes == 1 else {"op_type": "Softmax", "axis": 1}
        nodes.append(helper.make_node(last.pop("op_type"), ["z"], ["y"], name="last", **last))
    else:
        nodes.append(helper.make_node("Identity", ["z"], ["y"], name="last"))
    classes = ("a", "b") if planes == 1 else ("a", "b", "c")
    wrapping = Wrapping(
        3, "uint8", task, len(classes), Normalisation(mean=(127.0,) * 3, std=(60.0,) * 3),
        output_kind=kind,
    )  # fmt: skip
    graph = finish(forge.model(nodes, ["n", 3, "h", "w"], {"w": weight}), wrapping)
    return graph, PredictorSpec(classes, task, 3, "uint8", **spec)  # type: ignore[arg-type]


@pytest.mark.parametrize("task", ["binary", "multiclass"])
@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_their_softmax_are_the_probabilities(forge: Forge, task: Task, kind: OutputKind) -> None:
    model, spec = made(forge, task, kind)
    logits = ScoreModel(model, spec).logits(IMAGES)
    assert logits.shape == (3, len(spec.classes), 20, 24)
    found = np.exp(logits - logits.max(1, keepdims=True))
    found /= found.sum(1, keepdims=True)
    wanted = OnnxRuntimePredictor(model, spec).predict(IMAGES, ("probabilities",))["probabilities"]
    assert np.abs(found * 255 - wanted).max() <= 0.51
    assert len(np.unique(logits)) > 256  # finer than eight bits


def test_a_batch_that_is_too_large_goes_in_parts(forge: Forge) -> None:
    model, spec = made(forge, "multiclass")
    whole = ScoreModel(model, spec).logits(IMAGES)
    _, small = made(forge, "multiclass", largest_batch=2)
    assert np.array_equal(ScoreModel(model, small).logits(IMAGES), whole)


def test_crops_may_be_normalised_by_the_images_they_are_of(forge: Forge) -> None:
    by_image = Normalisation(by="image", mean=(127.0,) * 3, std=(60.0,) * 3)
    weight = np.random.default_rng(1).normal(size=(3, 3, 1, 1)).astype(np.float32)
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], name="conv")]
    bare = forge.model(nodes, ["n", 3, "h", "w"], {"w": weight})
    graph = finish(bare, Wrapping(3, "uint8", "multiclass", 3, by_image))
    spec = PredictorSpec(("a", "b", "c"), "multiclass", 3, "uint8", normalised_by_image=True)
    network = ScoreModel(graph, replace(spec, largest_batch=2))
    images = (IMAGES * np.linspace(0.2, 1, 24)[:, None]).astype(np.uint8)
    whole = network.logits(images)
    scalings = np.stack([image_scaling(image) for image in images])
    parts = network.logits(np.ascontiguousarray(images[:, :, :8]), scalings)
    np.testing.assert_allclose(parts, whole[:, :, :, :8], atol=1e-5)
    alone = network.logits(np.ascontiguousarray(images[:, :, :8]))
    assert np.abs(alone - parts).max() > 0.5


def test_a_network_of_one_size_sees_resized_images(forge: Forge) -> None:
    model, _ = made(forge, "multiclass")
    _, fixed = made(forge, "multiclass", fixed_hw=(40, 48))
    network = ScoreModel(model, fixed)
    found = network.logits(np.full((1, 20, 24, 3), 90, np.uint8))
    wanted = network.logits(np.full((1, 40, 48, 3), 90, np.uint8))[:, :, :20, :24]
    assert found.shape == (1, 3, 20, 24)
    assert found == pytest.approx(wanted, abs=1e-4)


def test_a_graph_without_scores(forge: Forge) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"], name="relu")]
    model = forge.model(nodes, ["n", 3, "h", "w"], {})
    with pytest.raises(ModelError, match="chosen in a way that is not known"):
        ScoreModel(model, PredictorSpec(("a", "b"), "binary", 3, "uint8"))
