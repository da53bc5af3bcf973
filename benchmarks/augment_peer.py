"""The peer of ``benchmarks.augment``: the same pipelines in Albumentations, in its own environment.

Started by ``benchmarks/augment.py``, which writes one line for each turn: a pipeline's name and a
number of crops. The answer is a line with the seconds of the processor that they took.
"""

from __future__ import annotations

import json
import sys
import time

import albumentations as A
import cv2


def pipeline(spec: dict) -> A.Compose:
    """What our settings mean, in Albumentations' words and in its fastest transforms.

    Zoom and crop are one crop that is resized, never a resize of the whole image.
    """
    side, fill = spec["crop_px"], {"border_mode": cv2.BORDER_REFLECT_101}
    bright, contrast, hue = spec["brightness"], spec["contrast"], spec["hue"]
    return A.Compose(
        [
            A.RandomResizedCrop((side, side), scale=tuple(spec["area"]), ratio=(1.0, 1.0)),
            A.HorizontalFlip(p=spec["horizontal_flip"]),
            A.VerticalFlip(p=spec["vertical_flip"]),
            A.Rotate(limit=spec["rotation_degrees"], p=spec["rotation"], **fill),
            A.ElasticTransform(
                alpha=spec["elastic_alpha"],
                sigma=spec["elastic_sigma"],
                approximate=True,
                p=spec["elastic"],
                **fill,
            ),
            A.ColorJitter(
                brightness=(1 - bright, 1 + bright),
                contrast=(1 - contrast, 1 + contrast),
                saturation=(1.0, 1.0),
                hue=(-hue, hue),
                p=spec["colour"],
            ),
            A.GaussianBlur(blur_limit=0, sigma_limit=(0.2, spec["blur_sigma_px"]), p=spec["blur"]),
            A.GaussNoise(std_range=(0.0, spec["noise_sigma"]), p=spec["noise"]),
        ],
        seed=0,
    )


def main() -> None:
    cv2.setNumThreads(1)
    cv2.ocl.setUseOpenCL(False)
    jobs = {}
    for name, spec in json.loads(sys.argv[1]).items():
        pairs = [
            (cv2.imread(image, cv2.IMREAD_COLOR_RGB), cv2.imread(mask, cv2.IMREAD_UNCHANGED))
            for image, mask in spec["files"]
        ]
        jobs[name] = pipeline(spec), pairs, spec["crop_px"]
    print(A.__version__, cv2.__version__, flush=True)
    for line in sys.stdin:
        name, count = line.split()
        augment, pairs, side = jobs[name]
        began = time.process_time()
        for number in range(int(count)):
            image, mask = pairs[number % len(pairs)]
            found = augment(image=image, mask=mask)
            assert found["image"].shape == (side, side, 3)
            assert found["mask"].shape == (side, side)
        print(time.process_time() - began, flush=True)


if __name__ == "__main__":
    main()
