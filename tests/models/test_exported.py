"""The exported graph of every architecture agrees with the network at every size."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import numpy as np
import onnxruntime
import pytest
import torch

from delineate.export import export_network
from delineate.models.build import ARCHITECTURES, DEEPLY_SUPERVISED

Network = Callable[..., torch.nn.Module]


@pytest.fixture(autouse=True)
def no_trace() -> Iterator[None]:
    """The exporter writes megabytes of trace for pytest to keep, which takes longer than it."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


# One library joins the same layers in these ways; unet, fpn and deeplabv3+ guard every change
ALIKE = ("deeplabv3", "linknet", "manet", "pan", "pspnet", "upernet")


@pytest.mark.parametrize(
    "architecture",
    [
        pytest.param(name, marks=[pytest.mark.long] if name in ALIKE else [])
        for name in ARCHITECTURES
    ],
)
def test_the_exported_graph_agrees_at_every_size(network: Network, architecture: str) -> None:
    deep = architecture in DEEPLY_SUPERVISED
    model = network(architecture, channels=5, deep_supervision=deep).eval()
    graph = export_network(model, 5)
    assert [output.name for output in graph.graph.output] == ["logits"]
    names = [tensor.name for tensor in graph.graph.initializer]
    assert [name for name in names if "heads" in name or "auxiliary" in name] == []
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for shape in ((1, 5, 33, 47), (3, 5, 64, 96), (1, 5, 1, 1), (1, 5, 200, 130)):
        images = torch.randn(shape)
        with torch.no_grad():
            expected = model(images).numpy()
        (logits,) = session.run(None, {"x": images.numpy()})
        assert logits.shape == expected.shape
        largest = float(np.abs(expected).max())
        np.testing.assert_allclose(logits, expected, atol=1e-5 * largest + 1e-5, rtol=1e-4)
