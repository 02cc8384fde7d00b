"""The one place where boxes from a file are checked against their image.

A box that reaches over the edge is cut at the edge (real annotators draw such boxes: 71 in PRW's training frames);
corners are formed *before* the cut, so the right edge stays where it was drawn.  A box without area, or wholly
outside its image, is an error, unless the caller asks to leave such boxes out.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from pslib.data.pictures import TOO_LARGE, upright_size
from pslib.errors import UserError, require_choice

__all__ = ["BoxChecker", "image_size"]


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) as :func:`pslib.data.loading.read_image` gives it, from the header: a JPEG is not decoded."""
    try:
        with Image.open(path) as image:
            return upright_size(image)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: restore it from the data set, or draw the set again.") from None
    except Image.DecompressionBombError:
        raise UserError(TOO_LARGE.format(path=path)) from None
    except (OSError, SyntaxError, ValueError):
        raise UserError(f"{path} does not decode as an image: restore it from the data set.") from None


class BoxChecker:
    """Checks and clips boxes; counts what it cut and what it left out.

    Args:
        bad_boxes: ``"raise"`` on a box without area or outside its image, or ``"drop"`` it.
    """

    def __init__(self, bad_boxes: str = "raise"):
        self.drop = require_choice("treatment of bad boxes", bad_boxes, ["raise", "drop"]) == "drop"
        self.clipped = self.dropped = 0
        self._sizes: dict[Path, tuple[int, int]] = {}

    def __call__(self, corners: np.ndarray, path: Path, ids: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Clip ``corners`` (N, 4) to the image at ``path``: float32 boxes (M, 4), and a mask (N,) of those kept.

        ``ids`` (N,) makes the box count in :meth:`notes`; queries and gallery rows pass None.
        """
        if path not in self._sizes:
            self._sizes[path] = image_size(path)
        height, width = self._sizes[path]
        boxes = np.clip(corners, 0, np.array([width, height, width, height]))
        good = (corners[:, 2:] > corners[:, :2]).all(axis=1) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        if not good.all() and not (self.drop and ids is not None):
            x1, y1, x2, y2 = (round(float(value), 2) for value in corners[np.flatnonzero(~good)[0]])
            raise UserError(
                f"{path.name} has the box [x={x1:g}, y={y1:g}, w={x2 - x1:g}, h={y2 - y1:g}], which has no area inside "
                f"its image of {width}x{height} pixels: correct the annotation, or load with bad_boxes='drop'."
            )
        if ids is not None:
            self.clipped += int((boxes != corners)[good].any(axis=1).sum())
            self.dropped += int((~good).sum())
        return boxes[good].astype(np.float32), good

    def notes(self) -> list[str]:
        """What happened to the boxes, in words; empty where nothing did."""
        said = [f"{self.clipped} boxes reached over the edge of their image and were cut there"] * bool(self.clipped)
        return said + [f"{self.dropped} boxes without area inside their image were left out"] * bool(self.dropped)
