"""Claim: importing and checking a COCO set are at least as fast as in Datumaro and supervision.

5,000 generated photos of 320 x 240 pixels with 50 polygons of 16 points each. Import means: from
the COCO file and the JPEGs to one mask of class ids for each image on disk. delineate checks every
pixel on the way and writes object ids as well; Datumaro imports, turns polygons into masks and
exports to CamVid's layout; supervision reads with masks, and the loop that its users write paints
and saves them (in parts of 500 images, because it holds every object's full mask in memory).
Check means: delineate's whole data check; Datumaro's segmentation validator.

Peers run in an environment of their own, one after the other in the same run.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from benchmarks.record import write
from delineate.data.checks.check import check
from delineate.data.formats.settings import ImportSettings
from delineate.data.importing import import_dataset

IMAGES = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
POLYGONS = 50
POINTS = 16
HW = (240, 320)
CLASSES = 5
PART = 500  # images that supervision holds at once

DATUMARO = """
import json, sys, time
import datumaro as dm
from datumaro.plugins.validators import SegmentationValidator
root, out = sys.argv[1:]
began = time.perf_counter()
data = dm.Dataset.import_from(root, "coco_instances")
data.transform("polygons_to_masks")
data.export(out, "camvid", save_media=True)
imported = time.perf_counter() - began
data = dm.Dataset.import_from(root, "coco_instances")
data.transform("polygons_to_masks")
began = time.perf_counter()
thresholds = dict(few_samples_thr=1, imbalance_ratio_thr=50, far_from_mean_thr=5,
                  dominance_ratio_thr=0.8, topk_bins=0.1)
validator = SegmentationValidator(**thresholds)
validator.generate_reports(validator.compute_statistics(data))
checked = time.perf_counter() - began
print(json.dumps({"import_s": imported, "check_s": checked, "version": dm.__version__}))
"""

SUPERVISION = """
import json, sys, time
from pathlib import Path
import cv2, numpy as np, supervision as sv
images, out, *parts = sys.argv[1:]
Path(out).mkdir()
began = time.perf_counter()
for part in parts:
    data = sv.DetectionDataset.from_coco(images, part, force_masks=True)
    for path, _, found in data:
        labels = np.zeros(found.mask.shape[1:], np.uint8)
        for mask, class_id in zip(found.mask, found.class_id):
            labels[mask] = class_id + 1
        cv2.imwrite(f"{out}/{Path(path).stem}.png", labels)
print(json.dumps({"import_s": time.perf_counter() - began, "version": sv.__version__}))
"""


def generate(root: Path) -> list[Path]:
    """A COCO set in Datumaro's layout; the files for supervision, in parts."""
    rng = np.random.default_rng(7)
    photos = root / "coco" / "images" / "train"
    photos.mkdir(parents=True)
    (root / "coco" / "annotations").mkdir()
    images, annotations = [], []
    height, width = HW
    for index in range(IMAGES):
        low = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        photo = cv2.resize(low, (width, height), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(photos / f"{index:05}.jpg"), photo)
        images.append(
            {"id": index + 1, "file_name": f"{index:05}.jpg", "width": width, "height": height}
        )
        for _ in range(POLYGONS):
            angles = np.sort(rng.uniform(0, 2 * np.pi, POINTS))
            radii = rng.uniform(4, 20) * rng.uniform(0.7, 1.3, POINTS)
            x = np.clip(rng.uniform(0, width) + radii * np.cos(angles), 0, width)
            y = np.clip(rng.uniform(0, height) + radii * np.sin(angles), 0, height)
            box = [float(x.min()), float(y.min()), float(np.ptp(x)), float(np.ptp(y))]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index + 1,
                    "category_id": int(rng.integers(1, CLASSES + 1)),
                    "iscrowd": 0,
                    "area": box[2] * box[3],
                    "bbox": box,
                    "segmentation": [np.round(np.stack([x, y], 1), 2).ravel().tolist()],
                }
            )
    categories = [{"id": i, "name": f"class{i}"} for i in range(1, CLASSES + 1)]
    whole = {"images": images, "annotations": annotations, "categories": categories}
    (root / "coco" / "annotations" / "instances_train.json").write_text(json.dumps(whole))
    parts = []
    for first in range(0, IMAGES, PART):
        part = root / f"part{first}.json"
        ids = range(first + 1, min(first + PART, IMAGES) + 1)
        part.write_text(
            json.dumps(
                {
                    "images": images[first : first + PART],
                    "annotations": [a for a in annotations if a["image_id"] in ids],
                    "categories": categories,
                }
            )
        )
        parts.append(part)
    return parts


def peer(python: Path, job: str, *arguments: object) -> dict[str, float | str]:
    words = [str(python), "-c", job, *map(str, arguments)]
    output = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    found: dict[str, float | str] = json.loads(output.splitlines()[-1])
    return found


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        uv = [sys.executable, "-m", "uv"]
        python = root / "peers" / "bin" / "python"
        subprocess.run([*uv, "venv", "--quiet", str(root / "peers")], check=True)
        packages = ["datumaro", "supervision"]
        install = [*uv, "pip", "install", "--quiet", "--python", str(python), *packages]
        subprocess.run(install, check=True)
        parts = generate(root)

        began = time.perf_counter()
        settings = ImportSettings(source=root / "coco", out=root / "ours", format="coco")
        report = import_dataset(settings)
        ours_s = time.perf_counter() - began
        if report.objects is None or sum(report.samples.values()) != IMAGES:
            raise RuntimeError(f"imported {report}")
        began = time.perf_counter()
        findings = check(root / "ours")
        check_s = time.perf_counter() - began

        datumaro = peer(python, DATUMARO, root / "coco", root / "datumaro")
        photos = root / "coco" / "images" / "train"
        supervision = peer(python, SUPERVISION, photos, root / "supervision", *parts)
        masks = sum(1 for _ in (root / "supervision").iterdir())
        if masks != IMAGES:
            raise RuntimeError(f"supervision wrote {masks} masks")
    next_s = min(float(datumaro["import_s"]), float(supervision["import_s"]))
    write(
        "data",
        "importing and checking a COCO set are at least as fast as in Datumaro and supervision",
        {
            "import_ratio_vs_next": round(next_s / ours_s, 2),
            "import_s": round(ours_s, 1),
            "import_s_datumaro": round(float(datumaro["import_s"]), 1),
            "import_s_supervision": round(float(supervision["import_s"]), 1),
            "check_images_per_s": round(IMAGES / check_s, 1),
            "check_images_per_s_datumaro": round(IMAGES / float(datumaro["check_s"]), 1),
            "check_findings": len(findings),
            "images": IMAGES,
        },
        {
            "datumaro": f"Datumaro {datumaro['version']}: import, polygons to masks, export",
            "supervision": f"supervision {supervision['version']}: from_coco, painted and saved",
        },
    )


if __name__ == "__main__":
    main()
