"""What several rooms share: tiny datasets, networks and bundles, one training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import cv2
import jaxtyping
import numpy as np
import onnx
import pytest
import tifffile
from onnx import TensorProto, helper, numpy_helper

from delineate.bundle.import_onnx import ImportOnnxSettings, import_onnx

CLASSES = ("sky", "ground", "car")
HW = (48, 40)
# small enough for a few steps a second: the changes of the plan, and the same as options
TINY = {
    "model.decoder_channels": (16, 8, 8, 8, 8),
    "model.downscale": 1,
    "crop_px": 32,
    "batch_size": 2,
    "precision": "32",
    "validations": 1,
}


def picture(
    seed: int, *, classes: int = 3, channels: int = 3, dtype: str = "uint8"
) -> tuple[np.ndarray, np.ndarray]:
    """Image (48, 40, C) and mask (48, 40): stripes, each class of its own brightness."""
    rng = np.random.default_rng(seed)
    rows = np.arange(HW[0]) // 8 + seed
    mask = np.repeat((rows % classes)[:, None], HW[1], axis=1).astype(np.uint8)
    light = 30 + 60 * mask[:, :, None] + rng.integers(0, 40, (*HW, channels))
    image = light * (257 if dtype == "uint16" else 1)
    return image.astype(dtype), mask


def write_image(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, image, photometric="minisblack", planarconfig="contig")
    else:
        cv2.imwrite(str(path), image[:, :, ::-1])


def write_dataset(
    path: Path,
    *,
    train: int = 4,
    val: int = 2,
    classes: tuple[str, ...] = CLASSES,
    ignore_index: int | None = None,
    channels: int = 3,
    dtype: str = "uint8",
) -> Path:
    """A canonical dataset of images of 48 x 40 px; the first row of masks is ignored if it may."""
    suffix = ".tif" if channels not in (1, 3) else ".png"
    names = [("train", i) for i in range(train)] + [("val", i) for i in range(val)]
    for seed, (split, number) in enumerate(names):
        image, mask = picture(seed, classes=len(classes), channels=channels, dtype=dtype)
        if ignore_index is not None:
            mask[0] = ignore_index
        write_image(path / split / "images" / f"{split}{number}{suffix}", image)
        (path / split / "masks").mkdir(exist_ok=True)
        cv2.imwrite(str(path / split / "masks" / f"{split}{number}.png"), mask)
    ignored = "" if ignore_index is None else f"ignore_index: {ignore_index}\n"
    (path / "dataset.yaml").write_text(f"classes: [{', '.join(classes)}]\n{ignored}")
    return path


@pytest.fixture(scope="session")
def make_dataset() -> Callable[..., Path]:
    return write_dataset


@pytest.fixture(scope="session")
def make_picture() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    return picture


@pytest.fixture(scope="session")
def save_image() -> Callable[[Path, np.ndarray], None]:
    return write_image


@pytest.fixture(scope="session")
def tiny() -> dict[str, object]:
    return dict(TINY)


@dataclass(frozen=True)
class Trained:
    """A training of two steps. Tests read it; what they change, they copy first."""

    dataset: Path
    run: Path
    bundle: Path
    result: object


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    from delineate.config import Duration
    from delineate.workflows.train import TrainSettings, train

    folder = tmp_path_factory.mktemp("trained")
    dataset = write_dataset(folder / "data")
    settings = TrainSettings(duration=Duration(steps=2), command="delineate train data -o first")
    result = train(dataset, folder / "first", changes=TINY, settings=settings)
    return Trained(dataset, folder / "first", result.bundle, result)


@dataclass(frozen=True)
class Convolution:
    """A network of one 3 x 3 convolution with zero padding, and the numbers in it.

    Attributes:
        model: float32 ``x`` -> ``y``, opset 18 unless asked otherwise.
        weight: (K, C, 3, 3) float32.
        bias: (K,) float32.
        stride: of the convolution.
    """

    model: onnx.ModelProto
    weight: np.ndarray
    bias: np.ndarray
    stride: int

    def scores(self, x: np.ndarray) -> np.ndarray:
        """(N, H, W, C) -> (N, h, w, K) in float64, computed with NumPy."""
        height, width = x.shape[1:3]
        padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
        total = np.zeros((*x.shape[:3], len(self.bias))) + self.bias
        for row in range(3):
            for column in range(3):
                window = padded[:, row : row + height, column : column + width]
                total += window @ self.weight[:, :, row, column].T.astype(np.float64)
        return total[:, :: self.stride, :: self.stride]


class Forge:
    """Makes ONNX networks, in the test that needs them."""

    def convolution(
        self,
        channels: int = 3,
        planes: int = 3,
        *,
        stride: int = 1,
        layout: Literal["nchw", "nhwc"] = "nchw",
        size: tuple[int | str, int | str] = ("h", "w"),
        batch: int | str = "n",
        opset: int = 18,
        seed: int = 0,
    ) -> Convolution:
        rng = np.random.default_rng(seed)
        weight = rng.normal(0, 0.5, (planes, channels, 3, 3)).astype(np.float32)
        bias = rng.normal(0, 0.5, planes).astype(np.float32)
        source, target = ("x", "y") if layout == "nchw" else ("x_nchw", "y_nchw")
        nodes = [
            helper.make_node(
                "Conv", [source, "w", "b"], [target], pads=[1, 1, 1, 1], strides=[stride, stride]
            )
        ]
        if layout == "nhwc":
            nodes.insert(0, helper.make_node("Transpose", ["x"], [source], perm=[0, 3, 1, 2]))
            nodes.append(helper.make_node("Transpose", [target], ["y"], perm=[0, 2, 3, 1]))
        shape = [batch, channels, *size] if layout == "nchw" else [batch, *size, channels]
        model = self.model(nodes, shape, {"w": weight, "b": bias}, opset=opset)
        return Convolution(model, weight, bias, stride)

    def model(
        self,
        nodes: Sequence[onnx.NodeProto],
        shape: Sequence[int | str],
        constants: dict[str, np.ndarray] | None = None,
        *,
        outputs: Sequence[str] = ("y",),
        opset: int = 18,
        kind: int = TensorProto.FLOAT,
        output_kind: int = TensorProto.FLOAT,
        inputs: Sequence[str] = ("x",),
        rank: int = 4,
    ) -> onnx.ModelProto:
        """A checked model; its outputs have free shapes of rank ``rank``."""
        graph = helper.make_graph(
            list(nodes),
            "made",
            [helper.make_tensor_value_info(name, kind, list(shape)) for name in inputs],
            [helper.make_tensor_value_info(name, output_kind, [None] * rank) for name in outputs],
            [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
        model.ir_version = 8
        onnx.checker.check_model(model)
        return model


@pytest.fixture(scope="session")
def export_once() -> Iterator[None]:
    """Networks with random weights are exported once each, and what the machine does at best is
    assumed; these take most of a search."""
    from delineate.planning import latency

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency, "with_random_weights", cache(latency.with_random_weights))
        patch.setattr(latency, "multiply_adds_per_ms", lambda *_: 1e9)
        yield


@pytest.fixture(scope="module")
def quick_timing() -> Iterator[None]:
    """What is timed is timed in a moment: tests ask what becomes of times, not what they are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("delineate.engines.throughput.TRIAL_S", 0.02)
        patch.setattr("delineate.engines.throughput.TURN_S", 0.02)
        patch.setattr("delineate.engines.timing.WARM_UP_S", 0.02)
        patch.setattr("delineate.engines.timing.WARM_UP_LIMIT_S", 0.2)
        patch.setattr("delineate.workflows.bench.FOOTPRINT_ROUNDS", 1)
        patch.setattr("delineate.planning.measure.ROUNDS", 2)
        yield


@pytest.fixture(scope="session")
def forge() -> Forge:
    return Forge()


@pytest.fixture(scope="session")
def tiny_network(forge: Forge) -> Convolution:
    """Three channels to two planes."""
    return forge.convolution(planes=2)


@pytest.fixture(scope="session")
def tiny_bundle(tiny_network: Convolution, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle on disk of ``tiny_network``, classes background and disc. Not to be changed."""
    folder = tmp_path_factory.mktemp("tiny")
    onnx.save(tiny_network.model, folder / "tiny.onnx")
    settings = ImportOnnxSettings(classes=("background", "disc"), mean=(127.0,), std=(60.0,))
    import_onnx(folder / "tiny.onnx", folder / "tiny.bundle", settings)
    return folder / "tiny.bundle"


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Array checks off, as outside the tests: the package's own checks have to answer."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real images and networks beside the checkout."""
    folder = Path(__file__).resolve().parents[1].parent / "shared"
    if not folder.is_dir():
        pytest.skip("no shared data beside the checkout")
    return folder
