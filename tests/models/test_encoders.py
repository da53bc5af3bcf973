from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from safetensors.torch import save_file
from timm.models import adapt_input_conv

from delineate.config import ModelSettings
from delineate.errors import ModelError
from delineate.models import build, encoders
from delineate.models.encoders import (
    fit_channels,
    load_encoder,
    resolve_encoder,
    weights_source,
)


@pytest.mark.parametrize(
    ("name", "resolved"),
    [
        ("resnet18", "resnet18"),
        ("efficientnet-b4", "efficientnet-b4"),
        ("EfficientNet-B4", "efficientnet-b4"),
        ("timm-efficientnet-b4", "tu-tf_efficientnet_b4"),
        ("timm-skresnet18", "tu-skresnet18"),
        ("convnext_tiny", "tu-convnext_tiny"),
        ("tu-convnext_tiny", "tu-convnext_tiny"),
        ("tu-resnet18.a1_in1k", "tu-resnet18.a1_in1k"),
        ("mobilenet_v3_large", "tu-mobilenetv3_large_100"),
    ],
)
def test_the_names_that_users_know_are_resolved(name: str, resolved: str) -> None:
    assert resolve_encoder(name) == resolved


@pytest.mark.parametrize("name", ["mit_b0", "mit_b5", "MIT-B2", "tu-mit_b1"])
def test_mit_is_refused_for_its_licence(name: str) -> None:
    with pytest.raises(ModelError) as caught:
        resolve_encoder(name)
    assert str(caught.value) == (
        f"encoder {name}: the MiT encoders (SegFormer) are under a licence that forbids "
        "commercial use. Use another encoder, for example --encoder efficientnet-b4 or "
        "--encoder tu-convnext_tiny."
    )


@pytest.mark.parametrize(("name", "meant"), [("resnet81", "resnet18"), ("vgg-16", "vgg16")])
def test_an_unknown_encoder_is_refused_with_close_ones(name: str, meant: str) -> None:
    with pytest.raises(ModelError, match=rf"^encoder {name}: no encoder .* Closest: .*{meant}"):
        resolve_encoder(name)


def test_an_unknown_encoder_close_to_none_is_refused_with_examples() -> None:
    with pytest.raises(ModelError) as caught:
        resolve_encoder("???")
    assert str(caught.value) == (
        "encoder ???: no encoder of this name is known. Try resnet18, efficientnet-b4 or "
        "tu-convnext_tiny."
    )


def test_without_a_network_the_error_names_both_ways_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(encoders, "_hub_has_an_address", lambda: False)
    for name in ("resnet18", "tu-test_resnet"):
        with pytest.raises(ModelError) as caught:
            build(
                ModelSettings(encoder=name, encoder_weights="imagenet"),
                channels=3,
                classes=2,
                task="multiclass",
            )
        assert str(caught.value) == (
            f"--encoder-weights imagenet: the imagenet weights of {name} cannot be downloaded, "
            "and the cache does not hold them (LocalEntryNotFoundError). Train from random "
            "weights with --encoder-weights none, or name a .safetensors file with "
            "--encoder-weights PATH."
        )
    assert huggingface_hub.constants.HF_HUB_OFFLINE is False


def test_a_proxy_counts_as_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_names(*_: object) -> None:
        raise OSError

    monkeypatch.setattr("socket.getaddrinfo", no_names)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    assert not encoders._hub_has_an_address()
    monkeypatch.setattr("urllib.request.getproxies", lambda: {"https": "http://proxy"})
    assert encoders._hub_has_an_address()


