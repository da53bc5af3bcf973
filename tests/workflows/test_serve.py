from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from delineate.bundle.load import Bundle, load
from delineate.errors import BundleError
from delineate.serving.settings import ServingSettings
from delineate.workflows.evaluate import predict_with
from delineate.workflows.serve import serving_app


def test_a_bundle_behind_http(trained: Any) -> None:
    bundle = load(trained.bundle, engine="onnxruntime")
    path: Path = trained.dataset / "val/images/val0.png"
    with TestClient(serving_app(bundle)) as client:
        model = client.get("/v1/model").json()
        answer = client.post(
            "/v1/segment", content=path.read_bytes(), headers={"Accept": "image/png"}
        )
    assert (model["name"], model["version"]) == ("first", "1")
    assert answer.status_code == 200
    mask = np.asarray(Image.open(io.BytesIO(answer.content)))
    image = np.asarray(Image.open(path))
    assert np.array_equal(mask, predict_with(bundle)(image))


def test_settings_reach_the_service(fake_bundle: Callable[..., Bundle]) -> None:
    app = serving_app(fake_bundle(), ServingSettings(max_body_bytes=10))
    with TestClient(app) as client:
        assert client.post("/v1/segment", content=bytes(11)).status_code == 413


def test_the_canary_is_compared_first(
    fake_bundle: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = fake_bundle()

    def verify() -> int:
        raise BundleError("canary: another answer")

    monkeypatch.setattr(bundle, "verify", verify)
    with pytest.raises(BundleError, match=r"^canary: another answer\.$"):
        serving_app(bundle)
