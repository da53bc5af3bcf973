from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.utils import logging

from delineate.config import ModelSettings
from delineate.errors import ModelError
from delineate.models.segformer import SIZES, segformer

Network = Callable[..., torch.nn.Module]

# Millions of parameters with the 150 classes of ADE20K: table 1 of the paper
PAPER = {"mit-b0": 3.8, "mit-b1": 13.7, "mit-b2": 27.5, "mit-b5": 84.7}


@pytest.mark.parametrize(("size", "millions"), PAPER.items())
def test_the_sizes_have_the_parameters_of_the_paper(size: str, millions: float) -> None:
    settings = ModelSettings(architecture="segformer", encoder=size)
    with torch.device("meta"):
        network = segformer(settings, channels=3, logits=150)
    count = sum(p.numel() for p in network.parameters())
    assert count / 1e6 == pytest.approx(millions, rel=0.03)
    assert len(SIZES) == 6


@pytest.fixture
def published(network: Network, tmp_path: Path) -> Path:
    """A file as transformers writes it, in the names of the published ones."""
    inner = network("segformer", classes=5).get_submodule("network.network")
    inner.save_pretrained(tmp_path)  # type: ignore[operator]
    path = tmp_path / "model.safetensors"
    assert "segformer.encoder.block.0.0.attention.self.query.weight" in load_file(path)
    return path


def same(first: torch.nn.Module, second: torch.nn.Module) -> set[str]:
    own = second.state_dict()
    return {
        k for k, v in first.state_dict().items() if v.shape != own[k].shape or (v != own[k]).any()
    }


def test_a_file_is_loaded_without_the_head_of_other_classes(
    network: Network, published: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    before = logging.get_verbosity()
    stored = network("segformer", classes=5)
    equal = network("segformer", classes=5, encoder_weights=str(published))
    other = network("segformer", classes=4, encoder_weights=str(published))
    assert same(stored, equal) == set()
    prefix = "network.network.decode_head.classifier."
    assert same(stored, other) == {f"{prefix}weight", f"{prefix}bias"}
    assert equal.training
    assert capfd.readouterr() == ("", "")
    assert logging.get_verbosity() == before


def test_a_file_in_half_precision_is_fitted_to_the_channels(
    network: Network, published: Path
) -> None:
    halves = {key: value.half() for key, value in load_file(published).items()}
    save_file(halves, published)
    model = network("segformer", channels=1, encoder_weights=str(published))
    own = model.get_submodule("network.network").state_dict()
    first = own["segformer.stages.0.patch_embeddings.proj.weight"]
    stored = halves["segformer.encoder.patch_embeddings.0.proj.weight"].float()
    assert first.dtype == torch.float32
    torch.testing.assert_close(first, stored.sum(dim=1, keepdim=True))


def test_the_file_of_a_classifier_fills_the_encoder(network: Network, published: Path) -> None:
    stored = {k: v for k, v in load_file(published).items() if not k.startswith("decode_head.")}
    save_file(stored | {"classifier.weight": torch.zeros(1000, 256)}, published)
    model = network("segformer", encoder_weights=str(published))
    own = model.get_submodule("network.network").state_dict()
    torch.testing.assert_close(
        own["segformer.stages.3.layer_norm.weight"], stored["segformer.encoder.layer_norm.3.weight"]
    )


def test_the_file_of_another_size_is_refused(network: Network, published: Path) -> None:
    stored = load_file(published)
    del stored["segformer.encoder.layer_norm.3.weight"]
    stored["segformer.encoder.layer_norm.2.bias"] = torch.zeros(7)
    save_file(stored | {"other.weight": torch.zeros(1)}, published)
    with pytest.raises(ModelError) as caught:
        network("segformer", encoder_weights=str(published))
    assert str(caught.value) == (
        f"{published}: does not hold the weights of this SegFormer: 1 missing "
        "(segformer.stages.3.layer_norm.weight); 1 unexpected (other.weight); 1 of another shape "
        f"(segformer.stages.2.layer_norm.bias). It holds {len(stored) + 1} tensors: check "
        "--encoder."
    )
