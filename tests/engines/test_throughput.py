"""Images at saturation: all are counted, by every worker, in batches that the predictor takes."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from itertools import count

import numpy as np
import pytest

from delineate.engines.energy import Counter, Meter
from delineate.engines.throughput import Load, throughputs
from delineate.errors import EngineError
from delineate.types import Images, Output, Prediction, PredictorSpec


class Counting:
    """Sleeps for each call or for each image, and counts."""

    def __init__(self, *, call_s: float = 0.0, image_s: float = 0.0, batch: int | None = None):
        self.spec = PredictorSpec(("a", "b"), "binary", 1, "uint8", largest_batch=batch)
        self.call_s, self.image_s = call_s, image_s
        self.images, self.largest, self.threads = 0, 0, set[int]()
        self._lock = threading.Lock()

    def predict(self, images: Images, outputs: Sequence[Output] = ("labels",)) -> Prediction:
        assert outputs == ("labels",)
        time.sleep(self.call_s + self.image_s * len(images))
        with self._lock:
            self.images += len(images)
            self.largest = max(self.largest, len(images))
            self.threads.add(threading.get_ident())
        return {"labels": np.zeros(images.shape[:3], np.uint8)}


pytestmark = pytest.mark.usefixtures("quick_timing")

IMAGE = np.zeros((4, 4, 1), np.uint8)
NO_METER = Meter(())


def measured(predictor: Counting, cores: int = 2, meter: Meter = NO_METER):
    return throughputs({"one": (predictor, IMAGE, meter)}, cores=cores, rounds=3)["one"]


def test_batches_where_a_call_costs_most() -> None:
    predictor = Counting(call_s=0.005)
    found = measured(predictor)
    assert found.load == Load(8, 1)
    assert found.low <= found.images_per_s <= found.high
    assert found.joules_per_image is None


def test_several_calls_where_they_run_side_by_side() -> None:
    predictor = Counting(image_s=0.005)
    found = measured(predictor, cores=4)
    assert found.load == Load(1, 4)
    assert len(predictor.threads) >= 4


def test_a_network_that_takes_one_image() -> None:
    predictor = Counting(batch=1)
    measured(predictor, cores=1)
    assert predictor.largest == 1


def test_energy_is_that_of_an_image() -> None:
    predictor = Counting(image_s=0.001)
    ticks = count(0.0, 6.0)
    found = measured(predictor, cores=1, meter=Meter([Counter(lambda: next(ticks))]))
    assert found.joules_per_image is not None
    assert 6.0 / 400 < found.joules_per_image <= 6.0


def test_a_load_that_the_engine_refuses_is_left_out() -> None:
    class Small(Counting):
        def predict(self, images: Images, outputs: Sequence[Output] = ("labels",)) -> Prediction:
            if len(images) > 1:
                raise EngineError("no memory for a batch")
            return super().predict(images, outputs)

    assert measured(Small(call_s=0.002), cores=1).load == Load(1, 1)


def test_large_images_come_one_at_a_time() -> None:
    predictor = Counting(call_s=0.001)
    large = np.zeros((4096, 4096, 1), np.uint8)
    throughputs({"one": (predictor, large, NO_METER)}, cores=1, rounds=1)
    assert predictor.largest == 1


def test_an_error_in_a_worker_is_not_lost() -> None:
    class Broken(Counting):
        def predict(self, *_: object) -> Prediction:
            raise RuntimeError("it broke")

    with pytest.raises(RuntimeError, match="it broke"):
        measured(Broken())
