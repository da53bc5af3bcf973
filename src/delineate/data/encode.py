"""Arrays -> the bytes of an image file."""

from __future__ import annotations

from io import BytesIO

import cv2
import tifffile

from delineate.errors import OutputError
from delineate.types import Image

# by suffix, the pixel types that such a file holds
_HELD = {".jpg": ("uint8",), ".jpeg": ("uint8",), ".png": ("uint8", "uint16")}


def encode_image(image: Image, suffix: str) -> bytes:
    """A JPEG or PNG where it can hold the image, else a plain TIFF.

    Args:
        image: (H, W, C).
        suffix: of the file that is wanted, ``.png``.

    Raises:
        OutputError: the format does not hold so large an image.
    """
    rgb = image.shape[2] == 3
    if image.shape[2] in (1, 3) and image.dtype.name in _HELD.get(suffix.lower(), ()):
        done, encoded = cv2.imencode(suffix, image[:, :, ::-1] if rgb else image)
        if not done:
            raise OutputError(
                f"an image of {image.shape[1]} x {image.shape[0]} px cannot be written as {suffix}",
                mend="Take a smaller one, or TIFF.",
            )
        return encoded.tobytes()
    file = BytesIO()
    photometric = "rgb" if rgb else "minisblack"
    planes = None if image.shape[2] == 1 else "contig"
    tifffile.imwrite(file, image, photometric=photometric, planarconfig=planes)
    return file.getvalue()
