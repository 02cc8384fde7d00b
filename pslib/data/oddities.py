"""The released sets' known oddities, planted in drawn sets on request, so that the readers meet them in tests."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pslib.data.annotations import UNLABELLED
from pslib.data.layouts import DrawnFrame

__all__ = ["add_cuhk_oddities", "add_prw_oddities"]


def _twice(frame: DrawnFrame, boxes_apart: float) -> DrawnFrame:
    """The first labelled person annotated a second time, a little beside her first box."""
    row = int(np.flatnonzero(frame.person_ids != UNLABELLED)[0])
    again = frame.boxes[row] + np.array([boxes_apart, 0, 0, 0])
    return replace(
        frame,
        boxes=np.concatenate([frame.boxes, again[None]]),
        person_ids=np.append(frame.person_ids, frame.person_ids[row]),
        visible=np.append(frame.visible, frame.visible[row]),
    )


def _first_with_people(frames: Sequence[DrawnFrame]) -> int:
    return next(index for index, frame in enumerate(frames) if (frame.person_ids != UNLABELLED).any())


def add_cuhk_oddities(frames: Sequence[DrawnFrame]) -> list[DrawnFrame]:
    """Every fifth image with people shows one of them twice; repeated images are the protocols' part."""
    with_people = [index for index, frame in enumerate(frames) if (frame.person_ids != UNLABELLED).any()]
    chosen = set(with_people[::5])
    return [_twice(frame, 1) if index in chosen else frame for index, frame in enumerate(frames)]


def add_prw_oddities(frames: Sequence[DrawnFrame]) -> list[DrawnFrame]:
    """One person twice in one frame, and every box that touches the left edge pulled three pixels beyond it."""
    changed = []
    for frame in frames:
        beyond = np.where(frame.boxes[:, :1] < 1, np.array([[-3.0, 0, 3.0, 0]]), 0.0)
        changed.append(replace(frame, boxes=frame.boxes + beyond))
    where = _first_with_people(changed)
    changed[where] = _twice(changed[where], 0.5)
    return changed
