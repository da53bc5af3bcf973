"""Who may import whom, and that a bundle needs no PyTorch from loading to HTTP."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]

WITHOUT_TORCH = """
import sys

BLOCKED = {"torch", "torchvision", "lightning_fabric", "segmentation_models_pytorch", "timm"}


class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


sys.meta_path.insert(0, Absent())
import cv2
import numpy as np
from starlette.testclient import TestClient

import delineate
from delineate.config import TilingSettings
from delineate.types import OUTPUTS

bundle_path, dataset_path, image_path = sys.argv[1:]
image = cv2.imread(image_path)[..., ::-1]
for engine in ("onnxruntime", "openvino"):
    bundle = delineate.load(bundle_path, engine=engine)
    labels = bundle.predict(np.ascontiguousarray(image)[None], OUTPUTS)["labels"]
    assert labels.shape == (1, *image.shape[:2])
    tiling = TilingSettings(tile_px=32, overlap_px=8)
    stitched = delineate.segment(bundle, image, ("labels", "summary"), tiling=tiling)
    assert stitched["labels"].shape == labels.shape

assert delineate.evaluate(bundle_path, dataset_path).n_images == 1
with TestClient(delineate.serving_app(delineate.load(bundle_path))) as client:
    with open(image_path, "rb") as file:
        answer = client.post(
            "/v1/segment", content=file.read(),
            headers={"Content-Type": "image/png", "Accept": "image/png"},
        )
    assert answer.status_code == 200, answer.text
    found = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert found.shape[:2] == image.shape[:2]
    assert client.get("/healthz").status_code == 200
assert not BLOCKED & {name.partition(".")[0] for name in sys.modules}
try:
    import torch
except ModuleNotFoundError:
    print("done without torch")
"""


def _python(code, *arguments):
    return subprocess.run(
        [sys.executable, "-W", "error::ImportWarning", "-c", code, *map(str, arguments)],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


def test_import_contracts_hold(tmp_path):
    command = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", command, "--config", str(ROOT / "pyproject.toml"),
         "--cache-dir", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Contracts: 2 kept, 0 broken" in done.stdout


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("delineate", {"torch", "onnxruntime", "openvino", "onnx", "cv2", "numpy", "fastapi"}),
        ("delineate.cli.main", {"torch", "onnxruntime", "openvino", "fastapi", "uvicorn"}),
        ("delineate.bundle.load", {"torch", "onnxruntime", "openvino"}),
        ("delineate.tiling.segment", {"torch", "onnxruntime", "openvino"}),
        ("delineate.engines.onnxruntime", {"torch", "openvino"}),
        ("delineate.workflows.fit", {"torch", "openvino", "skimage", "sklearn"}),
        ("delineate.workflows.bench", {"torch", "openvino", "matplotlib", "plotly"}),
        ("delineate.engines.openvino", {"torch", "onnxruntime"}),
    ],
)
def test_what_an_import_leaves_alone(module, absent):
    done = _python(f"import sys, {module}; print(*sys.modules)")
    assert done.returncode == 0, done.stderr
    assert not absent & set(done.stdout.split())


def test_a_bundle_lives_without_torch(tiny_bundle, tmp_path):
    """Loaded, run, stitched, evaluated and served where importing torch fails."""
    rows, columns = np.mgrid[:50, :60]
    disc = ((rows - 25) ** 2 + (columns - 30) ** 2 < 150).astype(np.uint8)
    image = np.where(disc[..., None] > 0, 190, 60).astype(np.uint8).repeat(3, axis=2)
    data = tmp_path / "data"
    for kind, content in (("images", image), ("masks", disc)):
        (data / "val" / kind).mkdir(parents=True)
        cv2.imwrite(str(data / "val" / kind / "one.png"), content)
    (data / "dataset.yaml").write_text("classes: [background, disc]\n")
    done = _python(WITHOUT_TORCH, tiny_bundle, data, data / "val" / "images" / "one.png")
    assert done.returncode == 0, done.stderr
    assert "done without torch" in done.stdout
