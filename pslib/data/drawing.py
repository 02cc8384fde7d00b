"""From a plan to images and boxes on disk: the part of drawing that runs in worker processes.

Work is cut into batches.  A batch writes its images, then, as the last thing, one small record of its boxes: after a
kill the batches with a record are not drawn again, and no image without a record is believed.
"""

import errno
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from pslib.data.layouts import DrawnFrame, write_bytes
from pslib.data.plans import CAMERAS, Job, generator
from pslib.data.scenes import (
    Background,
    Knobs,
    Lighting,
    Person,
    Scene,
    render,
    sample_background,
    sample_lighting,
    sample_scene,
)  # fmt: skip
from pslib.errors import UserError

__all__ = ["Batch", "World", "camera_places", "disk_errors", "draw_batch", "jpeg", "read_record", "scenes_of",
           "walk"]

JPEG_QUALITY = 92


@dataclass(frozen=True)
class World:
    """What all jobs of one split share; sent to each worker once."""

    knobs: Knobs
    people: dict[int, Person]
    images: Path
    cameras: tuple[tuple[Background, Lighting], ...] = ()
    whole_pixels: bool = True  # CUHK-SYSU stores integers, PRW fractions


@dataclass(frozen=True)
class Batch:
    """Jobs drawn together, and the record that says they are done."""

    record: Path
    jobs: tuple[Job, ...]


class disk_errors:
    """Turns a full or read-only disk into one sentence."""

    def __init__(self, where: Path):
        self.where = where

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"the disk that holds {self.where} is full: free some space and give the same command again, "
                "which goes on where it stopped."
            ) from None
        if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise UserError(f"cannot write below {self.where} ({error.strerror}): give another folder.") from None


def camera_places(seed: int, knobs: Knobs) -> tuple[tuple[Background, Lighting], ...]:
    """The streets and usual lights of the six fixed cameras."""
    rng = generator(seed, "prw", "cameras")
    return tuple((sample_background(rng, knobs), sample_lighting(rng, knobs)) for _ in range(CAMERAS))


def walk(scene: Scene, steps: int, rng: np.random.Generator, knobs: Knobs) -> list[Scene]:
    """``steps`` consecutive moments about a second apart, ``scene`` in their middle: everybody goes where she looks.

    People seen from the side cross the picture; from the front they come nearer and grow, from behind they shrink.
    Everybody walks through patches of shade, so no two frames show quite the same colours.
    """
    speed = rng.uniform(0.12, 0.35, len(scene.placements))
    scenes = []
    for number in range(steps):
        step = number - (steps - 1) // 2
        moved = []
        for placement, pace in zip(scene.placements, (speed * step).tolist(), strict=True):
            x, y = placement.x, placement.y
            x += {"right": 1.0, "left": -1.0}.get(placement.view, 0.0) * pace * placement.height
            y += {"front": 0.35, "back": -0.35}.get(placement.view, 0.0) * pace * placement.height
            grown = scene.background.height_at(y) / scene.background.height_at(placement.y)
            phase = (placement.phase + 0.37 * step) % 1.0
            shade = float(knobs.shade * rng.random() ** 2)
            moved.append(replace(placement, x=x, y=y, height=placement.height * grown, phase=phase, shade=shade))
        scenes.append(replace(scene, placements=tuple(moved), noise_seed=scene.noise_seed + number))
    return scenes


def jpeg(image: np.ndarray) -> bytes:
    """Encode uint8 (H, W, 3) without subsampling the colours, which are half of what tells small people apart."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return stream.getvalue()


def scenes_of(job: Job, world: World) -> list[Scene]:
    """The scenes of a job, one for each of its names: nothing is painted yet."""
    rng = np.random.default_rng(job.seed)
    background = lighting = None
    if job.camera:
        background, usual = world.cameras[job.camera - 1]
        lighting = sample_lighting(rng, world.knobs, near=usual)
    people = [(person, world.people[person]) for person in job.people]
    scene = sample_scene(people, rng, world.knobs, background=background, lighting=lighting, size=job.size)
    return walk(scene, len(job.names), rng, world.knobs)


def _draw_job(job: Job, world: World) -> list[DrawnFrame]:
    frames = []
    for name, moment in zip(job.names, scenes_of(job, world), strict=True):
        drawn = render(moment)
        write_bytes(world.images / name, jpeg(drawn.image))
        boxes = drawn.boxes.astype(np.float64)
        if world.whole_pixels:
            boxes = np.concatenate([np.floor(boxes[:, :2]), np.ceil(boxes[:, 2:])], axis=1)
        boxes[:, 2:] -= boxes[:, :2]
        frames.append(DrawnFrame(name, boxes, drawn.person_ids, drawn.visible.astype(np.float64), job.camera))
    return frames


def draw_batch(batch: Batch, world: World) -> int:
    """Draw the jobs of a batch unless its record is there; the number of frames it holds."""
    frames = sum(len(job.names) for job in batch.jobs)
    if not batch.record.exists():
        with disk_errors(world.images):
            drawn = [frame for job in batch.jobs for frame in _draw_job(job, world)]
            write_bytes(batch.record, _record(drawn))
    return frames


def _record(frames: Sequence[DrawnFrame]) -> bytes:
    rows = [
        {
            "name": frame.name,
            "boxes": np.round(frame.boxes, 2).tolist(),
            "people": frame.person_ids.tolist(),
            "visible": np.round(frame.visible, 4).tolist(),
            "camera": frame.camera,
        }
        for frame in frames
    ]
    return json.dumps(rows).encode()


def read_record(path: Path) -> list[DrawnFrame]:
    """The frames of a finished batch."""
    return [
        DrawnFrame(
            row["name"],
            np.array(row["boxes"], np.float64).reshape(-1, 4),
            np.array(row["people"], np.int64),
            np.array(row["visible"], np.float64),
            row["camera"],
        )
        for row in json.loads(path.read_text())
    ]
