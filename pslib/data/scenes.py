"""A scene is data: who stands where on which street in which light; :func:`render` turns it into pixels and boxes.

All lengths are relative to the frame's height, so one scene renders at any size.  Whatever touches pixels keeps to
its place, so that :meth:`Scene.with_` changes one factor and nothing else:

* figures and occluders are drawn on tiles of their own, blurred there, and laid over each other by depth;
* light is a function of a pixel's value and position; noise of its position and the scene's noise seed.

Nothing is blurred, compressed or normalised over the whole frame.  The one exception is in the nature of the thing:
a change of lighting touches every pixel (its boxes and visible fractions stay).
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from PIL import Image, ImageFilter

from pslib.data.figures import draw_person, figure_tile
from pslib.data.knobs import Knobs
from pslib.data.objects import OBJECTS, draw_object, object_tile
from pslib.data.people import VIEWS, Person, look_alike, sample_people, sample_person
from pslib.data.sampling import sample_crop, sample_lighting, sample_scene
from pslib.data.stage import Lighting, Placement, Scene
from pslib.data.streets import Background, Occluder, furniture, paint_background, sample_background

__all__ = [
    "GENERATOR_VERSION", "OBJECTS", "VIEWS", "Background", "Knobs", "Lighting", "Occluder", "Person", "Placement",
    "Rendered", "Scene", "draw_object", "draw_person", "furniture", "look_alike", "paint_background", "render",
    "render_crop", "sample_background", "sample_crop", "sample_lighting", "sample_people", "sample_person",
    "sample_scene",
]  # fmt: skip

GENERATOR_VERSION = 1  # raise it with every change that moves a pixel or a box


@dataclass(frozen=True, eq=False)
class Rendered:
    """A drawn scene.  N counts the annotated people, in the order of ``scene.placements``."""

    image: np.ndarray  # (H, W, 3) uint8
    boxes: np.ndarray  # (N, 4) float32 xyxy, whole body, clipped to the image
    person_ids: np.ndarray  # (N,) int64, UNLABELLED (-1) for passers-by and for people hardly visible
    visible: np.ndarray  # (N,) float32, fraction of the figure's own pixels that show
    placements: np.ndarray  # (N,) int64, index into scene.placements
    owner: np.ndarray  # (H, W) int16, placement that alone fills the pixel, -1 elsewhere


# people of whom less shows than this have no box at all: no annotator would see them
_UNSEEN = 0.08


def _blurred(tile: Image.Image, sigma: float, motion: float) -> Image.Image:
    """Defocus, and motion along x, of a premultiplied tile; both stay on the tile."""
    if sigma > 0.3:
        tile = tile.filter(ImageFilter.GaussianBlur(sigma))
    if motion > 0.6:
        tile = tile.filter(ImageFilter.BoxBlur((motion / 2, 0)))
    return tile


@lru_cache(maxsize=64)
def _shadow(width: int, height: int) -> np.ndarray:
    """A soft ellipse, (height, width), 1 in its middle."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    radius = ((x + 0.5) / width * 2 - 1) ** 2 + ((y + 0.5) / height * 2 - 1) ** 2
    return np.clip(1.15 * (1 - radius), 0, 1).astype(np.float32)


def _overlap(left: int, top: int, shape: tuple[int, int], size: tuple[int, int]):
    """The slices of a frame and of a tile laid at (left, top) that cover each other, or None."""
    y1, x1 = max(0, top), max(0, left)
    y2, x2 = min(size[0], top + shape[0]), min(size[1], left + shape[1])
    if y2 <= y1 or x2 <= x1:
        return None
    return (slice(y1, y2), slice(x1, x2)), (slice(y1 - top, y2 - top), slice(x1 - left, x2 - left))


def _darken(pixels: np.ndarray, x: float, y: float, half: float, strength: float) -> None:
    """The ground shadow of something ``half`` pixels wide on either side that stands at pixel (x, y)."""
    wide, high = max(3, int(round(half * 2))), max(3, int(round(half * 0.5)))
    left, top = int(round(x - wide / 2)), int(round(y - high / 2))
    both = _overlap(left, top, (high, wide), pixels.shape[:2])
    if both:
        pixels[both[0]] *= 1 - strength * _shadow(wide, high)[both[1]][..., None]


