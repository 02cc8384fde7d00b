"""The drawn sets: sizes, disjoint people, protocols, determinism, resuming, and what stops them."""

import errno
import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from set_fixtures import MINI, frame, mini_sets, odd_sets  # noqa: F401 (fixtures)

from pslib.data import drawing, layouts, synthetic
from pslib.data.annotations import UNLABELLED
from pslib.data.loading import count, describe, load, read_image
from pslib.data.plans import _group_sizes, deal, gapped_ids, generator, plan_walks
from pslib.data.profiles import PROFILES, SplitSize, profile_named
from pslib.data.protocols import cuhk_protocols, prw_queries
from pslib.data.scenes import Knobs, render, sample_people, sample_scene
from pslib.data.synthetic import SETS, make
from pslib.errors import UserError

SMALLEST = replace(
    MINI, name="smallest", train=SplitSize(4, 9), validation=SplitSize(3, 9), test=SplitSize(3, 12), sightings=(3, 4, 4)
)


def people_of(root, kind, split):
    return set(load(kind, root, split).person_ids.tolist())


# ------------------------------------------------------------------------------- what is in the sets


@pytest.mark.parametrize("kind", ["cuhk-sysu", "prw"])
def test_people_are_disjoint_and_numbered_with_gaps(mini_sets, kind):  # noqa: F811
    train = people_of(mini_sets / kind, kind, "train")
    test = people_of(mini_sets / kind, kind, "test")
    validation = people_of(mini_sets / f"{kind}-val", kind, "test")
    assert len(train) == 12 and len(test) == 10 and len(validation) == 6
    assert not (train & test or train & validation or test & validation)
    assert max(train) - min(train) >= len(train)  # gaps: numbers are no labels


@pytest.mark.parametrize("name", SETS)
def test_manifest_counts_what_is_there(mini_sets, name):  # noqa: F811
    kind = name.removesuffix("-val")
    manifest = json.loads((mini_sets / name / "manifest.json").read_text())
    assert manifest["knobs"]["palette"] == Knobs().palette and len(manifest["fingerprint"]) == 64
    test = load(kind, mini_sets / name, "test")
    wanted = manifest["counts"]["test"]
    assert {key: count(test)[key] for key in wanted} == wanted
    assert "drawn, profile mini" in describe(test) and "DISAGREES" not in describe(test)
    assert not list((mini_sets / name).rglob("*.part")) and not (mini_sets / name / ".drawing").exists()


@pytest.mark.parametrize("name", SETS)
def test_every_query_can_be_found(mini_sets, name):  # noqa: F811
    test = load(name.removesuffix("-val"), mini_sets / name, "test")
    assert count(test)["queries"] == 2 * len(test.person_ids)
    for protocol in test.protocols.values():
        for query, gallery in zip(protocol.queries, protocol.galleries, strict=True):
            home = test.frames[query.frame]
            assert query.frame not in gallery.frames
            mine = home.boxes[home.person_ids == query.person_id]
            assert np.abs(mine - query.box).max(axis=1).min() < 0.02
            shown = [i for i in gallery.frames if query.person_id in test.frames[i].person_ids]
            assert shown and sorted(shown) == sorted(gallery.positive_frames.tolist())


def test_cuhk_galleries_share_queries_and_nest(mini_sets):  # noqa: F811
    protocols = load("cuhk-sysu", mini_sets / "cuhk-sysu", "test").protocols
    assert list(protocols) == ["TestG20", "TestG50", "Occlusion", "Resolution"]
    small, large = protocols["TestG20"], protocols["TestG50"]
    for a, b, inner, outer in zip(small.queries, large.queries, small.galleries, large.galleries, strict=True):
        assert (a.frame, a.person_id, a.box.tolist()) == (b.frame, b.person_id, b.box.tolist())
        assert outer.frames[:20].tolist() == inner.frames.tolist()
        positives = len(inner.positive_frames)
        assert inner.frames[:positives].tolist() == inner.positive_frames.tolist()  # positives stand first


def test_prw_cameras_have_their_own_sizes_and_everybody_meets_two(mini_sets):  # noqa: F811
    test = load("prw", mini_sets / "prw", "test")
    assert {f.camera for f in test.frames} == {1, 2, 3, 4, 5, 6}
    for f in test.frames[::7]:
        assert tuple(read_image(f.path).shape[1:]) == MINI.prw_sizes[f.camera == 6]
    for person in test.person_ids:
        assert len({f.camera for f in test.frames if person in f.person_ids}) >= 2
    crops = sorted((mini_sets / "prw/query_box").glob("*.jpg"))
    queries = test.protocols["regular"].queries
    assert len(crops) == len(queries)
    query = queries[0]
    crop = Image.open(mini_sets / f"prw/query_box/{query.person_id}_{test.frames[query.frame].name}")
    assert np.abs(np.array(crop.size) - (query.box[2:] - query.box[:2])).max() <= 1


