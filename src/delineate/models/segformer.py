"""SegFormer, the network of transformers, from random weights or a file of the user's.

Xie et al., "SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers",
2021 (arXiv:2105.15203). The code of transformers is under the Apache licence; the weights that
NVIDIA publishes are for non-commercial use, so nothing is ever downloaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from delineate.config import ModelSettings
from delineate.errors import ModelError
from delineate.models.downscaled import enlarged
from delineate.models.encoders import (
    described,
    fit_channels,
    read_safetensors,
    weights_file,
)

# Blocks in each stage, channels of each stage, width of the decoder: tables 6 and 7 of the paper
SIZES: dict[str, tuple[tuple[int, ...], tuple[int, ...], int]] = {
    "mit-b0": ((2, 2, 2, 2), (32, 64, 160, 256), 256),
    "mit-b1": ((2, 2, 2, 2), (64, 128, 320, 512), 256),
    "mit-b2": ((3, 4, 6, 3), (64, 128, 320, 512), 768),
    "mit-b3": ((3, 4, 18, 3), (64, 128, 320, 512), 768),
    "mit-b4": ((3, 8, 27, 3), (64, 128, 320, 512), 768),
    "mit-b5": ((3, 6, 40, 3), (64, 128, 320, 512), 768),
}
STRIDE = 32
_LOGITS_STRIDE = 4
_FIRST_CONVOLUTION = ("patch_embeddings.0.proj.weight", "stages.0.patch_embeddings.proj.weight")
_HEADS = ("decode_head.", "classifier.")


class Segformer(nn.Module):
    """The network of transformers with its logits enlarged to the size of the image.

    Args:
        network: ``SegformerForSemanticSegmentation``.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W), H and W multiples of 32, to logits (N, K, H, W)."""
        logits: Tensor = self.network(images).logits
        return enlarged(logits, _LOGITS_STRIDE)


def segformer(settings: ModelSettings, *, channels: int, logits: int) -> nn.Module:
    """The SegFormer whose size ``settings.encoder`` names.

    Args:
        settings: ``encoder`` is ``mit-b0`` to ``mit-b5``; ``encoder_weights`` is none or a
            .safetensors file in the key format of transformers; ``decoder_channels`` is one
            number, the width of the decoder.
        channels: of the images.
        logits: channels of the output.

    Raises:
        ModelError: weights that cannot be used, or a wrong ``decoder_channels``.
    """
    # Imported here: it takes seconds, and only this architecture needs it
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    depths, hidden_sizes, usual = SIZES[settings.encoder]
    config = SegformerConfig(
        num_channels=channels,
        depths=depths,
        hidden_sizes=hidden_sizes,
        decoder_hidden_size=_width(settings, usual),
    )
    config.num_labels = logits
    path = _weights_file(settings.encoder_weights)
    if path is None:
        return Segformer(SegformerForSemanticSegmentation(config))
    return Segformer(_loaded(SegformerForSemanticSegmentation, config, path))


def _width(settings: ModelSettings, usual: int) -> int:
    widths = settings.decoder_channels or (usual,)
    if len(widths) != 1 or widths[0] < 1:
        raise ModelError(
            f"is {', '.join(str(width) for width in widths)} where segformer has one width",
            where="decoder_channels",
            mend=f"Give 1 number, for example {usual}.",
        )
    return widths[0]


def _weights_file(weights: str | None) -> Path | None:
    path = weights_file(weights)
    if path is None and weights not in (None, "none"):
        raise ModelError(
            "the weights that NVIDIA publishes for SegFormer are under a licence that forbids "
            "commercial use, so they are not downloaded",
            where=f"--encoder-weights {weights}",
            mend="If the licence allows what you do, fetch them yourself and name the "
            ".safetensors file with --encoder-weights PATH; otherwise use --encoder-weights none.",
        )
    return path


def _loaded(kind: Any, config: Any, path: Path) -> nn.Module:
    """The network with the tensors of the file; transformers renames the keys of its old files.

    What the decoder lacks or has in another shape (other classes) keeps its random weights.
    """
    stored = {key: value.float() for key, value in read_safetensors(path).items()}
    for key, value in stored.items():
        if key.endswith(_FIRST_CONVOLUTION):
            stored[key] = fit_channels(value, config.num_channels, config.num_channels)
    with _quiet():
        network, report = kind.from_pretrained(
            None,
            config=config,
            state_dict=stored,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    problems = {
        "missing": sorted(report["missing_keys"]),
        "unexpected": sorted(report["unexpected_keys"]),
        "of another shape": sorted(key for key, *_ in report["mismatched_keys"]),
    }
    # A decoder of other classes, and the head of a classifier, which no segmenter has
    own = {w: [k for k in keys if not k.startswith(_HEADS)] for w, keys in problems.items()}
    if any(own.values()):
        raise ModelError(
            f"does not hold the weights of this SegFormer: {described(own)}",
            where=path,
            mend=f"It holds {len(stored)} tensors: check --encoder.",
        )
    loaded: nn.Module = network.train()
    return loaded


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bar and the table that transformers prints while it loads."""
    from transformers.utils import logging

    logger: Any = logging  # its functions are not annotated
    bar, level = logger.is_progress_bar_enabled(), logger.get_verbosity()
    logger.disable_progress_bar()
    logger.set_verbosity_error()
    try:
        yield
    finally:
        logger.set_verbosity(level)
        if bar:
            logger.enable_progress_bar()
