from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

Run = Callable[..., Any]


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """Logits of three classes: pixel values times -1, 0 and 1 (1 x 1 convolution)."""
    weight = np.zeros((3, 3, 1, 1), np.float32)
    weight[0, 0], weight[2, 0] = -1, 1
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "weight"], ["logits"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


CLASSES = ("--classes", "sky, ground,car")


def test_a_network_becomes_a_bundle_that_evaluates(
    delineate: Run, trained: Any, network: Path, tmp_path: Path
) -> None:
    out = tmp_path / "net.bundle"
    done = delineate("import-onnx", network, "-o", out, *CLASSES, "--scale", "1/255")
    assert done.status == 0
    assert done.out.splitlines()[1:] == [
        f"bundle  {out}",
        f"next    delineate evaluate {out} DATASET",
    ]
    found = delineate("evaluate", out, trained.dataset, "--engine", "onnxruntime", "--json")
    assert found.document["scores"]["classes"][2]["recall"] == 1


def test_options_win_over_the_file(delineate: Run, network: Path, tmp_path: Path) -> None:
    (tmp_path / "net.yaml").write_text("classes: [a, b, c]\nscale: 2.0\nmean: [1.0]\n")
    arguments = ("import-onnx", network, "-o", tmp_path / "b", "--settings", tmp_path / "net.yaml")
    done = delineate(*arguments, "--scale", "4", "--std", "1,2,3", "--json")
    assert done.status == 0
    normalisation = done.document["input"]["normalisation"]
    assert normalisation == {"by": "dataset", "mean": [0.25] * 3, "std": [0.25, 0.5, 0.75]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            (),
            "the classes were not named. Add --classes NAME,NAME,... or --settings FILE.",
        ),
        ((*CLASSES, "--scale", "1/0"), "--scale: '1/0' is no number."),
        ((*CLASSES, "--scale", "small"), "--scale: 'small' is no number."),
        ((*CLASSES, "--mean", "1,two"), "--mean: 'two' is no number."),
        (
            (*CLASSES, "--output-planes", "0-x"),
            "--output-planes: '0-x' names no planes. Write 0-10 or 3,1,2.",
        ),
        (
            (*CLASSES, "--output-planes", "0-99999999999"),
            "--output-planes: '0-99999999999' names no planes. Write 0-10 or 3,1,2.",
        ),
        (
            (*CLASSES, "--output-planes", "0,0,1"),
            "options: output_planes: a plane is named twice (found [0, 0, 1]).",
        ),
        (
            ("--classes", "a,b,"),
            "options: classes.2: String should have at least 1 character (found '').",
        ),
        (
            (*CLASSES, "--mean", "nan"),
            "options: mean.0: Input should be a finite number (found nan).",
        ),
        (
            (*CLASSES, "--scale", "inf"),
            "options: scale: Input should be a finite number (found inf).",
        ),
        (
            (*CLASSES, "--channel-order", "gbr"),
            "options: channel_order: Input should be 'rgb' or 'bgr' (found 'gbr').",
        ),
        (
            (*CLASSES, "--scale", "-1"),
            "options: scale: Input should be greater than 0 (found -1.0).",
        ),
    ],
)
def test_impossible_options(
    delineate: Run, network: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    out = tmp_path / "net.bundle"
    done = delineate("import-onnx", network, "-o", out, *options, "--json")
    assert done.status == 2
    assert done.error == message
    assert done.document["error"]["kind"] == "SettingsError"
    assert not out.exists()


def test_an_absent_network(delineate: Run, tmp_path: Path) -> None:
    done = delineate("import-onnx", tmp_path / "no.onnx", "-o", tmp_path / "b", *CLASSES)
    assert done.status == 2
    assert done.error.startswith(f"{tmp_path / 'no.onnx'}: ")


def test_nothing_is_overwritten_without_force(
    delineate: Run, network: Path, tmp_path: Path
) -> None:
    arguments = ("import-onnx", network, "-o", tmp_path / "net.bundle", *CLASSES)
    assert delineate(*arguments).status == 0
    done = delineate(*arguments)
    assert done.status == 2
    assert done.error == (
        f"{tmp_path / 'net.bundle'}: exists already. Name another, or add --force."
    )
    assert delineate(*arguments, "--force").status == 0


@pytest.mark.parametrize(
    ("fit", "size"),
    [("resize", "any size, resized to 16 x 24 px"), ("tile", "any size, in tiles of 16 x 24 px")],
)
def test_a_network_of_one_size_says_so(
    delineate: Run, forge: Any, tmp_path: Path, fit: str, size: str
) -> None:
    onnx.save(forge.convolution(3, 2, size=(16, 24)).model, tmp_path / "net.onnx")
    done = delineate("import-onnx", tmp_path / "net.onnx", "-o", tmp_path / "net.bundle",
                     "--classes", "a,b", "--fit", fit)  # fmt: skip
    assert done.out.splitlines()[0] == f"net: 2 classes, 3 channels of uint8, {size}"