def test_prw_people_walk(mini_sets):  # noqa: F811
    """Frames of one walk show the same place and the same people, a little further on."""
    train = load("prw", mini_sets / "prw", "train")
    first, second = train.frames[0], train.frames[1]
    assert first.name.split("_")[0] == second.name.split("_")[0]
    shared = set(first.person_ids.tolist()) & set(second.person_ids.tolist()) - {UNLABELLED}
    assert shared
    person = shared.pop()
    a, b = (f.boxes[f.person_ids == person][0] for f in (first, second))
    assert np.abs(a - b).max() > 0.5


def test_boxes_hold_the_people_drawn_there():
    """Planted fault: a box moved by a tenth of the frame no longer holds the pixels that the person changed."""
    rng = np.random.default_rng(3)
    scene = sample_scene([(1, sample_people(1, rng)[0])], rng, Knobs(occlusion=0), unlabelled=0)
    drawn, empty = render(scene), render(replace(scene, placements=()))
    changed = np.abs(drawn.image.astype(int) - empty.image).sum(axis=2) > 30
    x1, y1, x2, y2 = drawn.boxes[0].astype(int)
    inside = changed[y1:y2, x1:x2].sum() / changed.sum()
    assert inside > 0.8
    moved = changed[y1:y2, x1 + 22 : x2 + 22].sum() / changed.sum()
    assert moved < 0.5


# ------------------------------------------------------------------------------- the same again


def test_workers_do_not_matter_and_seeds_do(tmp_path):
    one = make(SMALLEST, tmp_path / "one", workers=1)
    two = make(SMALLEST, tmp_path / "two", workers=2)
    other = make(replace(SMALLEST, seed=99), tmp_path / "other", workers=1, only="prw-val")
    for name in SETS:
        assert one[name]["fingerprint"] == two[name]["fingerprint"]
        for path in sorted((tmp_path / "one/smallest" / name).rglob("*.jpg")):
            twin = tmp_path / "two/smallest" / name / path.relative_to(tmp_path / "one/smallest" / name)
            assert path.read_bytes() == twin.read_bytes()
    assert other["prw-val"]["fingerprint"] != one["prw-val"]["fingerprint"]


def test_a_killed_run_goes_on_where_it_stopped(tmp_path, monkeypatch):
    whole = make(SMALLEST, tmp_path / "whole", workers=1, only="cuhk-sysu")
    calls = []
    real = drawing._record

    def killed(frames):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(frames)

    monkeypatch.setattr(synthetic, "_BATCH", 4)
    monkeypatch.setattr(drawing, "_record", killed)
    with pytest.raises(KeyboardInterrupt):
        make(SMALLEST, tmp_path, workers=1, only="cuhk-sysu")
    root = tmp_path / "smallest/cuhk-sysu"
    assert not (root / "manifest.json").exists()
    done = json.loads(next((root / ".drawing").glob("*.json")).read_text())
    kept = {row["name"]: (root / "Image/SSM" / row["name"]).stat().st_mtime_ns for row in done}
    assert len(kept) == 4
    again = make(SMALLEST, tmp_path, workers=1, only="cuhk-sysu")
    for name, when in kept.items():  # finished frames were not drawn again
        assert (root / "Image/SSM" / name).stat().st_mtime_ns == when
    assert again["cuhk-sysu"]["fingerprint"] == whole["cuhk-sysu"]["fingerprint"]


def test_a_finished_set_is_left_alone_and_a_damaged_one_is_made_again(tmp_path):
    make(SMALLEST, tmp_path, workers=1, only="prw-val")
    root = tmp_path / "smallest/prw-val"
    manifest = root / "manifest.json"
    before = manifest.stat().st_mtime_ns
    make(SMALLEST, tmp_path, workers=1, only="prw-val")
    assert manifest.stat().st_mtime_ns == before
    next((root / "frames").glob("*.jpg")).unlink()
    make(SMALLEST, tmp_path, workers=1, only="prw-val")
    assert manifest.stat().st_mtime_ns > before
    harder = replace(SMALLEST, prw_knobs=Knobs(noise=9))
    assert make(harder, tmp_path, workers=1, only="prw-val")["prw-val"]["knobs"]["noise"] == 9


def test_a_generator_that_draws_otherwise_is_noticed(tmp_path, monkeypatch):
    """Even if nobody raised GENERATOR_VERSION: the plan holds a digest of one drawn scene."""
    make(SMALLEST, tmp_path, workers=1, only="prw-val")
    drawn = synthetic._DrawnSet(SMALLEST, "prw-val", tmp_path / "smallest/prw-val", False)
    assert drawn.complete()
    monkeypatch.setattr(synthetic, "_probe", lambda: "another picture")
    assert not synthetic._DrawnSet(SMALLEST, "prw-val", tmp_path / "smallest/prw-val", False).complete()


