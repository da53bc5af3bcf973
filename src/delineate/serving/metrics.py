"""What Prometheus reads."""

from __future__ import annotations

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

METRICS_TYPE = CONTENT_TYPE_LATEST

# 1 ms to 2 min, three steps to the decade: budgets are 5 to 100 ms, slides take minutes
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 120.0)
_PIXELS = tuple(float(side * side) for side in (128, 256, 512, 1024, 2048, 4096, 8192, 16384))


class Metrics:
    """The figures of one app, in a registry of its own: two apps in a process do not mix."""

    def __init__(self, model: str, version: str) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "delineate_requests",
            "Requests answered.",
            ("path", "status"),
            registry=self._registry,
        )
        stages = Histogram(
            "delineate_stage_seconds",
            "Time spent in a stage of a request; queue is the wait for a thread or the engine.",
            ("model", "stage"),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._stages = {
            stage: stages.labels(model, stage) for stage in ("queue", "decode", "infer", "encode")
        }
        self.in_flight = Gauge(
            "delineate_requests_in_flight",
            "Images that are being received, processed or waiting.",
            ("model",),
            registry=self._registry,
        ).labels(model)
        self._pixels = Histogram(
            "delineate_image_pixels",
            "Height times width of the images decoded.",
            ("model",),
            buckets=_PIXELS,
            registry=self._registry,
        ).labels(model)
        info = Gauge(
            "delineate_model_info",
            "1 for the model that is served.",
            ("model", "version"),
            registry=self._registry,
        )
        info.labels(model, version).set(1)

    def answered(self, path: str, status: int) -> None:
        """Count one response."""
        self._requests.labels(path, str(status)).inc()

    def stage(self, name: str, seconds: float) -> None:
        """Record the time of ``queue``, ``decode``, ``infer`` or ``encode``."""
        self._stages[name].observe(seconds)

    def image(self, height: int, width: int) -> None:
        """Record the size of an image in pixels."""
        self._pixels.observe(height * width)

    def text(self) -> bytes:
        """All figures in the text format of Prometheus (``METRICS_TYPE``)."""
        return generate_latest(self._registry)
