"""Coarser logits that are trained beside the finest ones.

Lee et al., "Deeply-Supervised Nets", AISTATS 2015 (arXiv:1409.5185); for U-Nets as in nnU-Net
(Isensee et al. 2021, arXiv:1809.10486): a 1 x 1 convolution on every stage of the decoder but the
coarsest, whose weight is zero there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

Stages = Callable[[nn.Module, Tensor], list[Tensor]]


class DeeplySupervised(nn.Module):
    """A network that gives the logits of several stages while it trains.

    In training mode ``forward`` returns a list: the logits of full size, then those of the other
    stages at their own size, finest first. In evaluation mode it is the network's own forward,
    which uses none of the further heads.

    Args:
        network: a network of segmentation-models-pytorch: encoder, decoder, segmentation head.
        stages: maps (N, C, h, w) of the decoder, what the segmentation head takes first, then
            the others, finest first.
        channels: of the maps behind the first.
        logits: channels of the output.
    """

    def __init__(
        self, network: nn.Module, stages: Stages, channels: Sequence[int], logits: int
    ) -> None:
        super().__init__()
        self.network = network
        self.stages = stages
        self.heads = nn.ModuleList(auxiliary_head(width, logits) for width in channels)

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        """(N, C, H, W) to logits (N, K, H, W), in training a list of them."""
        if not self.training:
            logits: Tensor = self.network(images)
            return logits
        finest, *others = self.stages(self.network, images)
        head = self.network.get_submodule("segmentation_head")
        return [head(finest), *(own(stage) for own, stage in zip(self.heads, others, strict=True))]


def auxiliary_head(channels: int, logits: int) -> nn.Conv2d:
    """A 1 x 1 convolution to logits, initialised as the heads of the library are."""
    head = nn.Conv2d(channels, logits, kernel_size=1)
    nn.init.xavier_uniform_(head.weight)
    if head.bias is not None:
        nn.init.zeros_(head.bias)
    return head


def unet_stages(network: nn.Module, images: Tensor) -> list[Tensor]:
    """The maps of a U-Net's decoder, all but the coarsest, finest first."""
    features = network.get_submodule("encoder")(images)
    decoder = network.get_submodule("decoder")
    blocks: Iterable[nn.Module] = decoder.get_submodule("blocks").children()
    x = decoder.get_submodule("center")(features[-1])
    found: list[Tensor] = []
    skips = [*features[-2:0:-1], None]
    for block, skip, larger in zip(blocks, skips, features[-2::-1], strict=True):
        x = block(x, *larger.shape[2:], skip_connection=skip)
        found.insert(0, x)
    return found[:-1]


def manet_stages(network: nn.Module, images: Tensor) -> list[Tensor]:
    """The maps of a MA-Net's decoder, all but the coarsest, finest first."""
    features = network.get_submodule("encoder")(images)
    decoder = network.get_submodule("decoder")
    blocks: Iterable[nn.Module] = decoder.get_submodule("blocks").children()
    x = decoder.get_submodule("center")(features[-1])
    found: list[Tensor] = []
    for block, skip in zip(blocks, [*features[-2:0:-1], None], strict=True):
        x = block(x, skip)
        found.insert(0, x)
    return found[:-1]


class UnetPlusPlusStages:
    """The nodes of U-Net++ that carry a head: X(0, j) of the paper's figure 1.

    Zhou et al., "UNet++: A Nested U-Net Architecture", 2018 (arXiv:1807.10165). Level 0 is the
    finest whose skip has channels: half of the image's size, a quarter for encoders that start
    there. segmentation-models-pytorch calls X(i, j) there ``x_{level - j + 1}_{level}``.

    Args:
        skip_channels: channels of the skips, deepest first.
    """

    def __init__(self, skip_channels: Sequence[int]) -> None:
        self.level = max(i for i, channels in enumerate(skip_channels) if channels > 0)
        self.channels = [skip_channels[self.level]] * self.level

    def __call__(self, network: nn.Module, images: Tensor) -> list[Tensor]:
        """The decoder's output, then X(0, j) from the last but one j down to 1."""
        features = network.get_submodule("encoder")(images)[:0:-1]
        blocks = dict(network.get_submodule("decoder.blocks").named_children())
        nodes: dict[tuple[int, int], Tensor] = {}
        last = len(features) - 1
        for span in range(last):
            for first in range(last - span):
                end = first + span
                below = features[first] if span == 0 else nodes[first, end - 1]
                dense = [nodes[i, end] for i in range(first + 1, end + 1)]
                skip = torch.cat([*dense, features[end + 1]], dim=1)
                nodes[first, end] = blocks[f"x_{first}_{end}"](below, skip)
        finest = blocks[f"x_0_{last}"](nodes[0, last - 1])
        return [finest, *(nodes[i, self.level] for i in range(1, self.level + 1))]
