"""Scenes: deterministic, true to their own geometry, and changed one factor at a time."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pslib.data import scenes
from pslib.data.annotations import UNLABELLED
from pslib.data.people import (
    BAGS,
    HAIR_STYLES,
    HATS,
    LOWER_KINDS,
    PATTERNS,
    UPPER_KINDS,
    Garment,
)
from pslib.data.scenes import (
    OBJECTS,
    VIEWS,
    Background,
    Knobs,
    Lighting,
    Occluder,
    Placement,
    Scene,
    draw_object,
    draw_person,
    furniture,
    look_alike,
    render,
    render_crop,
    sample_background,
    sample_crop,
    sample_lighting,
    sample_people,
    sample_person,
    sample_scene,
)
from pslib.errors import UserError

RNG = np.random.default_rng


def some_scene(seed: int, people: int = 3, **keywords) -> Scene:
    rng = RNG(seed)
    return sample_scene([(10 + k, sample_person(rng)) for k in range(people)], rng, **keywords)


def one_person(height: float = 0.6, x: float = 0.7, y: float = 0.9, view: str = "front", **keywords) -> Scene:
    """One person, plainly lit, no noise: the scenes that can be worked out by hand."""
    person = replace(sample_person(RNG(4)), stature=1.0, build=1.0, hat="none", bag="none")
    return Scene((144, 224), Background(5), (Placement(person, 7, x, y, height, view=view, stride=0.0),), **keywords)


# ---- data ----------------------------------------------------------------------------------------------------


def test_same_seed_same_bytes():
    for seed in range(4):
        first, second = some_scene(seed), some_scene(seed)
        assert first == second
        one = render(first)
        for kept in (scenes._noise, scenes._shadow, scenes.paint_background, scenes.object_tile):
            kept.cache_clear()
        two = render(second)
        for field in fields(one):
            assert np.array_equal(getattr(one, field.name), getattr(two, field.name))
    assert not np.array_equal(render(some_scene(0)).image, render(some_scene(1)).image)


def test_rendering_leaves_kept_backgrounds_alone():
    scene = some_scene(3)
    before = scenes.paint_background(scene.background, scene.size).copy()
    render(scene)
    with pytest.raises(ValueError, match="read-only"):
        scenes.paint_background(scene.background, scene.size)[0, 0] = 0
    assert np.array_equal(before, scenes.paint_background(scene.background, scene.size))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 6), st.sampled_from([(144, 224), (192, 288), (96, 96)]))
def test_rendered_arrays_are_consistent(seed, people, size):
    scene = some_scene(seed, people, size=size, knobs=Knobs(occlusion=0.5, crowding=0.6))
    drawn = render(scene)
    count = len(drawn.boxes)
    assert drawn.image.shape == (*size, 3) and drawn.image.dtype == np.uint8
    assert drawn.boxes.shape == (count, 4) and drawn.boxes.dtype == np.float32
    assert drawn.person_ids.dtype == np.int64 and drawn.visible.dtype == np.float32
    assert len(drawn.person_ids) == len(drawn.visible) == len(drawn.placements) == count
    x1, y1, x2, y2 = drawn.boxes.T
    assert (x1 >= 0).all() and (y1 >= 0).all() and (x2 <= size[1]).all() and (y2 <= size[0]).all()
    assert (x2 > x1).all() and (y2 > y1).all()
    assert (drawn.visible > 0).all() and (drawn.visible <= 1 + 1e-6).all()
    for index, person_id, visible in zip(drawn.placements, drawn.person_ids, drawn.visible, strict=True):
        expected = scene.placements[index].person_id if visible >= scene.min_visible else UNLABELLED
        assert person_id == expected
    for index, box in zip(drawn.placements, drawn.boxes, strict=True):  # no pixel of a person outside the box
        rows, columns = np.nonzero(drawn.owner == index)
        if len(rows):
            assert box[0] <= columns.min() and columns.max() < box[2]
            assert box[1] <= rows.min() and rows.max() < box[3]


def test_box_is_the_figures_own_extent():
    """Against the figure drawn alone: same width and height, standing where the placement says."""
    for view in VIEWS:
        scene = one_person(height=0.6, x=0.75, y=0.875, view=view)  # whole pixels: 108 to the right, 126 down
        drawn = render(scene)
        alone = draw_person(scene.placements[0].person, 0.6 * 144, view, stride=0.0)
        rows, columns = (np.nonzero(alone[..., 3].max(axis) >= 128)[0] for axis in (1, 0))
        width, height = columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1
        x1, y1, x2, y2 = drawn.boxes[0]
        assert (x2 - x1, y2 - y1) == (width, height)
        assert abs(y2 - 126) <= 1.5 and abs(height - 0.6 * 144) <= 3
        assert x1 < 108 < x2
        assert drawn.visible[0] == pytest.approx(1.0)


def test_geometry_is_relative():
    """Twice the frame: twice the boxes, and a picture that looks the same when made small again."""
    for seed in range(4):
        scene = some_scene(seed, knobs=Knobs(noise=0))
        small, large = render(scene), render(scene.with_(size=(288, 448)))
        both = np.intersect1d(small.placements, large.placements)
        assert len(both) >= len(small.placements) - 1
        for index in both:
            a, b = small.boxes[small.placements == index][0], large.boxes[large.placements == index][0]
            assert np.abs(2 * a - b).max() <= 4
        halved = large.image.reshape(144, 2, 224, 2, 3).mean((1, 3))
        assert np.abs(halved - small.image).mean() < 6


def test_size_follows_the_ground_plane():
    rng = RNG(0)
    for _ in range(20):
        background = sample_background(rng)
        scene = sample_scene([(0, sample_person(rng))] * 4, rng, background=background)
        for placement in scene.placements:
            expected = background.height_at(placement.y) * placement.person.stature
            assert placement.height == pytest.approx(expected)
        for thing in scene.occluders:
            assert thing.unit == pytest.approx(max(0.02, background.height_at(thing.y)))
    assert background.height_at(background.foot_for(0.3)) == pytest.approx(0.3)


# ---- visibility ----------------------------------------------------------------------------------------------


def test_visible_fraction_by_hand():
    """A panel over the lower part hides exactly the figure's pixels below its edge."""
    scene = one_person(height=0.6, x=0.75, y=0.875)
    alone = draw_person(scene.placements[0].person, 0.6 * 144, "front", stride=0.0)[..., 3].astype(float)
    for fraction in (0.0, 0.25, 0.5, 0.75):
        kept = alone[: len(alone) - round(fraction * 0.6 * 144)].sum() / alone.sum()
        drawn = render(scene.with_(occluder=fraction, person=0))
        assert drawn.visible[0] == pytest.approx(kept, abs=0.03)
        assert np.array_equal(drawn.boxes, render(scene).boxes)  # the box stays whole-body


