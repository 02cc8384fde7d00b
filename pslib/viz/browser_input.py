"""What somebody clicked, typed, drew or opened in the query browser, checked: every mistake is one sentence."""

import base64
import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pslib.data.pictures import to_pixels
from pslib.errors import UserError
from pslib.viz.figures import to_array

__all__ = ["MAX_PIXELS", "box_in_image", "data_uri", "open_picture", "parse_box", "person_at"]

MAX_PIXELS = 25_000_000  # a larger picture takes minutes and gigabytes on a laptop
_MIN_SIDE = 4.0  # px; nobody can be seen in less


def person_at(boxes: Sequence[Sequence[float]], x: float, y: float) -> int:
    """The place of the smallest of ``boxes`` (N, 4) xyxy that holds the point; the first of equal ones.

    >>> person_at([[0, 0, 50, 90], [10, 10, 20, 40]], 15, 20)
    1
    >>> person_at([[0, 0, 50, 90]], 60, 20)
    Traceback (most recent call last):
        ...
    pslib.errors.UserError: nobody is boxed at x=60, y=20: click inside a box, or drag a box of your own.
    """
    every = np.asarray(boxes, float).reshape(-1, 4)
    if not len(every):
        raise UserError("this frame has no box to click, nobody was detected or annotated: drag a box of your own.")
    inside = ((every[:, :2] <= (x, y)) & (every[:, 2:] >= (x, y))).all(axis=1)
    if not inside.any():
        raise UserError(f"nobody is boxed at x={x:.0f}, y={y:.0f}: click inside a box, or drag a box of your own.")
    areas = (every[:, 2:] - every[:, :2]).prod(axis=1)
    return int(np.where(inside, areas, np.inf).argmin())


def parse_box(text: str) -> list[float]:
    """``"x, y, w, h"`` in px as xyxy.

    >>> parse_box("10, 20, 30 40")
    [10.0, 20.0, 40.0, 60.0]
    >>> parse_box("10, 20")
    Traceback (most recent call last):
        ...
    pslib.errors.UserError: '10, 20' is no box: type four numbers, x, y, width, height in pixels.
    """
    parts = [part for part in re.split(r"[,;\s]+", text.strip()) if part]
    try:
        x, y, width, height = (float(part) for part in parts)
    except ValueError:
        raise UserError(f"{text!r} is no box: type four numbers, x, y, width, height in pixels.") from None
    return [x, y, x + width, y + height]


def box_in_image(box: Sequence[float], size: tuple[int, int]) -> list[float]:
    """``box`` (xyxy px) cut to an image of ``size`` (height, width); UserError if too little of it is left.

    >>> box_in_image([-5, 10, 20, 50], (40, 60))
    [0.0, 10.0, 20.0, 40.0]
    """
    height, width = size
    x1, y1, x2, y2 = (float(side) for side in box)
    cut = [max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))]
    if not np.isfinite(cut).all() or cut[2] - cut[0] < _MIN_SIDE or cut[3] - cut[1] < _MIN_SIDE:
        raise UserError(f"the box x={x1:g}, y={y1:g}, w={x2 - x1:g}, h={y2 - y1:g} covers less than "
                        f"{_MIN_SIDE:g} x {_MIN_SIDE:g} px of the image of {width} x {height} px: "
                        "draw it around a person.")
    return cut


def open_picture(source: Path | str | bytes, name: str = "") -> np.ndarray:
    """An image file, or the bytes of one called ``name``, as (H, W, 3) uint8, turned upright where its EXIF says how.

    The size is read from the header, so that a picture of more than :data:`MAX_PIXELS` is refused undecoded.
    """
    if isinstance(source, bytes):
        shown, opened = name or "the uploaded file", io.BytesIO(source)
    else:
        shown = opened = str(source).strip()
        if not shown:
            raise UserError("no image file is named: type its path, or upload one.")
        if not Path(shown).is_file():
            raise UserError(f"there is no file {shown}: correct the path.")
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # our own check comes first and speaks plainly
    try:
        with Image.open(opened) as picture:
            width, height = picture.size
            if width * height > MAX_PIXELS:
                raise UserError(f"{shown} has {width * height / 1e6:.0f} megapixels, at most {MAX_PIXELS / 1e6:.0f} "
                                "are read: make it smaller.")
            return to_pixels(picture)
    except (OSError, SyntaxError, ValueError):
        raise UserError(f"{shown} is no image that can be read: give a JPEG or PNG file.") from None
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def data_uri(image: object, width: int | None = None, quality: int = 85) -> str:
    """The picture as a JPEG data URI, at most ``width`` px wide."""
    picture = Image.fromarray(to_array(image))
    if width is not None and picture.width > width:
        picture = picture.resize((width, max(1, round(picture.height * width / picture.width))))
    packed = io.BytesIO()
    picture.save(packed, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(packed.getvalue()).decode()
