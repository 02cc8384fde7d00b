"""How a picture file becomes pixels, for data sets and for what people bring: upright, RGB, eight bits.

A phone stores a photo as its sensor lay and writes beside it how to turn it (EXIF); whoever read a box off the picture
saw it turned.  A gray PNG may have sixteen bits.  Plain pictures go the short way: decoded, nothing else.
"""

import numpy as np
from PIL import ExifTags, Image, ImageOps

__all__ = ["TOO_LARGE", "to_pixels", "upright_size"]

TOO_LARGE = "{path} has too many pixels to be decoded safely: make it smaller, or restore it from the data set."

_QUARTER_TURNS = (5, 6, 7, 8)  # orientations that change height and width over


def to_pixels(picture: Image.Image) -> np.ndarray:
    """An opened picture as it is to be seen, (H, W, 3) uint8; raises what Pillow raises for a damaged one."""
    if _orientation(picture) != 1:
        picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I;16"):  # Pillow would cut everything above 255 to white
        gray = (np.asarray(picture) >> 8).astype(np.uint8)
        return np.repeat(gray[:, :, None], 3, axis=2)
    return np.array(picture.convert("RGB"))


def upright_size(picture: Image.Image) -> tuple[int, int]:
    """(height, width) of :func:`to_pixels`, in most formats without decoding."""
    if _orientation(picture) in _QUARTER_TURNS:
        if picture.format == "TIFF":  # Pillow turns these itself when it decodes them
            picture.load()
            return picture.height, picture.width
        return picture.width, picture.height
    return picture.height, picture.width


def _orientation(picture: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) to 8; 1 where there is none, or nothing that can be read."""
    try:
        return picture.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF raises many kinds, struct.error and TypeError among them: the pixels may be whole
        return 1
