"""How large the drawn sets are: one frozen dataclass a profile, sizes and difficulty, nothing else.

``paper-layout`` is no profile of drawn people: :mod:`pslib.data.paper_layout` writes it.
"""

from dataclasses import dataclass, field

from pslib.data.knobs import Knobs
from pslib.errors import UserError, require_choice

__all__ = ["PROFILES", "Profile", "SplitSize", "profile_named"]


@dataclass(frozen=True)
class SplitSize:
    """People and scenes of one split; both layouts hold as many of each."""

    people: int
    scenes: int


@dataclass(frozen=True)
class Profile:
    """The sizes of the drawn sets.

    Attributes:
        name: what ``--profile`` calls it.
        seed: every random choice of the four sets comes from it.
        cuhk_sizes: frame sizes (height, width) of the CUHK-SYSU layout, the first one twice as often.
        prw_sizes: frame sizes of PRW's cameras 1 to 5, and of camera 6.
        train, validation, test: sizes of the splits, the same for both layouts.
        sightings: scenes in which each person of (train, validation, test) is drawn, CUHK-SYSU layout.
        walks: walks of each person, PRW layout; each under another camera.
        walk_frames: frames of one walk.
        queries_per_person: queries for each validation and test person.
        gallery_sizes: protocols TestG<size> that are written where the pool is large enough.
        knobs: difficulty of the drawn world; ``prw_knobs`` where cameras are fixed.
    """

    name: str
    seed: int
    cuhk_sizes: tuple[tuple[int, int], ...]
    prw_sizes: tuple[tuple[int, int], tuple[int, int]]
    train: SplitSize
    validation: SplitSize
    test: SplitSize
    sightings: tuple[int, int, int] = (8, 8, 8)
    walks: int = 3
    walk_frames: int = 3
    queries_per_person: int = 2
    gallery_sizes: tuple[int, ...] = (50, 100, 500, 1000, 2000, 4000)
    knobs: Knobs = field(default_factory=Knobs)
    prw_knobs: Knobs = field(default_factory=Knobs)


PROFILES = {
    "tiny": Profile(
        name="tiny",
        seed=20,
        cuhk_sizes=((144, 224), (144, 192), (128, 224)),
        prw_sizes=((144, 224), (128, 160)),
        train=SplitSize(people=640, scenes=1920),
        validation=SplitSize(people=60, scenes=220),
        test=SplitSize(people=150, scenes=600),
        gallery_sizes=(50, 100, 200, 500),
        # Light and cast by `pslib data difficulty`: in the middle of its bands, not at their edge.
        knobs=Knobs(cast=0.05, brightness=0.1),
        prw_knobs=Knobs(cast=0.1, brightness=0.12, contrast=0.08, shade=0.3, side_shadow=0.4),
    ),
    "small": Profile(
        name="small",
        seed=21,
        cuhk_sizes=((288, 448), (288, 384), (256, 448)),
        prw_sizes=((288, 448), (256, 320)),
        train=SplitSize(people=2400, scenes=7200),
        validation=SplitSize(people=150, scenes=550),
        test=SplitSize(people=500, scenes=2000),
        knobs=Knobs(look_alikes=0.5, palette=10, occlusion=0.35, crowding=0.5),
        prw_knobs=Knobs(look_alikes=0.5, palette=10, occlusion=0.35, crowding=0.5),
    ),
}


def profile_named(name: str) -> Profile:
    """The profile called ``name``, or UserError with the nearest name.

    >>> profile_named("tiny").test
    SplitSize(people=150, scenes=600)
    """
    require_choice("profile", name, [*PROFILES, "paper-layout"])
    if name not in PROFILES:
        raise UserError("profile 'paper-layout' draws no people: choose tiny or small.")
    return PROFILES[name]
