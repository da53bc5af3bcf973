"""A model of ten lines behind the real service."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass, field, replace
from threading import Event

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from delineate.config import PostprocessingSettings, TilingSettings
from delineate.serving.app import ServedModel, create_app
from delineate.serving.settings import ServingSettings
from delineate.types import Prediction, PredictorSpec

COLOURS = ((0, 0, 0), (230, 159, 0))
SPEC = PredictorSpec(("dark", "bright"), "binary", channels=1, dtype="uint8")


@dataclass
class Threshold:
    """Bright pixels are class 1."""

    spec: PredictorSpec = SPEC
    go_on: Event = field(default_factory=Event)
    running: int = 0
    most_running: int = 0

    def __post_init__(self):
        self.go_on.set()

    def predict(self, images, outputs=("labels",)):
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        assert self.go_on.wait(20)
        labels = (images[..., 0] > 127).astype(np.uint8)
        planes = np.stack([255 * (1 - labels), 255 * labels], axis=1).astype(np.uint8)
        share = labels.mean(axis=(1, 2))
        ones = np.ones_like(share)
        summary = np.stack([1 - share, share, 0.75 * ones, 0 * ones], axis=1).astype(np.float32)
        everything = {"labels": labels, "probabilities": planes, "summary": summary}
        self.running -= 1
        return Prediction(**{name: everything[name] for name in outputs})


@dataclass(frozen=True)
class Workshop:
    """Makes clients and images."""

    def model(self, predictor=None, **changes):
        served = ServedModel(
            name="threshold",
            version="3",
            predictor=predictor or Threshold(),
            colours=COLOURS,
            tiling=TilingSettings(tile_px=64, overlap_px=8),
            postprocessing=PostprocessingSettings(),
        )
        return replace(served, **changes)

    def app(self, predictor=None, **settings):
        return create_app(self.model(predictor), ServingSettings(**settings))

    def client(self, predictor=None, **settings):
        return TestClient(self.app(predictor, **settings), raise_server_exceptions=False)

    def threshold(self, **spec):
        return Threshold(replace(SPEC, **spec))

    def broken(self, message):
        class Broken:
            spec = SPEC

            def predict(self, images, outputs=("labels",)):
                raise RuntimeError(message, images.shape, outputs)

        return Broken()

    def pixels(self, height=48, width=40):
        """Dark on the left, bright from column 10 on."""
        pixels = np.full((height, width), 40, np.uint8)
        pixels[:, 10:] = 200
        return pixels

    def file(self, pixels=None, kind="PNG"):
        file = io.BytesIO()
        Image.fromarray(self.pixels() if pixels is None else pixels).save(file, kind)
        return file.getvalue()

    def claim(self, width, height):
        """A small PNG whose header claims a large image."""

        def chunk(kind, data):
            return (
                struct.pack(">I", len(data))
                + kind
                + data
                + struct.pack(">I", zlib.crc32(kind + data))
            )

        header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
        body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99)))
        return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


@pytest.fixture
def workshop():
    return Workshop()


@pytest.fixture
def client(workshop):
    with workshop.client() as client:
        yield client