# ------------------------------------------------------------------------------- odd corners


def test_odd_corners_of_cuhk(odd_sets):  # noqa: F811
    test = load("cuhk-sysu", odd_sets / "cuhk-sysu", "test")
    protocol = test.protocols["TestG20"]
    assert protocol.queries[0].frame in protocol.galleries[0].positive_frames
    frames = protocol.galleries[1].frames
    assert frames[0] == frames[1] and len(frames) == 20
    twice = [g for g in protocol.galleries[2:] if len(set(g.positive_frames.tolist())) < len(g.positive_frames)]
    first, second = twice[0].positive_boxes[twice[0].positive_frames == twice[0].positive_frames[0]]
    assert (first != second).any()  # one image listed twice, once for each box of its person
    assert any(len(ids) > len(set(ids)) for ids in ([p for p in f.person_ids if p >= 0] for f in test.frames))
    rows = scipy.io.loadmat(odd_sets / "cuhk-sysu/annotation/Images.mat")["Img"].ravel()
    boxes = [b["idlocate"][0] for row in rows for b in row["box"].ravel()]
    sums = [int(b[0]) + int(b[2]) for b in boxes if b.dtype == np.uint8]
    assert max(sums) > 255  # cast before adding, or lose a person


def test_odd_corners_of_prw(odd_sets):  # noqa: F811
    keys, negative = set(), 0
    for path in (odd_sets / "prw/annotations").glob("*.mat"):
        content = {key: value for key, value in scipy.io.loadmat(path).items() if key[0] != "_"}
        keys |= set(content)
        negative += int((next(iter(content.values()))[:, 1] < 0).sum())
    assert keys == {"box_new", "anno_file", "anno_previous"} and negative > 0
    assert b"\r\n" in (odd_sets / "prw/query_info.txt").read_bytes()
    for split in ("train", "test"):
        loaded = load("prw", odd_sets / "prw", split)
        assert all((f.boxes >= 0).all() for f in loaded.frames)
        assert any(len(ids) > len(set(ids)) for ids in ([p for p in f.person_ids if p >= 0] for f in loaded.frames))
        assert any("over the edge" in note for note in loaded.notes)
    for name in ("regular", "cross-camera"):
        assert all(len(set(g.positive_frames.tolist())) == len(g.positive_frames)
                   for g in load("prw", odd_sets / "prw", "test").protocols[name].galleries)  # fmt: skip


# ------------------------------------------------------------------------------- plans and protocols


