"""Claim: predicting and serving need no PyTorch, and under 400 MB (600 MB with OpenVINO).

Fresh environments with the pinned versions; in each, the shared ESPNet becomes a bundle, is run
on an image, and answers over HTTP, with nothing but that environment.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.record import ROOT, shared, write

ENVIRONMENTS = {"onnxruntime": "[serve]", "openvino": "[serve,openvino]"}

JOB = """
import importlib.util, json, sys, urllib.request
from pathlib import Path
network, image, folder, engine = sys.argv[1:]
assert importlib.util.find_spec("torch") is None, "torch is installed"
import delineate
from delineate.bundle.import_onnx import ImportOnnxSettings, import_onnx
from delineate.serving.server import running
bundle = Path(folder) / "espnet.bundle"
settings = ImportOnnxSettings(
    classes=tuple("abcdefghijkl"), channel_order="bgr", mean=(110.0,), std=(20000.0,))
import_onnx(Path(network), bundle, settings)
loaded = delineate.load(bundle, engine=engine)
found = delineate.predict(loaded, [image], Path(folder) / "masks")
assert not found.failures and len(found.results) == 1
with running(delineate.serving_app(loaded)) as url:
    request = urllib.request.Request(f"{url}/v1/segment", data=Path(image).read_bytes(),
                                     headers={"Content-Type": "image/jpeg"})
    answer = json.load(urllib.request.urlopen(request))
assert answer["width"] == 480 and "torch" not in sys.modules
"""


def megabytes(folder: Path) -> float:
    """Size on disk of everything below ``folder``, compiled files included, as ``du`` counts."""
    output = subprocess.run(["du", "-sk", str(folder)], capture_output=True, text=True, check=True)
    return int(output.stdout.split()[0]) / 1000


def main() -> None:
    figures: dict[str, float] = {}
    image = next((shared("data/camvid") / "val" / "images").iterdir())
    network = shared("weights") / "espnet_camvid.onnx"
    for engine, extras in ENVIRONMENTS.items():
        with tempfile.TemporaryDirectory() as folder:
            environment = Path(folder) / "env"
            python = environment / "bin" / "python"
            subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
            install = [sys.executable, "-m", "uv", "pip", "install", "--quiet"]
            install += ["--python", str(python), "--constraint", str(ROOT / "constraints.txt")]
            subprocess.run([*install, f"{ROOT}{extras}"], check=True)
            job = [str(python), "-c", JOB, str(network), str(image), folder, engine]
            subprocess.run(job, check=True)
            figures[f"mb_{engine}"] = round(megabytes(environment))
    write(
        "install",
        "predicting and serving need no PyTorch and under 400 MB, 600 MB with OpenVINO",
        figures,
        {},
    )


if __name__ == "__main__":
    main()
