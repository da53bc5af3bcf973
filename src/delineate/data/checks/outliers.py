"""Images that are blank, saturated, or of another kind than the rest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64

from delineate.data.checks.features import ImageFeatures
from delineate.data.checks.findings import Finding, below
from delineate.data.checks.listing import Pair

FEWEST_IMAGES = 20
"""Below this the rest says nothing about what is usual."""

LEAST_CONTRAST = 0.01
"""Standard deviation of grey values over the range of the type, and over a tenth of the usual."""

SATURATED = 0.4
"""Share of the pixels at an end of the range, above the usual share of the dataset."""

LARGEST_Z = 8.0
"""Robust z (distance from the median over 1.4826 MAD) of brightness or contrast."""

RARE = 0.05
"""More images than this share are a part of the data, not strays."""


def unusual_images(
    root: Path, pairs: Sequence[Pair], features: Sequence[ImageFeatures | None]
) -> list[Finding]:
    """Findings about single images among all; image sizes do not count."""
    read = [(p.sample.image, f) for p, f in zip(pairs, features, strict=True) if f is not None]
    if not read:
        return []
    images = [below(root, image) for image, _ in read]
    known = [f for _, f in read]
    blank = _blank(known)
    saturated, ends = _saturated(known)
    saturated &= ~blank
    findings = []
    for name, one, is_blank, end, is_saturated in zip(
        images, known, blank, ends, saturated, strict=True
    ):
        if is_blank:
            what = "every pixel has the same value" if one.constant else "shows nearly nothing"
            spread = "" if one.constant else f" (grey values spread by {one.std:.2%} of the range)"
            findings.append(
                Finding("blank", name, what + spread, "Remove the pair, or fetch the image again.")
            )
        elif is_saturated:
            share = max(one.at_floor, one.at_ceiling)
            findings.append(
                Finding(
                    "saturated",
                    name,
                    f"has {share:.0%} of its pixels at the {end} value of {one.dtype}",
                    "Export it with another exposure or scaling, or remove the pair.",
                )
            )
    return findings + _another_kind(images, known, ~blank & ~saturated)


def _blank(known: Sequence[ImageFeatures]) -> Bool[np.ndarray, " n"]:
    std = np.array([one.std for one in known])
    bounded = np.array([one.dtype != "float32" for one in known])
    low = np.where(bounded, std < LEAST_CONTRAST, True) & (std < 0.1 * float(np.median(std)))
    blank: Bool[np.ndarray, " n"] = low | np.array([one.constant for one in known])
    return blank


def _saturated(known: Sequence[ImageFeatures]) -> tuple[Bool[np.ndarray, " n"], list[str]]:
    ends = np.array([(one.at_floor, one.at_ceiling) for one in known])
    usual = np.percentile(ends, 90, axis=0) if len(known) >= FEWEST_IMAGES else np.zeros(2)
    beyond = ends - usual
    names = ["lowest" if row[0] >= row[1] else "highest" for row in ends]
    return beyond.max(axis=1) >= SATURATED, names


def _another_kind(
    images: Sequence[str], known: Sequence[ImageFeatures], considered: Bool[np.ndarray, " n"]
) -> list[Finding]:
    rest = np.flatnonzero(considered)
    if len(rest) < FEWEST_IMAGES:
        return []
    grey = np.array([known[i].grey for i in rest.tolist()])
    mean = np.array([known[i].mean for i in rest.tolist()])
    contrast = np.log(np.array([max(known[i].std, 1e-6) for i in rest.tolist()]))
    colours_rare = 0 < (~grey).mean() <= RARE
    greys_rare = 0 < grey.mean() <= RARE
    mean_z, contrast_z = _robust_z(mean, 0.02), _robust_z(contrast, 0.05)
    findings = []
    for position, index in enumerate(rest.tolist()):
        reasons = []
        if greys_rare and grey[position]:
            reasons.append("is grey, and nearly all images have colour")
        if colours_rare and not grey[position]:
            reasons.append("has colour, and nearly all images are grey")
        if mean_z[position] > LARGEST_Z:
            usual = float(np.median(mean))
            reasons.append(f"has a mean of {mean[position]:.3f}, and {usual:.3f} is usual")
        if contrast_z[position] > LARGEST_Z:
            spread, usual = known[index].std, float(np.exp(np.median(contrast)))
            reasons.append(f"has a contrast of {spread:.3f}, and {usual:.3f} is usual")
        if reasons:
            findings.append(
                Finding(
                    "another kind",
                    images[index],
                    "; ".join(reasons),
                    "Look at it: remove the pair if it was made with another device or stain, or "
                    "add more of its kind.",
                )
            )
    return findings if len(findings) <= max(1.0, RARE * len(rest)) else []


def _robust_z(values: Float64[np.ndarray, " n"], floor: float) -> Float64[np.ndarray, " n"]:
    """Distance from the median over the usual spread, which is taken as ``floor`` at least."""
    away = np.abs(values - np.median(values))
    z: Float64[np.ndarray, " n"] = away / max(1.4826 * float(np.median(away)), floor)
    return z