def test_frame_edge_cuts_box_and_visibility():
    drawn = render(one_person(x=0.0))
    assert drawn.boxes[0, 0] == 0 and 0.4 < drawn.visible[0] < 0.6
    assert len(render(one_person(x=-1.0)).boxes) == 0  # outside


def test_hardly_visible_people_lose_identity_then_box():
    scene = one_person()
    assert render(scene).person_ids.tolist() == [7]
    half = scene.with_(occluder=0.6)
    assert render(replace(half, min_visible=0.9)).person_ids.tolist() == [UNLABELLED]
    assert len(render(scene.with_(occluder=1.0)).boxes) == 0


def test_people_behind_are_hidden_by_people_in_front():
    scene = one_person(y=0.8)
    behind = scene.placements[0]
    front = replace(behind, person=sample_person(RNG(9)), person_id=8, y=0.85)
    for order in ((behind, front), (front, behind)):  # depth decides, not the order of the tuple
        drawn = render(replace(scene, placements=order))
        visible = dict(zip(drawn.person_ids.tolist(), drawn.visible.tolist(), strict=True))
        assert visible[8] == pytest.approx(1.0)
        assert visible.get(7, 0.0) < 0.5


def test_empty_scene():
    drawn = render(some_scene(0, people=0, unlabelled=0))
    assert drawn.boxes.shape == (0, 4) and drawn.person_ids.shape == (0,)


# ---- one factor at a time ------------------------------------------------------------------------------------