@pytest.mark.parametrize(
    ("weights", "encoder", "message"),
    [
        (
            "imagnet",
            "resnet18",
            "is neither a .safetensors file nor weights published for resnet18. Use none, "
            "imagenet, ssl, swsl, or the path of a .safetensors file.",
        ),
        ("gone.safetensors", "resnet18", "no such file."),
        (
            "weights/resnet.pth",
            "resnet18",
            "is a pickle, which can run code when it is loaded, and is never opened. Convert it "
            'where you trust it: python -c "import torch, safetensors.torch; '
            "safetensors.torch.save_file(torch.load('resnet.pth', weights_only=True), "
            "'resnet.safetensors')\"",
        ),
        (
            "imagenet",
            "tu-convnextv2_tiny",
            "timm gives the licence of the weights of convnextv2_tiny as cc-by-nc-4.0, which is "
            "not known to allow commercial use, so they are not downloaded. If the licence "
            "allows what you do, fetch them yourself and name the file with --encoder-weights "
            "PATH; otherwise use --encoder-weights none.",
        ),
    ],
)
def test_unusable_weights_are_refused(weights: str, encoder: str, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        weights_source(weights, encoder)
    assert str(caught.value) == f"--encoder-weights {weights}: {message}"


def test_none_means_random() -> None:
    assert weights_source(None, "resnet18") is None
    assert weights_source("none", "resnet18") is None


def resnet(channels: int = 3) -> torch.nn.Module:
    encoder: torch.nn.Module = smp.encoders.get_encoder("resnet18", in_channels=channels)
    return encoder


@pytest.mark.parametrize("prefix", ["", "encoder."])
def test_a_file_of_the_encoder_is_loaded(tmp_path: Path, prefix: str) -> None:
    torch.manual_seed(1)
    stored = {prefix + key: value for key, value in resnet().state_dict().items()}
    path = tmp_path / "encoder.safetensors"
    save_file(stored | {prefix + "fc.weight": torch.zeros(10, 512)}, path)
    model = build(
        ModelSettings(encoder_weights=str(path)), channels=3, classes=2, task="multiclass"
    )
    own = model.get_submodule("network.encoder").state_dict()
    assert all(torch.equal(own[key], stored[prefix + key]) for key in own)


def test_a_classifier_of_timm_is_loaded_into_its_feature_extractor(tmp_path: Path) -> None:
    torch.manual_seed(1)
    classifier: Any = timm.create_model("test_resnet")
    path = tmp_path / "timm.safetensors"
    save_file(classifier.state_dict(), path)
    encoder = smp.encoders.get_encoder("tu-test_resnet", weights=None)
    load_encoder(encoder, path, channels=3)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = classifier.eval().forward_features(images)
        assert torch.equal(encoder.eval()(images)[-1], expected)


@pytest.mark.parametrize("channels", [1, 2, 5, 16])
def test_the_first_convolution_is_fitted_as_timm_does(tmp_path: Path, channels: int) -> None:
    torch.manual_seed(1)
    stored = resnet().state_dict()
    path = tmp_path / "encoder.safetensors"
    save_file(stored, path)
    encoder = resnet(channels)
    load_encoder(encoder, path, channels)
    torch.testing.assert_close(
        encoder.state_dict()["conv1.weight"], adapt_input_conv(channels, stored["conv1.weight"])
    )


def test_a_convolution_stored_for_any_channel_count_is_fitted() -> None:
    weight = torch.randn(8, 4, 3, 3)
    for channels in (1, 3, 4, 7):
        fitted = fit_channels(weight, channels, channels)
        assert fitted.shape == (8, channels, 3, 3)
    torch.testing.assert_close(fit_channels(weight, 8, 8).sum(1), weight.sum(1))
    assert fit_channels(weight, 1, 8) is weight


def test_a_file_of_another_encoder_is_refused_with_counts_and_names(tmp_path: Path) -> None:
    stored = resnet().state_dict()
    stored["layer1.0.conv1.weight"] = torch.zeros(3, 3)
    del stored["layer4.1.conv2.weight"]
    for number in range(5):
        stored[f"other.{number}"] = torch.zeros(1)
    path = tmp_path / "encoder.safetensors"
    save_file(stored, path)
    with pytest.raises(ModelError) as caught:
        load_encoder(resnet(), path, 3)
    assert str(caught.value) == (
        f"{path}: does not hold the weights of this encoder: 1 missing (layer4.1.conv2.weight); "
        "5 unexpected (other.0, other.1, other.2, ...); 1 of another shape "
        "(layer1.0.conv1.weight). It holds 124 tensors where the encoder has 120: check "
        "--encoder."
    )


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    save_file(resnet().state_dict(), path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ModelError, match=r"encoder\.safetensors: is no readable \.safetensors"):
        load_encoder(resnet(), path, 3)
