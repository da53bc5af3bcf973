from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import pytest

from delineate.bundle.manifest import Precision
from delineate.config import ModelSettings, Normalisation
from delineate.data.statistics import Distribution
from delineate.engines.timing import Timing
from delineate.planning.candidates import Size, candidate
from delineate.planning.ceilings import STRIDES
from delineate.planning.choice import Budget, Row, misfits
from delineate.planning.contender import Contender
from delineate.planning.fingerprint import ClassFingerprint, Fingerprint
from delineate.planning.look import FirstLook
from delineate.planning.prior import Expected
from delineate.types import Images, Output, Prediction, PredictorSpec


def distribution(value: float) -> Distribution:
    return Distribution(10, *(value,) * 8)


class Idle:
    """A predictor that does nothing."""

    spec = PredictorSpec(("a", "b"), "binary", 3, "uint8")

    def predict(self, images: Images, outputs: Sequence[Output] = ("labels",)) -> Prediction:
        assert outputs
        return {"labels": np.zeros(images.shape[:3], np.uint8)}


def timing(ms: float, *, slowest_ms: float | None = None) -> Timing:
    calls = np.full(100, ms)
    calls[90:] = ms if slowest_ms is None else slowest_ms
    return Timing(ms, True, (calls,))


@pytest.fixture(scope="session")
def make_row() -> Callable[..., Row]:
    """A row that takes so many milliseconds and is expected to reach so much."""

    def make(
        name: str,
        ms: float,
        miou: float | None,
        budget: Budget,
        *,
        slowest_ms: float | None = None,
        whole_ms: float | None = None,
        memory_mb: int = 100,
        gigas: float = 1.0,
        crops: float = 1000.0,
        precision: Precision = "float32",
    ) -> Row:
        item = candidate(ModelSettings(architecture="fast-scnn"))
        one = Contender(
            type(item)(item.model, name, item.stride),
            Size(1, int(gigas * 1e9)),
            "onnxruntime",
            precision,
            onnx.ModelProto(),
            Idle(),
            float(ms),
            (32, 32),
        )
        network = timing(float(ms), slowest_ms=slowest_ms)
        whole = timing(float(ms + 1 if whole_ms is None else whole_ms))
        memory = memory_mb * 2**20
        return Row(
            contender=one,
            network=network,
            end_to_end=whole,
            memory_bytes=memory,
            file_bytes=1,
            step_s=1.0,
            crops=float(crops),
            expected=None if miou is None else Expected(miou, miou, "a table", follows_time=True),
            reasons=misfits(network, whole, memory, budget),
        )

    return make


@pytest.fixture(scope="session")
def make_fingerprint() -> Callable[..., Fingerprint]:
    """Images of one size and two classes, of which the second may be thin, rare or large."""

    def make(
        *,
        side_px: float = 512.0,
        labelled: int = 100,
        ceilings: tuple[float, ...] = (1.0,) * len(STRIDES),
        share: float = 0.3,
        object_px: float = 40.0,
        upright: bool = True,
        sided: bool = False,
        classes: int = 2,
    ) -> Fingerprint:
        look = FirstLook(
            channels=3,
            dtype="uint8",
            normalisation=Normalisation(mean=(0.0,) * 3, std=(1.0,) * 3),
            smallest_side_px=int(side_px),
            class_shares=(1 - share, *(share / (classes - 1),) * (classes - 1)),
            upright=upright,
            sided=sided,
        )
        background = ClassFingerprint(
            "background", True, 1 - share, labelled, 0.0, None, None, ceilings
        )
        thing = ClassFingerprint(
            "thing",
            False,
            share,
            labelled,
            3.0,
            distribution(object_px / 2),
            distribution(object_px),
            ceilings,
        )
        return Fingerprint(
            look=look,
            labelled_images=labelled,
            validation_images=10,
            groups=None,
            height_px=distribution(side_px),
            width_px=distribution(side_px),
            pixel_size_um=None,
            ignored_share=0.0,
            classes=(background, *(thing,) * (classes - 1)),
        )

    return make