def near(scene: Scene, index: int, scale: float = 1.0) -> np.ndarray:
    """The pixels a placement may touch by its geometry: body, bags, blur and ground shadow, (H, W) bool."""
    placement, (height, width) = scene.placements[index], scene.size
    y, x = np.mgrid[:height, :width] / height
    h = placement.height * scale
    reach = 0.48 * h * max(1.0, placement.person.build / placement.person.stature) + 4 / height
    return (abs(x - placement.x) <= reach) & (y >= placement.y - 1.12 * h - 4 / height) & (
        y <= placement.y + 0.14 * h + 4 / height
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_background_leaves_figures_alone(seed):
    scene = some_scene(seed)
    before = render(scene)
    for other in (scene.background.seed + 1, sample_background(RNG(seed + 100))):
        after = render(scene.with_(background=other))
        covered = before.owner >= 0
        assert covered.sum() > 100
        assert np.array_equal(before.image[covered], after.image[covered])
        assert (before.image != after.image).any(-1).mean() > 0.5
        assert np.array_equal(before.boxes, after.boxes) and np.array_equal(before.visible, after.visible)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("factor", ["view", "scale", "phase", "appearance", "larger"])
def test_one_person_leaves_the_rest_alone(seed, factor):
    scene = some_scene(seed)
    before = render(scene)
    for k, placement in enumerate(scene.placements):
        change = {
            "view": {"view": "back" if placement.view != "back" else "right"},
            "scale": {"scale": 0.5},
            "larger": {"scale": 1.4},
            "phase": {"phase": (placement.phase + 0.37) % 1},
            "appearance": {"appearance": replace(sample_person(RNG(seed + 50)), build=placement.person.build)},
        }[factor]
        changed = scene.with_(person=k, **change)
        after = render(changed)
        mine = near(scene, k) | near(changed, k)
        assert np.array_equal(before.image[~mine], after.image[~mine])
        assert [p for i, p in enumerate(scene.placements) if i != k] == [
            p for i, p in enumerate(changed.placements) if i != k
        ]
        moved = factor != "phase" or placement.stride > 0.2  # who stands still has no phase
        if moved and k in before.placements and before.visible[before.placements == k][0] > 0.5:
            assert (before.image != after.image).any()
        for i, box in zip(before.placements, before.boxes, strict=True):  # boxes of the others stay
            if i != k and i in after.placements:
                assert np.array_equal(box, after.boxes[after.placements == i][0])


def test_scale_is_a_factor_at_the_same_foot():
    scene = one_person(height=0.7, y=0.875)
    whole, half = render(scene).boxes[0], render(scene.with_(scale=0.5)).boxes[0]
    assert (half[3] - half[1]) / (whole[3] - whole[1]) == pytest.approx(0.5, abs=0.02)
    assert (half[2] - half[0]) / (whole[2] - whole[0]) == pytest.approx(0.5, abs=0.06)
    assert abs(half[3] - whole[3]) <= 1.5 and abs(half[[0, 2]].mean() - whole[[0, 2]].mean()) <= 1


def test_a_hidden_fraction_hides_any_stride():
    """Nothing of a wide step shows beside the panel."""
    scene = one_person(height=0.7, y=0.875, view="right")
    scene = replace(scene, placements=(replace(scene.placements[0], phase=0.25, stride=1.0),))
    for fraction in (0.2, 0.4):
        rows = np.nonzero(render(scene.with_(occluder=fraction)).owner == 0)[0]
        assert rows.max() <= 126 - fraction * 0.7 * 144 + 1


def test_position_moves_only_that_person():
    scene = some_scene(2)
    changed = scene.with_(person=1, position=(0.2, 0.9))
    mine = near(scene, 1) | near(changed, 1)
    assert np.array_equal(render(scene).image[~mine], render(changed).image[~mine])


@pytest.mark.parametrize("kind", sorted(OBJECTS))
def test_occluder_leaves_the_rest_alone(kind):
    scene = some_scene(6)
    thing = Occluder(kind, 0.8, 0.8, 0.3, seed=2)
    before, after = render(scene), render(scene.with_(occluder=thing))
    y, x = np.mgrid[:144, :224] / 144
    half, height = OBJECTS[kind]
    inside = (abs(x - 0.8) <= half * 0.3 + 0.03) & (y >= 0.8 - height * 0.3 - 0.03)
    inside &= y <= 0.8 + half * 0.3 * 0.25 + 0.03
    assert (before.image != after.image).any(-1).sum() > 20
    assert np.array_equal(before.image[~inside], after.image[~inside])


def test_lighting_keeps_geometry_and_undoes():
    scene = some_scene(1)
    dark = scene.with_(lighting=Lighting(brightness=0.5, cast=(1.1, 1.0, 0.9), side_shadow=0.4))
    one, two = render(scene), render(dark)
    assert two.image.mean() < 0.8 * one.image.mean()
    assert np.array_equal(one.boxes, two.boxes) and np.array_equal(one.visible, two.visible)
    assert dark.with_(lighting=scene.lighting) == scene


def test_light_by_hand():
    """(value - 118) * contrast + 118, times brightness, times the channel's gain: on one known pixel."""
    plain = replace(one_person(), noise=0.0)
    value = render(plain).image[0, 0].astype(float)
    lit = render(plain.with_(lighting=Lighting(0.8, 0.9, (1.0, 0.5, 1.0)))).image[0, 0]
    expected = ((value - 118) * 0.9 + 118) * 0.8 * np.array([1.0, 0.5, 1.0])
    assert np.abs(lit - expected).max() <= 0.51


def test_noise_depends_on_place_and_seed_only():
    quiet = one_person()
    one, two = (render(replace(quiet.with_(view=view), noise=5.0, noise_seed=3)) for view in ("front", "back"))
    calm = [render(quiet.with_(view=view)) for view in ("front", "back")]
    grain = [a.image.astype(int) - b.image for a, b in zip((one, two), calm, strict=True)]
    inside = np.all([(5 * 6 < c.image) & (c.image < 255 - 5 * 6) for c in calm], axis=0)  # not cut off at 0 or 255
    assert np.abs(grain[0][inside] - grain[1][inside]).max() <= 1  # the rounding of two different values
    assert grain[0][inside].std() == pytest.approx(5.0 * (1 + 0.4**2) ** 0.5, rel=0.05)


def test_with_refuses_mistakes():
    scene = one_person()
    for wrong in (
        {"view": "above"},
        {"scale": 0},
        {"occluder": 1.5},
        {"occluder": Occluder("dragon", 0, 0, 1)},
        {"person": 3, "view": "back"},
    ):
        with pytest.raises(UserError) as caught:
            scene.with_(**wrong)
        assert "\n" not in str(caught.value)
    assert scene.with_(person=-1, view="back") == scene.with_(person=0, view="back")
    assert scene.with_() == scene


# ---- people --------------------------------------------------------------------------------------------------


def look(person, view="front", **keywords):
    image = draw_person(person, 80.0, view, **{"stride": 0.0, **keywords})
    return image[..., :3][image[..., 3] == 255]


def has(pixels: np.ndarray, colour) -> int:
    return int((np.abs(pixels.astype(int) - colour).max(-1) <= 2).sum())


def test_what_a_view_shows():
    red, shirt, eye = (200, 10, 10), Garment("t-shirt", "logo", (60, 60, 200), (10, 200, 10)), (40, 32, 32)
    person = replace(sample_person(RNG(1)), upper=shirt, bag="backpack", bag_colour=red, hat="none", hair="short")
    pixels = {view: look(person, view) for view in VIEWS}
    assert has(pixels["front"], shirt.second) > 20 and has(pixels["back"], shirt.second) == 0
    assert has(pixels["back"], red) > 2 * has(pixels["front"], red) > 0
    assert min(has(pixels["left"], red), has(pixels["right"], red)) > has(pixels["front"], red)
    assert has(pixels["front"], eye) > has(pixels["back"], eye)
    jacket = replace(person, upper=replace(shirt, kind="open-jacket", pattern="plain"), inner=(240, 240, 10))
    assert has(look(jacket), jacket.inner) > 20 and has(look(jacket, "back"), jacket.inner) == 0


def test_a_bag_has_a_side():
    """A bag on her left is seen from her left (she walks to the image's left), and hidden from her right."""
    person = replace(sample_person(RNG(1)), bag="shoulder-bag", bag_colour=(250, 10, 10), bag_side="left")
    person = replace(person, upper=Garment("t-shirt", "plain", (60, 60, 200), (0, 0, 0)))
    assert has(look(person, "left"), (250, 10, 10)) > 2 * has(look(person, "right"), (250, 10, 10))
    for view, sign in (("front", 1), ("back", -1)):
        image = draw_person(person, 80.0, view, stride=0.0)
        red = (np.abs(image[..., :3].astype(int) - (250, 10, 10)).max(-1) <= 2) & (image[..., 3] == 255)
        columns = np.nonzero(red)[1]
        assert sign * (columns.mean() - image.shape[1] / 2) > 0


def test_every_attribute_shows():
    """Each value of each attribute gives its own picture, at 44 pixels too."""
    person = replace(sample_person(RNG(2)), hat="none", hair="short", bag="none")
    upper = Garment("t-shirt", "plain", (200, 60, 60), (240, 240, 240))
    person = replace(person, upper=upper, lower=Garment("trousers", "plain", (60, 60, 120), (200, 200, 200)))

    def changes():
        yield "hair", [replace(person, hair=value) for value in HAIR_STYLES]
        yield "bag", [replace(person, bag=value) for value in BAGS]
        yield "hat", [replace(person, hat=value) for value in HATS]
        yield "upper", [replace(person, upper=replace(upper, kind=value)) for value in UPPER_KINDS]
        yield "lower", [replace(person, lower=replace(person.lower, kind=value)) for value in LOWER_KINDS]
        yield "pattern", [replace(person, upper=replace(upper, pattern=value)) for value in PATTERNS]
        yield "build", [replace(person, build=value) for value in (0.8, 1.0, 1.3)]

    for name, variants in changes():
        for view in VIEWS if name in ("upper", "lower") else ("front",):
            pictures = {draw_person(p, 44.0, view, stride=0.0).tobytes() for p in variants}
            assert len(pictures) == len(variants), name


def test_walking_moves_limbs_and_keeps_feet_down():
    person = sample_person(RNG(3))
    for view in VIEWS:
        shapes = [draw_person(person, 90.0, view, phase) for phase in (0.0, 0.25, 0.5, 0.75)]
        assert len({s.tobytes() for s in shapes}) >= 3
    widths = [draw_person(person, 90.0, "right", phase).shape[1] for phase in (0.0, 0.25)]
    assert widths[1] > widths[0] + 8  # legs apart
    for phase in np.linspace(0, 1, 9):
        scene = one_person(height=0.6, y=0.875, view="right")
        walking = replace(scene, placements=(replace(scene.placements[0], phase=float(phase), stride=1.0),))
        assert abs(render(walking).boxes[0, 3] - 126) <= 2.5


def test_look_alikes_differ_in_so_many_groups():
    groups = (("hair", "hair_colour"), ("skin",), ("hat", "hat_colour"), ("upper", "inner"), ("lower",), ("shoes",),
              ("bag", "bag_colour"), ("build", "stature"))  # fmt: skip
    rng = RNG(0)
    for changed in list(range(9)) * 3:
        person = sample_person(rng)
        twin = look_alike(person, rng, changed)
        differing = [any(getattr(person, n) != getattr(twin, n) for n in group) for group in groups]
        assert sum(differing) == changed
        for name in ("upper", "lower"):  # what differs can be told apart, not only by the dye
            one, two = getattr(person, name), getattr(twin, name)
            contrast = max(abs(a - b) for a, b in zip(one.colour, two.colour, strict=True))
            assert one == two or (one.kind, one.pattern) != (two.kind, two.pattern) or contrast >= 35
        shoes = max(abs(a - b) for a, b in zip(person.shoes, twin.shoes, strict=True))
        assert shoes == 0 or shoes >= 35
        assert person.build == twin.build or abs(person.build - twin.build) >= 0.12
        if changed:
            assert any(
                draw_person(person, 60.0, v).tobytes() != draw_person(twin, 60.0, v).tobytes() for v in VIEWS
            )
    with pytest.raises(UserError, match="0..8"):
        look_alike(person, rng, 9)


def test_look_alike_share():
    """A copy shares most fields with somebody earlier; strangers share few."""
    def copies(knobs):
        people = sample_people(120, RNG(1), knobs)
        same = [[sum(getattr(a, f.name) == getattr(b, f.name) for f in fields(a)) for b in people[:i]]
                for i, a in enumerate(people)]  # fmt: skip
        return sum(max(row, default=0) >= 9 for row in same) / 120
    assert copies(Knobs(look_alikes=0, look_alike_changes=2)) < 0.05
    assert 0.3 < copies(Knobs(look_alikes=0.5, look_alike_changes=2)) < 0.65


def test_people_are_many():
    people = sample_people(400, RNG(0), Knobs(look_alikes=0))
    assert len(set(people)) == 400
    for values, name in ((HAIR_STYLES, "hair"), (BAGS, "bag"), (HATS, "hat")):
        assert {getattr(p, name) for p in people} == set(values)
    assert {p.upper.kind for p in people} == set(UPPER_KINDS) and {p.upper.pattern for p in people} == set(PATTERNS)


# ---- knobs, chance, crops ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [f.name for f in fields(Knobs) if f.name != "view_mix"])
def test_knobs_have_ranges(name):
    for value in (-1, 1e6, float("nan")):
        with pytest.raises(UserError) as caught:
            Knobs(**{name: value}).validate()
        assert name in str(caught.value)
    assert f"{name}" in Knobs.__doc__


def test_knobs_that_contradict():
    with pytest.raises(UserError, match="min_height"):
        Knobs(min_height=80, max_height=40).validate()
    for mix in ((0, 0, 0, 0), (1, 1, 1), (1, -1, 1, 1)):
        with pytest.raises(UserError, match="view_mix"):
            Knobs(view_mix=mix).validate()
    with pytest.raises(UserError):
        sample_scene([], RNG(0), Knobs(noise=-1))


def test_knobs_do_what_they_say():
    def sample(**changes):
        rng = RNG(5)
        return [sample_scene([(0, sample_person(rng))] * 3, rng, Knobs(**changes)) for _ in range(60)]

    people = [p for s in sample() for p in s.placements]
    heights = 144 * np.array([p.height / p.person.stature for p in people])
    assert heights.min() >= 23.9 and heights.max() <= 112.1 and 38 < np.median(heights) < 50
    assert 0.25 < np.mean([not p.labelled for p in people]) < 0.45
    assert {p.view for s in sample(view_mix=(1, 0, 1, 0)) for p in s.placements} == {"front", "back"}
    def things(**changes):
        return np.mean([len(s.occluders) for s in sample(**changes)])
    assert things(occlusion=0, clutter=0) == 0
    assert things(occlusion=0.8, clutter=0) > 1.5
    assert things(occlusion=0, clutter=1) > things(occlusion=0, clutter=0.3) > 0
    assert all(s.lighting == Lighting(1, 1, (1, 1, 1), 0, s.lighting.shadow_side)
               for s in sample(brightness=0, contrast=0, cast=0, side_shadow=0))  # fmt: skip
    assert all(not p.labelled for s in [sample_scene([], RNG(0), unlabelled=4)] for p in s.placements)


def test_fixed_camera():
    """Scenes of one camera share street and furniture; the light stays near the camera's."""
    rng = RNG(2)
    knobs = Knobs(occlusion=0, clutter=1.0)
    camera, light = sample_background(rng, knobs), sample_lighting(rng, knobs)
    shots = [sample_scene([(0, sample_person(rng))], rng, knobs, background=camera,
                          lighting=sample_lighting(rng, knobs, near=light)) for _ in range(6)]  # fmt: skip
    assert len({s.occluders for s in shots}) == 1 and shots[0].occluders == furniture(camera, 224 / 144)
    near_by = np.std([np.log(s.lighting.brightness) for s in shots])
    free = np.std([np.log(sample_lighting(rng, knobs).brightness) for _ in range(50)])
    assert near_by < 0.6 * free


def test_crops_for_the_neutral_classifier():
    rng = RNG(8)
    person = sample_person(rng)
    of_person = sample_crop(rng, person=person)
    image = render_crop(of_person, (64, 32))
    assert image.shape == (64, 32, 3) and of_person.placements[0].person == person
    assert (render(of_person).owner == 0).mean() > 0.12
    for kind in OBJECTS:
        scene = sample_crop(rng, kind=kind)
        assert scene.occluders[0].kind == kind and render_crop(scene, (48, 48)).shape == (48, 48, 3)
        assert (draw_object(kind, 40.0)[..., 3] == 255).sum() > 30
    street = sample_crop(rng)
    assert not street.placements and not street.occluders
    with pytest.raises(UserError, match="unknown object"):
        sample_crop(rng, kind="dragon")
    with pytest.raises(UserError, match="unknown view"):
        draw_person(person, 40.0, "above")
