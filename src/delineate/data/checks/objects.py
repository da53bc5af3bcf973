"""Object ids that do not fit the mask they lie on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from delineate.data.checks.findings import Finding, below, from_error
from delineate.data.dataset import DatasetInfo, Sample
from delineate.data.masks import read_mask
from delineate.data.palette import is_background
from delineate.errors import DelineateError
from delineate.types import InstanceMap, LabelMap
from delineate.words import plural


def check_objects(
    root: Path,
    sample: Sample,
    labels: LabelMap | None,
    hw: tuple[int, int] | None,
    info: DatasetInfo,
) -> list[Finding]:
    """What is wrong with the object ids of a sample, if it has any.

    Args:
        labels: its mask (H, W), or None where it cannot be read.
        hw: height and width of its image, or None where that cannot be read.
    """
    if sample.instances is None:
        return []
    try:
        ids = read_mask(sample.instances)
    except DelineateError as error:
        return [from_error("unreadable", root, sample.instances, error)]
    name = below(root, sample.instances)
    if hw is not None and ids.shape != hw:
        found = (
            f"is {ids.shape[1]} x {ids.shape[0]} pixels (width x height), and its image "
            f"{sample.image.name} is {hw[1]} x {hw[0]}"
        )
        mend = "Export the object ids at the size of the image, or remove the file."
        return [Finding("object size", name, found, mend)]
    if labels is None or ids.shape != labels.shape:
        return []
    return _against_mask(name, ids.astype(np.uint16, copy=False), labels, info)


def _against_mask(
    name: str, ids: InstanceMap, labels: LabelMap, info: DatasetInfo
) -> list[Finding]:
    counted = ids > 0
    if info.ignore_index is not None:
        counted &= labels != info.ignore_index
    pairs = np.unique(ids[counted].astype(np.int64) << 16 | labels[counted])
    objects, first, classes = np.unique(pairs >> 16, return_index=True, return_counts=True)
    several = objects[classes > 1].tolist()
    lone_class = pairs[first] & 0xFFFF
    with_background = is_background(info.classes[0])
    on_background = objects[(classes == 1) & (lone_class == 0) & with_background].tolist()
    findings = []
    if several:
        findings.append(
            Finding(
                "object of two classes",
                name,
                f"has {plural(len(several), 'object')} that the mask gives more than one class "
                f"({_listed(several)})",
                "Correct the mask or the object ids: an object has one class.",
            )
        )
    if on_background:
        findings.append(
            Finding(
                "object on background",
                name,
                f"has {plural(len(on_background), 'object')} that the mask calls "
                f"{info.classes[0]} ({_listed(on_background)})",
                "Label them in the mask, or set their ids to 0.",
            )
        )
    return findings


def _listed(ids: list[int]) -> str:
    some = ", ".join(map(str, ids[:8])) + (", ..." if len(ids) > 8 else "")
    return f"id{'s' if len(ids) > 1 else ''} {some}"