@settings(max_examples=40, deadline=None)
@given(people=st.integers(6, 40), times=st.integers(1, 6), seed=st.integers(0, 1000))
def test_dealing_gives_everybody_her_share_and_nobody_twice(people, times, seed):
    rng = np.random.default_rng(seed)
    total = people * times
    sizes = np.full(-(-total // 3), 3)
    sizes[-1] -= sizes.sum() - total
    groups = deal(np.arange(people), times, sizes, rng)
    assert [len(g) for g in groups] == sizes.tolist()
    assert all(len(set(g)) == len(g) for g in groups)
    assert np.bincount([p for g in groups for p in g]).tolist() == [times] * people


@pytest.mark.parametrize("total, groups", [(40, 12), (40, 16), (7, 7), (5, 8), (0, 3)])
def test_sizes_of_groups_sum_to_what_is_dealt(total, groups):
    for seed in range(50):
        sizes = _group_sizes(total, groups, np.random.default_rng(seed))
        assert len(sizes) == groups and sizes.sum() == total and sizes.min() >= 0


def test_a_scene_for_more_people_than_there_are():
    """Planted fault: the search for a swap that cannot be goes on for ever."""
    rng = np.random.default_rng(0)
    one_sentence(lambda: deal(np.arange(2), 3, np.array([3, 3]), rng), "3 people", "from 2", "more")
    # The last group is cut to what is left to deal: no scene is too large for two people.
    assert deal(np.arange(2), 2, np.array([2, 3]), rng) in (
        [(0, 1), (0, 1)], [(0, 1), (1, 0)], [(1, 0), (0, 1)], [(1, 0), (1, 0)]
    )  # fmt: skip


def test_walks_use_distinct_cameras():
    jobs = plan_walks(np.arange(30), 3, 3, 90, ((144, 224), (128, 160)), 1, 0, "x")
    cameras = {}
    for job in jobs:
        assert job.size == ((128, 160) if job.camera == 6 else (144, 224)) and len(job.names) == 3
        for person in job.people:
            cameras.setdefault(person, []).append(job.camera)
    assert all(len(set(seen)) == 3 == len(seen) for seen in cameras.values()) and len(cameras) == 30
    assert len({name for job in jobs for name in job.names}) == 3 * len(jobs)


def test_ids_and_generators():
    parts = gapped_ids([5, 4, 3], generator(1, "a"))
    assert [len(p) for p in parts] == [5, 4, 3] and (np.diff(np.concatenate(parts)) >= 1).all()
    assert generator(1, "a").random() == generator(1, "a").random() != generator(1, "b").random()


def test_subsets_ask_for_hidden_and_for_small_people():
    frames = [frame(f"s{i}.jpg", [[5, 5, 10, 20 + 10 * i]], [1], visible=[1 - 0.2 * i]) for i in range(4)]
    frames += [frame(f"s{9 + i}.jpg", [[5, 5, 10, 90]], [2]) for i in range(3)]
    protocols = {p.key: p for p in cuhk_protocols(frames, 2, (3, 50), np.random.default_rng(0))}
    assert list(protocols) == ["TestG3", "Occlusion1", "Test_Size"]
    assert [(q.frame, q.row) for q in protocols["Occlusion1"].queries] == [(3, 0)]  # 0.4 visible
    assert [(q.frame, q.row) for q in protocols["Test_Size"].queries] == [(0, 0)]  # 20 px high
    assert all(len(g) == 3 for g in protocols["TestG3"].galleries)
    assert {q.frame for q in protocols["TestG3"].queries[:2]} <= {0, 1, 2}  # clear sightings are asked for first


def test_prw_asks_under_different_cameras():
    frames = [frame(f"c{c}s1_{i:06d}.jpg", [[5, 5, 10, 20]], [1], c) for i, c in enumerate((1, 1, 2, 3))]
    frames.append(frame("c4s1_000009.jpg", [[5, 5, 10, 20]], [2], 4))
    queries = prw_queries(frames, 2, np.random.default_rng(0))
    assert len({frames[q.frame].camera for q in queries}) == 2 == len(queries)  # person 2 has one camera only


# ------------------------------------------------------------------------------- the profiles promise


def test_tiny_and_small_are_as_large_as_promised():
    for name in ("tiny", "small"):
        profile = PROFILES[name]
        assert profile.train.people >= 600 and profile.test.people * profile.queries_per_person >= 300
        assert profile.sightings[0] >= 8 and profile.walks * profile.walk_frames >= 8  # six after hidden ones go
        assert profile.prw_sizes[0] != profile.prw_sizes[1]
    assert profile_named("tiny").train.scenes == 1920


# ------------------------------------------------------------------------------- bad input


def one_sentence(action, *words):
    with pytest.raises(UserError) as caught:
        action()
    said = str(caught.value)
    assert "\n" not in said and said.endswith(".") and all(word in said for word in words), said


def test_unknown_names(tmp_path):
    one_sentence(lambda: make("tyni", tmp_path), "tyni", "tiny")
    one_sentence(lambda: make("tiny", tmp_path, only="cuhk"), "cuhk", "cuhk-sysu")
    one_sentence(lambda: profile_named("paper-layout"), "paper-layout")
    assert not list(tmp_path.iterdir())


def test_a_folder_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "smallest/prw-val").mkdir(parents=True)
    (tmp_path / "smallest/prw-val/thesis.txt").write_text("precious")
    one_sentence(lambda: make(SMALLEST, tmp_path, workers=1), "prw-val", "--out")
    assert (tmp_path / "smallest/prw-val/thesis.txt").read_text() == "precious"


@pytest.mark.parametrize("module", [drawing, layouts])
def test_a_full_disk_is_one_sentence_and_nothing_half_written(tmp_path, monkeypatch, module):
    written = []
    real = os.replace

    def full(*arguments):
        written.append(1)
        if len(written) > 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments)

    monkeypatch.setattr(os, "replace", full)
    one_sentence(lambda: make(SMALLEST, tmp_path, workers=1, only="prw-val"), "is full", "same command")
    root = tmp_path / "smallest/prw-val"
    assert not (root / "manifest.json").exists()
    monkeypatch.setattr(os, "replace", real)
    assert make(SMALLEST, tmp_path, workers=1, only="prw-val")["prw-val"]["counts"]["images"] > 0


def test_a_full_disk_in_a_worker_process(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(layouts, "write_bytes", full)
    monkeypatch.setattr(drawing, "write_bytes", full)
    one_sentence(lambda: make(SMALLEST, tmp_path, workers=2, only="prw-val"), "is full")


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    one_sentence(lambda: make(SMALLEST, tmp_path / "file", workers=1, only="prw-val"), "another folder")
    shutil.rmtree(tmp_path, ignore_errors=True)
