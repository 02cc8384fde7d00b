"""The data of a scene: light, placements, occluders, and how one factor is exchanged."""

from dataclasses import dataclass, replace

from pslib.data.annotations import UNLABELLED
from pslib.data.canvas import Point
from pslib.data.objects import OBJECTS
from pslib.data.people import VIEWS, Person
from pslib.data.streets import Background, Occluder
from pslib.errors import UserError, require_choice

__all__ = ["Lighting", "Placement", "Scene"]


@dataclass(frozen=True)
class Lighting:
    """The light on a scene.  The defaults change nothing.

    Attributes:
        brightness: gain of all channels, about 0.4..1.8.
        contrast: factor about middle grey, about 0.5..1.5.
        cast: gain of red, green, blue, each about 0.7..1.3.
        side_shadow: darkening of the shadow side, fraction 0..0.8.
        shadow_side: "left" or "right" of the frame.
    """

    brightness: float = 1.0
    contrast: float = 1.0
    cast: tuple[float, float, float] = (1.0, 1.0, 1.0)
    side_shadow: float = 0.0
    shadow_side: str = "left"


@dataclass(frozen=True)
class Placement:
    """A person in a scene.

    Attributes:
        x, y: standing point in frame heights, from the left and from above; larger y is nearer.
        height: of the standing figure in frame heights, stature included.
        view: one of ``VIEWS``.
        phase: place in the walking cycle, 0..1.
        stride: 0 stands, 1 walks.
        blur, motion: defocus (sigma) and motion blur (length) in units of the figure's height.
        shade: light lost by standing in shade, fraction 0..0.8.
    """

    person: Person
    person_id: int
    x: float
    y: float
    height: float
    view: str = "front"
    phase: float = 0.0
    stride: float = 1.0
    blur: float = 0.0
    motion: float = 0.0
    shade: float = 0.0

    @property
    def labelled(self) -> bool:
        return self.person_id != UNLABELLED


@dataclass(frozen=True)
class Scene:
    """Everything :func:`~pslib.data.scenes.render` needs.  ``size`` is (H, W) in pixels.

    ``noise`` is a standard deviation in grey levels; ``min_visible`` the visible fraction below which a person
    loses the identity in the annotation.
    """

    size: tuple[int, int]
    background: Background
    placements: tuple[Placement, ...] = ()
    occluders: tuple[Occluder, ...] = ()
    lighting: Lighting = Lighting()
    noise: float = 0.0
    noise_seed: int = 0
    min_visible: float = 0.25

    def with_(self, *, person: int = 0, background: Background | int | None = None,
              lighting: Lighting | None = None, occluder: "Occluder | float | None" = None, view: str | None = None,
              scale: float | None = None, phase: float | None = None, position: Point | None = None,
              appearance: Person | None = None, size: tuple[int, int] | None = None) -> "Scene":  # fmt: skip
        """The scene with the named factors exchanged; every pixel they do not touch stays as it was.

        Args:
            person: index of the placement that ``occluder`` (as a number), ``view``, ``scale``, ``phase``,
                ``position`` and ``appearance`` speak of.
            background: another street; a number keeps this one's ground plane and draws other houses.
            lighting: another light (touches all pixels, no box).
            occluder: a thing to add; a number 0..1 hides that fraction of the person's height, from the feet up,
                behind a plain panel.
            view: "front", "right", "back" or "left".
            scale: factor on the figure's height, at the same standing point.
            phase: place in the walking cycle, 0..1.
            position: another standing point (x, y) in frame heights; the depth order follows y.
            appearance: another person in the same pose.
            size: another frame size in pixels.

        Raises:
            UserError: no such person, view or object kind, a scale not above 0, a fraction outside 0..1.
        """
        changes: dict[str, object] = {}
        if background is not None:
            other_street = isinstance(background, Background)
            changes["background"] = background if other_street else replace(self.background, seed=int(background))
        if lighting is not None:
            changes["lighting"] = lighting
        if size is not None:
            changes["size"] = size
        own: dict[str, object] = {}  # what changes about the one person
        if view is not None:
            own["view"] = require_choice("view", view, VIEWS)
        if phase is not None:
            own["phase"] = phase
        if appearance is not None:
            own["person"] = appearance
        if position is not None:
            own["x"], own["y"] = position
        if scale is not None:
            if not scale > 0:
                raise UserError(f"scale is {scale}: give a factor above 0, such as 0.5 for half the height.")
            own["height"] = self._placement(person).height * scale
        if own:
            changed = replace(self._placement(person), **own)
            index = person % len(self.placements)
            changes["placements"] = (*self.placements[:index], changed, *self.placements[index + 1 :])
        if isinstance(occluder, Occluder):
            require_choice("object", occluder.kind, OBJECTS)
        elif occluder is not None:
            occluder = self._cover(person, float(occluder))
        if occluder is not None:
            changes["occluders"] = (*self.occluders, occluder)
        return replace(self, **changes)

    def _placement(self, person: int) -> Placement:
        if not -len(self.placements) <= person < len(self.placements):
            raise UserError(f"there is no person {person} in a scene of {len(self.placements)}: count from 0.")
        return self.placements[person]

    def _cover(self, person: int, fraction: float) -> Occluder:
        """A panel just before a person, wide enough for any stride."""
        if not 0 <= fraction <= 1:
            raise UserError(f"the hidden fraction is {fraction}: choose a number in 0..1.")
        target = self._placement(person)
        return Occluder("panel", target.x, target.y, unit=max(1e-3, target.height * fraction),
                        width=0.8 / max(fraction, 1e-3))  # fmt: skip
