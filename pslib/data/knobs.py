"""How hard the drawn world is: one frozen dataclass of knobs, each with its unit and range.

The defaults were fixed by embeddings that learn nothing (random vectors, the mean colour of the box, a six-stripe HSV
histogram); no result of a trained model chose them.
"""

from dataclasses import dataclass, fields

from pslib.errors import UserError

__all__ = ["Knobs"]

_RANGES = {
    "min_height": (8, 144), "max_height": (8, 200), "crowding": (0, 1), "occlusion": (0, 1), "look_alikes": (0, 1),
    "look_alike_changes": (1, 8), "palette": (2, 18), "saturation": (0, 1), "unlabelled": (0, 0.9),
    "clutter": (0, 1), "brightness": (0, 0.6), "contrast": (0, 0.6), "cast": (0, 0.5), "side_shadow": (0, 0.8),
    "shade": (0, 0.8), "blur": (0, 0.05), "motion": (0, 0.2), "noise": (0, 40), "min_visible": (0, 1),
}  # fmt: skip


@dataclass(frozen=True)
class Knobs:
    """Difficulty of scenes and people.  Lengths are relative, so every knob means the same at any frame size.

    Attributes:
        min_height, max_height: smallest and largest height of a person of average stature, in pixels of a frame
            144 px high (8..144 and 8..200); small heights are commoner (median 44 px by default).
        crowding: probability that a person stands close to one placed before, 0..1.
        occlusion: probability that something (pole, car, bin, hedge, bench, sign) is put before a person, 0..1.
        view_mix: weights (>= 0, not all 0) of the views front, right, back, left.
        look_alikes: share of people in :func:`~pslib.data.people.sample_people` who copy another, 0..1.
        look_alike_changes: attributes in which such a copy differs, 1..8.
        palette: number of clothing colours in use, 2..18, commonest first.
        saturation: saturation of clothes, 0 (grey) to 1 (as named).
        unlabelled: expected share of unlabelled passers-by among the people of a scene, 0..0.9.
        clutter: density of street furniture, 0..1.
        brightness, contrast: standard deviation of the log of the scene's gain and of its contrast, 0..0.6.
        cast: standard deviation of the log gain of each colour channel, 0..0.5.
        side_shadow: largest darkening of the shadow side of the frame, 0..0.8 (fraction of the light).
        shade: largest darkening of a single figure standing in shade, 0..0.8 (fraction of the light).
        blur: largest defocus of a figure, Gaussian sigma in units of its height, 0..0.05.
        motion: largest motion blur of a figure, length in units of its height, 0..0.2.
        noise: standard deviation of the sensor noise, grey levels of 255, 0..40.
        min_visible: people less visible than this fraction keep their box and lose their identity, 0..1.

    >>> Knobs(noise=3).validate().noise
    3
    >>> Knobs(crowding=2).validate()
    Traceback (most recent call last):
        ...
    pslib.errors.UserError: knob crowding is 2, outside 0..1: choose a value in that range.
    """

    min_height: float = 24
    max_height: float = 112
    crowding: float = 0.25
    occlusion: float = 0.12
    view_mix: tuple[float, float, float, float] = (1.0, 0.8, 1.0, 0.8)
    look_alikes: float = 0.3
    look_alike_changes: int = 3
    palette: int = 14
    saturation: float = 0.85
    unlabelled: float = 0.35
    clutter: float = 0.35
    brightness: float = 0.12
    contrast: float = 0.05
    cast: float = 0.05
    side_shadow: float = 0.18
    shade: float = 0.2
    blur: float = 0.012
    motion: float = 0.03
    noise: float = 3.0
    min_visible: float = 0.25

    def validate(self) -> "Knobs":
        """Return these knobs, or raise UserError naming the first one out of its range."""
        for field in fields(self):
            if field.name in _RANGES:
                low, high = _RANGES[field.name]
                value = getattr(self, field.name)
                if not low <= value <= high:
                    raise UserError(
                        f"knob {field.name} is {value}, outside {low}..{high}: choose a value in that range."
                    )
        if self.min_height > self.max_height:
            raise UserError(
                f"knob min_height is {self.min_height}, above max_height {self.max_height}: choose a smaller one."
            )
        if len(self.view_mix) != 4 or min(self.view_mix) < 0 or sum(self.view_mix) <= 0:
            raise UserError(
                f"knob view_mix is {self.view_mix}: give four weights >= 0 (front, right, back, left), not all 0."
            )
        return self
