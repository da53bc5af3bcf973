"""U-Net whose skips pass through additive attention gates.

Oktay et al., "Attention U-Net: Learning Where to Look for the Pancreas", MIDL 2018
(arXiv:1804.03999). The encoder is any of segmentation-models-pytorch's; the gates and the decoder
are written here after the paper.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from delineate.models.deep_supervision import auxiliary_head


class AttentionGate(nn.Module):
    """The additive attention gate of the paper's figure 2, in two dimensions.

    For every position i of the gating signal's (coarser) grid::

        q_i = psi^T ReLU(W_x^T x_i + W_g^T g_i + b_g) + b_psi        (1)
        a_i = sigmoid(q_i)                                           (2)

    and the output is the skip ``x`` times ``a``, resampled to the grid of ``x`` (the paper's
    trilinear interpolation is bilinear here).

    As in the authors' code, ``W_x`` is a convolution whose kernel and stride are both 2, which
    brings ``x`` to the grid of ``g``, and has no bias. Unlike the paper, which leaves the first
    skip ungated because it holds the raw image's low-level features, the decoder below gates all
    its skips: none of them is the image, each is a feature map of the encoder.

    Args:
        skip_channels: channels of ``x``.
        gating_channels: channels of ``g``.
        inner_channels: channels in which the two are added (the paper's F_int).
    """

    def __init__(self, skip_channels: int, gating_channels: int, inner_channels: int) -> None:
        super().__init__()
        self.w_x = nn.Conv2d(skip_channels, inner_channels, kernel_size=2, stride=2, bias=False)
        self.w_g = nn.Conv2d(gating_channels, inner_channels, kernel_size=1)  # its bias is b_g
        self.psi = nn.Conv2d(inner_channels, 1, kernel_size=1)  # its bias is b_psi

    def attention(self, x: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        """Coefficients a, (N, 1, H / 2, W / 2) in 0..1, for ``x`` (N, C, H, W) and ``g``."""
        return torch.sigmoid(self.psi(F.relu(self.w_x(x) + self.w_g(g))))

    def forward(self, x: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        """``x`` (N, C, H, W), even H and W, gated by ``g`` (N, G, H / 2, W / 2); shape of ``x``."""
        a = F.interpolate(
            self.attention(x, g), scale_factor=2.0, mode="bilinear", align_corners=False
        )
        return x * a


def _conv_block(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class _UpBlock(nn.Module):
    """Doubles the size, joins the gated skip where there is one, and convolves twice."""

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        # Encoders that start at a quarter of the size have an empty map at one half
        self.gate = (
            AttentionGate(skip_channels, in_channels, inner_channels=max(skip_channels // 2, 1))
            if skip_channels > 0
            else None
        )
        self.convs = _conv_block(in_channels + skip_channels, out_channels)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        upsampled = F.interpolate(x, scale_factor=2.0, mode="nearest")
        if self.gate is not None:
            upsampled = torch.cat([upsampled, self.gate(skip, x)], dim=1)
        result: torch.Tensor = self.convs(upsampled)
        return result


class AttentionUnet(nn.Module):
    """An encoder, a gated decoder and a 3 x 3 convolution to the logits.

    Args:
        encoder: gives ``depth + 1`` maps, each half the size of the one before, the first of them
            the image; ``out_channels`` lists their channels.
        decoder_channels: ``depth`` numbers, deepest first.
        logits: channels of the output.
        deep_supervision: in training mode ``forward`` returns a list, with the logits of the
            coarser stages behind those of full size, finest first, the coarsest stage left out.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder_channels: Sequence[int],
        logits: int,
        *,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        channels: list[int] = [int(c) for c in encoder.out_channels]  # type: ignore[union-attr]
        skips = [*channels[-2:0:-1], 0]  # deepest first; the image itself is no skip
        inputs = [channels[-1], *decoder_channels[:-1]]
        self.decoder = nn.ModuleList(
            _UpBlock(i, s, o) for i, s, o in zip(inputs, skips, decoder_channels, strict=True)
        )
        self.head = nn.Conv2d(decoder_channels[-1], logits, kernel_size=3, padding=1)
        self._initialise()
        coarser = decoder_channels[-2:0:-1] if deep_supervision else ()
        self.auxiliary_heads = nn.ModuleList(auxiliary_head(c, logits) for c in coarser)

    def _initialise(self) -> None:
        for module in self.decoder.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, mode="fan_in", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.head.weight)
        if self.head.bias is not None:
            nn.init.zeros_(self.head.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """(N, C, H, W), H and W multiples of the encoder's stride, to logits (N, K, H, W)."""
        _, *features = self.encoder(images)
        x = features[-1]
        stages: list[torch.Tensor] = []
        for block, skip in zip(self.decoder, [*features[-2::-1], images], strict=True):
            x = block(x, skip)
            stages.insert(0, x)
        logits: torch.Tensor = self.head(x)
        if self.training and len(self.auxiliary_heads) > 0:
            pairs = zip(self.auxiliary_heads, stages[1:-1], strict=True)
            return [logits, *(head(stage) for head, stage in pairs)]
        return logits
