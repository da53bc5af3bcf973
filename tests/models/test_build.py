"""What build() settles, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from delineate.config import ModelSettings
from delineate.errors import ModelError
from delineate.models import build, multiple_of, resolved
from delineate.models.build import ARCHITECTURES, DEEPLY_SUPERVISED
from delineate.types import Task

Network = Callable[..., torch.nn.Module]


def test_the_seed_decides_the_weights(network: Network) -> None:
    first, second = network("unet").state_dict(), network("unet").state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_an_efficientnet_suits_short_trainings_and_holds_no_parameter_without_use() -> None:
    model = build(
        ModelSettings(encoder="efficientnet-b0", decoder_channels=(32, 16, 16, 8, 8)),
        channels=3,
        classes=2,
        task="multiclass",
    )
    momenta = {m.momentum for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)}
    assert momenta == {0.1}
    model(torch.randn(2, 3, 32, 32)).square().mean().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


def test_a_module_without_padding_is_a_multiple_of_one(network: Network) -> None:
    assert multiple_of(torch.nn.Conv2d(1, 1, 1)) == 1
    assert multiple_of(torch.nn.Sequential(network("deeplabv3+"))) == 16


@pytest.mark.parametrize(
    ("architecture", "encoder", "built"),
    [
        ("unet", "timm-skresnet18", "tu-skresnet18"),
        ("segformer", "resnet18", "mit-b0"),
        ("segformer", "MiT_B3", "mit-b3"),
        ("deeplabv3-resnet101", "resnet18", "resnet101"),
        ("deeplabv3-resnet101", "resnet50", "resnet50"),
        ("fast-scnn", "resnet18", "none"),
        ("ddrnet-23-slim", "none", "none"),
    ],
)
def test_the_encoder_that_is_built_has_a_name(architecture: str, encoder: str, built: str) -> None:
    settings = ModelSettings.model_validate({"architecture": architecture, "encoder": encoder})
    found = resolved(settings)
    assert found == settings.model_copy(update={"encoder": built})
    assert resolved(found) == found


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_a_file_of_torchvision_fills_the_backbone(
    network: Network, tmp_path: Path, prefix: str
) -> None:
    backbone = network("deeplabv3-resnet101").get_submodule("network.network.backbone")
    torch.manual_seed(1)
    stored = {
        prefix + key: torch.rand_like(value.float()) for key, value in backbone.state_dict().items()
    }
    path = tmp_path / "torchvision.safetensors"
    save_file(stored | {"classifier.4.bias": torch.zeros(21)}, path)
    filled = network("deeplabv3-resnet101", channels=4, encoder_weights=str(path))
    own = filled.get_submodule("network.network.backbone").state_dict()
    assert own["conv1.weight"].shape[1] == 4
    assert torch.equal(own["layer3.5.conv2.weight"], stored[prefix + "layer3.5.conv2.weight"])


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
            "attention-unet? Known: " + ", ".join(ARCHITECTURES) + ".",
        ),
        (
            {"architecture": "unet", "decoder_channels": (64, 32, 16)},
            "decoder_channels: has 3 numbers where unet has 5 stages. Give 5 numbers, deepest "
            "first, for example 256, 128, 64, 32, 16.",
        ),
        (
            {"architecture": "deeplabv3+", "decoder_channels": (64, 32, 16)},
            "decoder_channels: has 3 numbers where deeplabv3+ has one width. Give 1 number, for "
            "example 256.",
        ),
        (
            {"architecture": "unet++", "decoder_channels": (64, 32, 16, 8, 0)},
            "decoder_channels: holds 0. Use numbers from 1.",
        ),
        (
            {"architecture": "fpn", "decoder_channels": (64,)},
            "decoder_channels: has 1 number where fpn has two widths, of the pyramid and of the "
            "branches that are summed. Give 2 numbers, for example 256, 128.",
        ),
        (
            {"architecture": "fpn", "decoder_channels": (64, 40)},
            "decoder_channels: has 40 channels in the branches of fpn, which are normalised in 32 "
            "groups of 2 channels or more. Use a multiple of 32 from 64, for example 64, 64.",
        ),
        (
            {"architecture": "segformer", "decoder_channels": (64, 40)},
            "decoder_channels: is 64, 40 where segformer has one width. Give 1 number, for "
            "example 256.",
        ),
        (
            {"architecture": "linknet", "decoder_channels": (64,)},
            "decoder_channels: the decoder of linknet has no width to choose. Leave "
            "decoder_channels out.",
        ),
        (
            {"architecture": "fast-scnn", "decoder_channels": (64,)},
            "decoder_channels: the decoder of fast-scnn has no width to choose. Leave "
            "decoder_channels out.",
        ),
        (
            {"architecture": "ddrnet-23-slim", "encoder": "resnet34"},
            "encoder resnet34: ddrnet-23-slim has its own encoder, and none to choose. Use "
            "--encoder none.",
        ),
        (
            {"architecture": "segformer", "encoder": "efficientnet-b0"},
            "encoder efficientnet-b0: segformer has its own encoder: mit-b0, mit-b1, mit-b2, "
            "mit-b3, mit-b4, mit-b5. Use --encoder mit-b0.",
        ),
        (
            {"architecture": "segformer", "encoder_weights": "imagenet"},
            "--encoder-weights imagenet: the weights that NVIDIA publishes for SegFormer are "
            "under a licence that forbids commercial use, so they are not downloaded. If the "
            "licence allows what you do, fetch them yourself and name the .safetensors file with "
            "--encoder-weights PATH; otherwise use --encoder-weights none.",
        ),
        (
            {"architecture": "fast-scnn", "encoder_weights": "imagenet"},
            "--encoder-weights imagenet: fast-scnn has no encoder of its own to fill, and starts "
            "from random weights. Use --encoder-weights none.",
        ),
        (
            {"architecture": "deeplabv3-resnet101", "encoder_weights": "imagenet"},
            "--encoder-weights imagenet: deeplabv3-resnet101 takes weights from a .safetensors "
            "file only. Name the file of torchvision's network, or use --architecture deeplabv3 "
            "with --encoder resnet101, for which published weights are downloaded.",
        ),
        (
            {"architecture": "pan", "deep_supervision": True},
            "deep_supervision: pan has no coarser outputs to train. Leave it out, or use one of: "
            + ", ".join(DEEPLY_SUPERVISED)
            + ".",
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
