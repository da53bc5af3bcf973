"""A PyTorch module as an engine: what validation during training and the export check run."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from delineate.config import Normalisation
from delineate.engines.check import check_batch
from delineate.engines.scaling import batch_scalings
from delineate.types import Images, Output, Prediction, PredictorSpec, Scaling

Scalings: TypeAlias = Float32[np.ndarray, "n 2 c"]


class TorchPredictor:
    """Runs a module that takes normalised (N, C, H, W) and gives logits of the same size.

    It repeats in PyTorch what ``bundle/graph.py`` puts into the exported graph, so each can be
    checked against the other. The module is used as it is, in its own mode and on its own device;
    the caller puts it into ``eval``.

    Args:
        module: logits (N, K, H, W), or (N, 1, H, W) for a binary task.
        spec: what it takes and gives.
        normalisation: of raw pixels.
        autocast: arithmetic inside the network; None is the module's own.
    """

    def __init__(
        self,
        module: nn.Module,
        spec: PredictorSpec,
        normalisation: Normalisation,
        *,
        autocast: torch.dtype | None = None,
    ) -> None:
        self._spec = spec
        self._module = module
        self._autocast = autocast
        first = next(module.parameters(), torch.empty(0))
        self._device = first.device
        self._normaliser = Normaliser(normalisation, self._device)
        self._scaling: Scaling | None = None

    @property
    def spec(self) -> PredictorSpec:
        return self._spec

    def predict(self, images: Images, outputs: Sequence[Output] = ("labels",)) -> Prediction:
        check_batch(images, outputs, self._spec)
        with torch.inference_mode():
            x = self._normaliser(images, self._scalings(images))
            enabled = self._autocast is not None
            with torch.autocast(self._device.type, self._autocast, enabled=enabled):
                logits = self._module(x.contiguous(memory_format=torch.channels_last))
            return _results(logits.float(), outputs, len(self._spec.classes))

    def scaled(self, scaling: Scaling) -> TorchPredictor:
        """As :meth:`delineate.types.PerImagePredictor.scaled`."""
        view = copy.copy(self)
        view._scaling = scaling
        return view

    def _scalings(self, images: Images) -> Scalings | None:
        by_image = self._spec.normalised_by_image
        return batch_scalings(images, self._scaling) if by_image else None


class Normaliser:
    """Raw pixels to what a network sees, as the front of the exported graph does it.

    Args:
        normalisation: of raw pixels.
        device: of the network.
    """

    def __init__(self, normalisation: Normalisation, device: torch.device) -> None:
        self.by_image = normalisation.by == "image"
        self._device = device
        mean = torch.tensor(normalisation.mean, dtype=torch.float64).reshape(1, -1, 1, 1)
        std = torch.tensor(normalisation.std, dtype=torch.float64).reshape(1, -1, 1, 1)
        self._scale = (1 / std).float().to(device)
        self._offset = (-mean / std).float().to(device)

    def __call__(self, images: Images, scalings: Scalings | None) -> Float[Tensor, "n c h w"]:
        """(N, H, W, C) raw to (N, C, H, W) normalised float32.

        Args:
            images: raw.
            scalings: (N, 2, C), of the image that each is a part of; needed by image alone.
        """
        pixels = as_tensor(images, self._device)
        if not self.by_image:
            return pixels * self._scale + self._offset
        if scalings is None:
            raise TypeError("a network that is normalised by image needs scale and offset")
        given = torch.from_numpy(scalings).to(self._device)
        return pixels * given[:, 0, :, None, None] + given[:, 1, :, None, None]


def as_tensor(images: Images, device: torch.device) -> Float[Tensor, "n c h w"]:
    """Raw pixels (N, H, W, C) as float32 (N, C, H, W), values unchanged."""
    if images.dtype != np.uint8:  # PyTorch has few operations for uint16
        images = images.astype(np.float32)
    pixels = torch.from_numpy(np.ascontiguousarray(images)).to(device)
    return pixels.permute(0, 3, 1, 2).float()


def _results(
    logits: Float[Tensor, "n k h w"], outputs: Sequence[Output], classes: int
) -> Prediction:
    if logits.shape[1] == 1:
        foreground = logits.sigmoid()
        probabilities = torch.cat([1 - foreground, foreground], dim=1)
        labels = (logits[:, 0] > 0).long()
    else:
        probabilities = logits.softmax(dim=1)
        labels = logits.argmax(dim=1)
    dtype = np.uint8 if classes <= 256 else np.uint16
    result = Prediction()
    if "labels" in outputs:
        result["labels"] = labels.cpu().numpy().astype(dtype)
    largest = probabilities.amax(dim=1)
    if "confidence" in outputs:
        result["confidence"] = (largest * 255).round().byte().cpu().numpy()
    if "probabilities" in outputs:
        eight_bit = (probabilities * 255).round().byte()
        if logits.shape[1] == 1:
            eight_bit[:, 0] = 255 - eight_bit[:, 1]
        result["probabilities"] = eight_bit.cpu().numpy()
    if "summary" in outputs:
        ids = torch.arange(classes, device=labels.device).reshape(1, -1, 1, 1)
        shares = (labels[:, None] == ids).float().mean(dim=(2, 3))
        entropy = -(probabilities * probabilities.clamp(min=1e-12).log()).sum(dim=1)
        means = torch.stack([largest.mean(dim=(1, 2)), entropy.mean(dim=(1, 2))], dim=1)
        result["summary"] = torch.cat([shares, means], dim=1).cpu().numpy()
    return result