@lru_cache(maxsize=2)  # a scene and its variations share their noise
def _noise(seed: int, size: tuple[int, int]) -> np.ndarray:
    """Sensor noise of unit strength: fine in brightness, in 4 x 4 blocks in colour, as compression leaves it."""
    rng = np.random.default_rng(seed)
    height, width = size
    fine = rng.standard_normal((height, width, 1), dtype=np.float32)
    colour = rng.standard_normal((-(-height // 4), -(-width // 4), 3), dtype=np.float32)
    blocks = colour.repeat(4, axis=0).repeat(4, axis=1)[:height, :width]
    return fine + 0.4 * blocks


def _lit(pixels: np.ndarray, lighting: Lighting) -> np.ndarray:
    """Contrast about middle grey, gain by channel, the shadow side of the frame; changes ``pixels``."""
    gain = np.array(lighting.cast, np.float32) * lighting.brightness
    gain = gain * lighting.contrast
    pixels += 118.0 / lighting.contrast - 118.0
    if lighting.side_shadow:
        width = pixels.shape[1]
        ramp = (np.arange(width, dtype=np.float32) + 0.5) / width
        ramp = ramp if lighting.shadow_side == "right" else 1 - ramp
        # smooth step about the middle: one side of the street lies in the shade
        ramp = np.clip(ramp * 2.4 - 0.7, 0, 1)
        gain = (1 - lighting.side_shadow * ramp * ramp * (3 - 2 * ramp))[None, :, None] * gain
    pixels *= gain.astype(np.float32)
    return pixels


def render(scene: Scene) -> Rendered:
    """Draw a scene.  The same scene gives the same bytes.

    >>> rng = np.random.default_rng(0)
    >>> scene = sample_scene([(7, sample_person(rng))], rng, Knobs(), unlabelled=())
    >>> drawn = render(scene)
    >>> drawn.image.shape, drawn.boxes.shape, drawn.person_ids.tolist()
    ((144, 224, 3), (1, 4), [7])
    """
    height, width = scene.size
    pixels = paint_background(scene.background, scene.size).astype(np.float32)
    owner = np.full(scene.size, -1, np.int16)
    layers = [(p.y, index, p) for index, p in enumerate(scene.placements)]
    layers += [(o.y, len(scene.placements) + index, o) for index, o in enumerate(scene.occluders)]
    boxes, showing = {}, {}
    for _, index, thing in sorted(layers, key=lambda layer: layer[:2]):
        x, y = thing.x * height, thing.y * height
        column, row = int(np.floor(x)), int(np.floor(y))
        offset = (round((x - column) * 8) / 8, round((y - row) * 8) / 8)
        if isinstance(thing, Placement):
            body = thing.height * height
            tile, (ax, ay) = figure_tile(thing.person, body, thing.view, thing.phase, thing.stride, offset)
            own = np.asarray(tile.getchannel(3), np.float32) / 255
            tile = _blurred(tile, thing.blur * body, thing.motion * body)
            _darken(pixels, x, y, body * 0.2, 0.45)
        else:
            tile, (ax, ay) = object_tile(thing.kind, thing.unit * height, thing.seed, thing.width, offset)
            _darken(pixels, x, y, OBJECTS[thing.kind][0] * thing.unit * height * thing.width * 0.8, 0.4)
        left, top = column - ax, row - ay
        both = _overlap(left, top, (tile.height, tile.width), scene.size)
        if isinstance(thing, Placement):
            rows, columns = np.nonzero(own.max(1) >= 0.5)[0], np.nonzero(own.max(0) >= 0.5)[0]
            if both is None or not len(rows) or not len(columns):
                continue
            box = (left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1)
            boxes[index] = np.clip(box, 0, (width, height, width, height))
        elif both is None:
            continue
        frame, part = both
        layer = np.asarray(tile)[part].astype(np.float32)
        alpha = layer[..., 3:] / 255
        light = 1 - thing.shade if isinstance(thing, Placement) else 1.0
        pixels[frame] = pixels[frame] * (1 - alpha) + layer[..., :3] * light
        owner[frame][alpha[..., 0] > 0] = -1
        for _, mask, where in showing.values():
            dx, dy = frame[1].start - where[1].start, frame[0].start - where[0].start
            hit = _overlap(dx, dy, alpha.shape[:2], mask.shape)
            if hit:
                mask[hit[0]] *= 1 - alpha[..., 0][hit[1]]
        if isinstance(thing, Placement):
            owner[frame][alpha[..., 0] == 1] = index
            showing[index] = (float(own.sum()), own[part].copy(), frame)
    pixels = _lit(pixels, scene.lighting)
    if scene.noise:
        pixels += np.float32(scene.noise) * _noise(scene.noise_seed, scene.size)
    pixels += 0.5
    image = np.clip(pixels, 0, 255, out=pixels).astype(np.uint8)
    visible = {index: float(mask.sum()) / total for index, (total, mask, _) in showing.items()}
    kept = [index for index in sorted(boxes) if visible[index] >= _UNSEEN]
    ids = [scene.placements[i].person_id if visible[i] >= scene.min_visible else -1 for i in kept]
    return Rendered(
        image=image,
        boxes=np.array([boxes[i] for i in kept], np.float32).reshape(-1, 4),
        person_ids=np.array(ids, np.int64),
        visible=np.array([visible[i] for i in kept], np.float32),
        placements=np.array(kept, np.int64),
        owner=owner,
    )


def render_crop(scene: Scene, size: tuple[int, int]) -> np.ndarray:
    """A scene of :func:`sample_crop` as uint8 (H, W, 3) of that size: one person or one object before a street."""
    return render(replace(scene, size=size)).image
