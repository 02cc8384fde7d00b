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

    def __call__(self, corners: np.ndarray, path: Path) -> tuple[np.ndarray, np.ndarray]:
        """Clip a frame's ``corners`` (N, 4) to its image at ``path``: float32 boxes (M, 4), a mask (N,) of those kept.

        What was cut or left out counts in :meth:`notes`.
        """
        boxes, good = self._clip(corners, path)
        if not (good.all() or self.drop):
            raise UserError(
                f"{path.name} has {self._told(corners[~good][0], path)}: correct the annotation, or leave such boxes "
                "out with --bad-boxes drop (in Python bad_boxes='drop')."
            )
        self.clipped += int((boxes != corners)[good].any(axis=1).sum())
        self.dropped += int((~good).sum())
        return boxes[good].astype(np.float32), good

    def one(self, corners: np.ndarray, path: Path, where: str) -> np.ndarray:
        """The box (4,) of a query or of a gallery image, clipped: float32 (4,).

        ``where`` names its line or row.  A query cannot be searched for without its box, so a bad one always raises.
        """
        boxes, good = self._clip(corners[None], path)
        if not good.all():
            raise UserError(
                f"{where} has, in {path.name}, {self._told(corners, path)}: correct it there, or restore the file."
            )
        return boxes[0].astype(np.float32)

    def _clip(self, corners: np.ndarray, path: Path) -> tuple[np.ndarray, np.ndarray]:
        if path not in self._sizes:
            self._sizes[path] = image_size(path)
        height, width = self._sizes[path]
        boxes = np.clip(corners, 0, np.array([width, height, width, height]))
        good = (corners[:, 2:] > corners[:, :2]).all(axis=1) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        return boxes, good & np.isfinite(corners).all(axis=1)

    def _told(self, corners: np.ndarray, path: Path) -> str:
        x1, y1, x2, y2 = (round(float(value), 2) for value in corners)
        height, width = self._sizes[path]
        wrong = "which has no area inside its" if np.isfinite(corners).all() else "whose numbers are not finite, in an"
        return f"the box [x={x1:g}, y={y1:g}, w={x2 - x1:g}, h={y2 - y1:g}], {wrong} image of {width}x{height} pixels"

    def notes(self) -> list[str]:
        """What happened to the boxes, in words; empty where nothing did."""
        said = [f"{self.clipped} boxes reached over the edge of their image and were cut there"] * bool(self.clipped)
        return said + [f"{self.dropped} boxes without area inside their image were left out"] * bool(self.dropped)
