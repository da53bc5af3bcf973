"""How a section was stained and photographed: Beer-Lambert stain mixing and a simple scanner.

The optical density of a stain is its concentration times its colour vector (Ruifrok and Johnston,
2001), and the light that passes is ``10 ** -density``; natural exponents are used here, the factor
is part of the concentration.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TypeAlias

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

Plane: TypeAlias = Float32[np.ndarray, "h w"]
Range: TypeAlias = tuple[float, float]
Vector: TypeAlias = tuple[float, float, float]

BAND_ROWS = 256


@dataclass(frozen=True)
class Appearance:
    """Stain and scanner of one image.

    Attributes:
        haematoxylin: optical density of the nuclear stain in red, green and blue, for
            concentration 1.
        eosin: the same of the stain of cytoplasm and fibres.
        haematoxylin_strength: factor on the concentration of haematoxylin.
        eosin_strength: factor on the concentration of eosin.
        white_balance: gain of red, green and blue; empty glass is 245 times this.
        shading: how much darker the corners are than the centre, share of the range.
        blur_px: sigma of the lens, pixels.
        noise: sigma of the sensor's noise, share of the range.
        jpeg_quality: quality of the JPEG that the scanner stored, 1 to 100.
    """

    haematoxylin: Vector = (0.64, 0.72, 0.28)
    eosin: Vector = (0.10, 0.90, 0.32)
    haematoxylin_strength: float = 1.0
    eosin_strength: float = 1.0
    white_balance: Vector = (1.0, 1.0, 1.0)
    shading: float = 0.0
    blur_px: float = 0.7
    noise: float = 0.01
    jpeg_quality: int = 90


@dataclass(frozen=True)
class AppearanceRanges:
    """From where to where each number of an :class:`Appearance` is drawn, uniformly."""

    haematoxylin_red: Range
    haematoxylin_green: Range
    haematoxylin_blue: Range
    eosin_red: Range
    eosin_green: Range
    eosin_blue: Range
    haematoxylin_strength: Range
    eosin_strength: Range
    gain_red: Range
    gain_blue: Range
    shading: Range
    blur_px: Range
    noise: Range
    jpeg_quality: Range

    def draw(self, rng: np.random.Generator) -> Appearance:
        """One appearance; takes one number from ``rng`` for each field, in their order."""
        value = {f.name: float(rng.uniform(*getattr(self, f.name))) for f in fields(self)}
        return Appearance(
            haematoxylin=(
                value["haematoxylin_red"],
                value["haematoxylin_green"],
                value["haematoxylin_blue"],
            ),
            eosin=(value["eosin_red"], value["eosin_green"], value["eosin_blue"]),
            haematoxylin_strength=value["haematoxylin_strength"],
            eosin_strength=value["eosin_strength"],
            white_balance=(value["gain_red"], 1.0, value["gain_blue"]),
            shading=value["shading"],
            blur_px=value["blur_px"],
            noise=value["noise"],
            jpeg_quality=round(value["jpeg_quality"]),
        )


TRAINED = AppearanceRanges(
    haematoxylin_red=(0.58, 0.69),
    haematoxylin_green=(0.66, 0.76),
    haematoxylin_blue=(0.22, 0.33),
    eosin_red=(0.055, 0.14),
    eosin_green=(0.83, 0.97),
    eosin_blue=(0.22, 0.39),
    haematoxylin_strength=(0.80, 1.18),
    eosin_strength=(0.75, 1.18),
    gain_red=(0.95, 1.04),
    gain_blue=(0.95, 1.03),
    shading=(0.0, 0.05),
    blur_px=(0.4, 1.0),
    noise=(0.004, 0.014),
    jpeg_quality=(80.0, 95.0),
)

# Every range lies beside the trained one and shares no value with it: a bluer haematoxylin, a
# more orange eosin, both stronger; a cooler lamp, a softer lens, a noisier sensor, smaller files.
HELD_OUT = AppearanceRanges(
    haematoxylin_red=(0.54, 0.57),
    haematoxylin_green=(0.77, 0.80),
    haematoxylin_blue=(0.34, 0.37),
    eosin_red=(0.03, 0.05),
    eosin_green=(0.79, 0.82),
    eosin_blue=(0.40, 0.44),
    haematoxylin_strength=(1.20, 1.28),
    eosin_strength=(1.20, 1.28),
    gain_red=(0.92, 0.94),
    gain_blue=(1.04, 1.06),
    shading=(0.06, 0.09),
    blur_px=(1.1, 1.3),
    noise=(0.016, 0.020),
    jpeg_quality=(65.0, 78.0),
)


def photograph(
    haematoxylin: Plane, eosin: Plane, appearance: Appearance, rng: np.random.Generator
) -> UInt8[np.ndarray, "h w 3"]:
    """The picture, (H, W, 3) uint8 RGB, of two stain concentrations, (H, W) float32 from 0.

    In the order of a real one: absorption, lens, lamp and colour balance, sensor noise, JPEG.
    """
    height, width = haematoxylin.shape
    vectors = np.array(
        [
            np.multiply(appearance.haematoxylin, appearance.haematoxylin_strength),
            np.multiply(appearance.eosin, appearance.eosin_strength),
        ],
        np.float32,
    )
    gain = (245.0 * np.asarray(appearance.white_balance)).astype(np.float32)
    across = np.linspace(-1, 1, width, dtype=np.float32)[None, :] ** 2
    picture = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, BAND_ROWS):
        # Bands keep the float copies small; the blur needs rows from beyond the band
        halo = 8
        first, last = max(0, top - halo), min(height, top + BAND_ROWS + halo)
        stains = np.stack([haematoxylin[first:last], eosin[first:last]], axis=-1)
        passed = np.exp(-(stains.reshape(-1, 2) @ vectors)).reshape(last - first, width, 3)
        light = np.asarray(cv2.GaussianBlur(passed, (0, 0), appearance.blur_px), np.float32)
        light = light[top - first : top - first + BAND_ROWS]
        rows = np.arange(top, top + len(light), dtype=np.float32)
        down = (rows[:, None] * (2.0 / max(height - 1, 1)) - 1) ** 2
        lamp = 1 - (appearance.shading / 2) * (across + down)
        light *= lamp[:, :, None]
        light *= gain
        grain = rng.standard_normal(light.shape, dtype=np.float32)
        light += grain * np.float32(255 * appearance.noise)
        np.clip(light, 0, 255, out=light)
        picture[top : top + len(light)] = np.rint(light)
    return _through_jpeg(picture, appearance.jpeg_quality)


def _through_jpeg(picture: UInt8[np.ndarray, "h w 3"], quality: int) -> UInt8[np.ndarray, "h w 3"]:
    ordered = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", ordered, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)
