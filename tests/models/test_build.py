"""The contract of every architecture, and what build() refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from delineate.config import ModelSettings
from delineate.errors import ModelError
from delineate.models import build, multiple_of
from delineate.models.build import ARCHITECTURES
from delineate.types import Task

MULTIPLES = {"unet": 32, "unet++": 32, "attention-unet": 32, "deeplabv3+": 16}
SMALL = {"deeplabv3+": (16,)}  # decoders that are quick to test; the U-Nets share theirs


def small(architecture: str, **fields: Any) -> ModelSettings:
    decoder = SMALL.get(architecture, (32, 16, 16, 8, 8))
    return ModelSettings.model_validate(
        {"architecture": architecture, "decoder_channels": decoder} | fields
    )


def network(
    architecture: str, *, channels: int = 3, classes: int = 4, task: Task = "multiclass"
) -> torch.nn.Module:
    torch.manual_seed(0)
    return build(small(architecture), channels=channels, classes=classes, task=task)


every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)


@every_architecture
def test_every_size_gives_logits_of_that_size(architecture: str) -> None:
    model = network(architecture).eval()
    assert multiple_of(model) == MULTIPLES[architecture]
    with torch.no_grad():
        for size in ((1, 1), (33, 47), (97, 64), (32, 64)):
            logits = model(torch.randn(2, 3, *size))
            assert logits.shape == (2, 4, *size)
            assert torch.isfinite(logits).all()


@every_architecture
def test_padding_replicates_the_last_row_and_column(architecture: str) -> None:
    model = network(architecture).eval()
    image = torch.randn(1, 3, 45, 33)
    wide = torch.cat([image, image[..., -1:].expand(-1, -1, -1, 31)], dim=3)
    padded = torch.cat([wide, wide[:, :, -1:].expand(-1, -1, 19, -1)], dim=2)
    with torch.no_grad():
        expected = model(padded)[:, :, :45, :33]
        assert padded.shape[2:] == (64, 64)
        # 48 x 48 is enough for the network whose multiple is 16
        if multiple_of(model) == 16:
            expected = model(padded[:, :, :48, :48])[:, :, :45, :33]
        assert torch.equal(model(image), expected)


@every_architecture
@pytest.mark.parametrize("channels", [1, 16])
def test_every_channel_count_and_the_binary_task(architecture: str, channels: int) -> None:
    model = network(architecture, channels=channels, classes=2, task="binary").eval()
    with torch.no_grad():
        assert model(torch.randn(1, channels, 20, 40)).shape == (1, 1, 20, 40)


@every_architecture
def test_a_batch_of_one_trains_and_every_parameter_gets_a_gradient(architecture: str) -> None:
    model = network(architecture).train()
    model(torch.randn(2, 3, 64, 96)).square().mean().backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []
    for size in ((64, 64), (16, 16), (1, 1)):
        logits = model(torch.randn(1, 3, *size))
        logits.mean().backward()
        assert logits.shape == (1, 4, *size)


@every_architecture
def test_the_exported_graph_agrees_at_every_size(architecture: str, tmp_path: Path) -> None:
    model = network(architecture, channels=5).eval()
    path = tmp_path / "network.onnx"
    program = torch.onnx.export(
        model,
        (torch.randn(2, 5, 50, 70),),
        dynamo=True,
        dynamic_shapes=({0: "batch", 2: "height", 3: "width"},),
        input_names=["images"],
        output_names=["logits"],
        opset_version=18,
        verbose=False,
    )
    assert program is not None
    program.save(str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for shape in ((1, 5, 33, 47), (3, 5, 64, 96), (1, 5, 1, 1)):
        images = torch.randn(shape)
        with torch.no_grad():
            expected = model(images).numpy()
        (logits,) = session.run(None, {"images": images.numpy()})
        assert logits.shape == expected.shape
        np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_the_seed_decides_the_weights() -> None:
    first, second = network("unet").state_dict(), network("unet").state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_an_efficientnet_suits_short_trainings_and_holds_no_parameter_without_use() -> None:
    model = build(
        small("unet", encoder="efficientnet-b0"), channels=3, classes=2, task="multiclass"
    )
    momenta = {m.momentum for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)}
    assert momenta == {0.1}
    model(torch.randn(2, 3, 32, 32)).square().mean().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


def test_a_module_without_padding_is_a_multiple_of_one() -> None:
    assert multiple_of(torch.nn.Conv2d(1, 1, 1)) == 1
    assert multiple_of(torch.nn.Sequential(network("deeplabv3+"))) == 16


def refusal(*, channels: int = 3, classes: int = 4, task: Task = "multiclass", **f: Any) -> str:
    spec = ModelSettings.model_construct(**(ModelSettings().model_dump() | f))
    with pytest.raises(ModelError) as caught:
        build(spec, channels=channels, classes=classes, task=task)
    return str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"architecture": "attention_unet"},
            "architecture attention_unet: no architecture of this name is known. Did you mean "
            "attention-unet? Known: unet, unet++, attention-unet, deeplabv3+.",
        ),
        (
            {"architecture": "unet", "decoder_channels": (64, 32, 16)},
            "decoder_channels: has 3 numbers where unet has 5 stages. Give 5 numbers, deepest "
            "first, for example 256, 128, 64, 32, 16.",
        ),
        (
            {"architecture": "deeplabv3+", "decoder_channels": (64, 32, 16)},
            "decoder_channels: has 3 numbers where deeplabv3+ has one width for its pyramid and "
            "its decoder. Give 1 number, for example 256.",
        ),
        (
            {"architecture": "unet++", "decoder_channels": (64, 32, 16, 8, 0)},
            "decoder_channels: holds 0. Use numbers from 1.",
        ),
        ({"channels": 17}, "17 channels are not supported. Use 1 to 16."),
        (
            {"classes": 1},
            "1 classes leave nothing to tell apart. Name 2 or more, background included.",
        ),
        (
            {"classes": 3, "task": "binary"},
            "the task binary has 2 classes, background included, not 3. Use the task multiclass.",
        ),
        (
            {"architecture": "deeplabv3+", "encoder": "densenet121"},
            "encoder densenet121: the encoder does not fit this architecture (DenseNet encoders "
            "do not support dilated mode due to pooling operation for downsampling!). Use "
            "another encoder, for example resnet18 or efficientnet-b4.",
        ),
    ],
)
def test_what_cannot_be_built_is_refused(fields: dict[str, Any], message: str) -> None:
    assert refusal(**fields) == message


def test_an_encoder_of_one_fixed_size_is_refused() -> None:
    message = refusal(encoder="swin_tiny_patch4_window7_224")
    assert message.startswith(
        "encoder tu-swin_tiny_patch4_window7_224: does not take images of every size ("
    )
    assert message.endswith(
        "). Use a convolutional encoder, for example resnet18, efficientnet-b4 or tu-convnext_tiny."
    )
