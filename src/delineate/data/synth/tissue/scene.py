"""A section of tissue as it would look under the microscope, with its exact mask."""

from __future__ import annotations

from typing import TypeAlias

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from delineate.data.synth.dataset import Scene
from delineate.data.synth.fields import Plane, fibres, smooth_field
from delineate.data.synth.tissue import nuclei as cells
from delineate.data.synth.tissue.appearance import Appearance, photograph
from delineate.data.synth.tissue.layout import (
    BACKGROUND,
    GLAND,
    STROMA,
    TUMOUR,
    Layout,
    fill,
    lay_out,
)
from delineate.errors import SettingsError

SMALLEST_PX = 64
LARGEST_PX = 16384
# Mean concentration of both stains in every kind of tissue: no class is told by its mean colour
MEAN_HAEMATOXYLIN = 0.46
MEAN_EOSIN = 0.46

ByteMap: TypeAlias = UInt8[np.ndarray, "h w"]


def render_tissue(
    seed: int, height: int, width: int, appearance: Appearance, *, instances: bool = False
) -> Scene:
    """One image of tissue and its mask, the same for the same arguments.

    Args:
        seed: a whole number from 0; it decides the scene and the sensor's noise.
        height: pixels, at 0.5 um each.
        width: pixels.
        appearance: stain and scanner.
        instances: number the glands and the tumour nests too.

    Returns:
        The image, and the mask of 0 background (bare glass), 1 stroma, 2 gland (with its lumen)
        and 3 tumour.

    Raises:
        SettingsError: a side is out of 64 to 16384 px, or the seed is negative.
    """
    for name, side in (("height", height), ("width", width)):
        if not SMALLEST_PX <= side <= LARGEST_PX:
            raise SettingsError(
                f"{name} is {side} px",
                mend=f"Use {SMALLEST_PX} to {LARGEST_PX}.",
            )
    if seed < 0:
        raise SettingsError(f"seed is {seed}", mend="Use 0 or more.")
    rng = np.random.Generator(np.random.PCG64(seed))
    layout = lay_out(rng, (height, width))
    haematoxylin, eosin = _stain(rng, layout)
    image = photograph(haematoxylin, eosin, appearance, rng)
    return Scene(image, layout.labels, layout.instances() if instances else None)


def _stain(rng: np.random.Generator, layout: Layout) -> tuple[Plane, Plane]:
    """Concentrations of haematoxylin and eosin, (H, W) each, from 0 to about 1.6."""
    labels = layout.labels
    hw = (labels.shape[0], labels.shape[1])
    nucleus = np.zeros(hw, np.uint8)
    malignant = cells.of_tumour(rng, layout)
    for population in (cells.of_stroma(rng, layout), cells.of_glands(rng, layout), malignant):
        cells.draw(nucleus, population, rng)
    spots = np.zeros(hw, np.uint8)
    cells.draw(spots, cells.nucleoli(rng, malignant), rng)

    haematoxylin, eosin = _matrix(rng, layout)
    grain = cv2.GaussianBlur(rng.standard_normal(hw, dtype=np.float32), (0, 0), 1.1)
    empty = _empty(rng, layout)
    eosin += 0.22 * _membranes(nucleus, labels)
    covered = nucleus.astype(np.float32) / 255
    # The envelope is darker than the inside: what a blur takes from the edge is added to it
    rim = covered - cv2.GaussianBlur(covered, (0, 0), 2.5)
    dense = covered * (1.25 + 0.9 * grain) + 0.5 * np.maximum(rim, 0)
    dense += covered * spots.astype(np.float32) * (0.5 / 255)
    within = np.minimum(covered * 1.5, 1)
    haematoxylin += (dense - haematoxylin) * within
    eosin += (0.22 - eosin) * within
    for stain, mean in ((haematoxylin, MEAN_HAEMATOXYLIN), (eosin, MEAN_EOSIN)):
        _level(stain, labels, within, empty, mean)
        stain *= 1 - empty
        np.clip(stain, 0, 2, out=stain)
    thickness = 1 + 0.10 * smooth_field(rng, hw, 150.0)
    haematoxylin *= thickness
    eosin *= 1 + 0.14 * smooth_field(rng, hw, 110.0)
    np.maximum(eosin, 0, out=eosin)
    return haematoxylin, eosin


def _matrix(rng: np.random.Generator, layout: Layout) -> tuple[Plane, Plane]:
    """What lies between the nuclei: collagen fibres, or cytoplasm."""
    labels = layout.labels
    hw = (labels.shape[0], labels.shape[1])
    strands = fibres(rng, layout.cosine, layout.sine)
    granules = cv2.GaussianBlur(rng.standard_normal(hw, dtype=np.float32), (0, 0), 1.6) * 3
    patches = smooth_field(rng, hw, 26.0)
    cytoplasm = 0.05 * granules + 0.07 * patches
    eosin = np.where(labels == STROMA, 0.17 * strands, cytoplasm) + np.float32(0.5)
    haematoxylin = np.where(labels == STROMA, 0.05 * strands, -0.03 * patches) + np.float32(0.2)
    return haematoxylin.astype(np.float32), eosin.astype(np.float32)


def _membranes(nucleus: ByteMap, labels: ByteMap) -> Plane:
    """Where cells meet, 0 to 1: half way between the nuclei of epithelium and of tumour."""
    outside = (nucleus < 64).astype(np.uint8)
    _, owner = cv2.distanceTransformWithLabels(
        outside, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_CCOMP
    )
    line = np.zeros(labels.shape, np.uint8)
    line[:, 1:] |= owner[:, 1:] != owner[:, :-1]
    line[1:] |= owner[1:] != owner[:-1]
    line *= 255 * ((labels == TUMOUR) | (labels == GLAND)).astype(np.uint8)
    return cv2.GaussianBlur(line, (0, 0), 1.3).astype(np.float32) / 255


def _empty(rng: np.random.Generator, layout: Layout) -> Float32[np.ndarray, "h w"]:
    """How empty each pixel is, 0 to 1: glass, lumina, and clefts that shrinkage leaves."""
    labels = layout.labels
    hw = (labels.shape[0], labels.shape[1])
    holes = np.zeros(hw, np.uint8)
    holes[labels == BACKGROUND] = 250
    for gland in layout.glands:
        fill(holes, gland.at(gland.lumen), int(rng.integers(205, 250)))
    clefts = smooth_field(rng, hw, 14.0)
    clefts += 0.6 * smooth_field(rng, hw, 60.0)
    cleft = np.clip((clefts - 2.35) * 3, 0, 0.9) * ((labels == STROMA) | (labels == TUMOUR))
    soft = cv2.GaussianBlur(holes, (0, 0), 1.2).astype(np.float32) / 255
    return np.asarray(np.maximum(soft, cleft), np.float32)


def _level(
    stain: Plane,
    labels: ByteMap,
    within: Plane,
    empty: Plane,
    mean: float,
) -> None:
    """Tint the matrix of each class so that the class's mean concentration is ``mean``.

    Crowded nuclei alone would make tumour bluer than stroma; a threshold could then find it.
    """
    for label in (STROMA, GLAND, TUMOUR):
        there = (labels == label) & (empty < 0.3)
        count = int(there.sum())
        if not count:
            continue
        matrix = (1 - within) * there
        share = float(matrix.sum(dtype=np.float64)) / count
        lack = mean - float(stain[there].mean(dtype=np.float64))
        stain += matrix * np.float32(lack / max(share, 0.3))
