"""Rankings told rank by rank, against plain loops, values worked by hand, and the evaluator that makes the tables."""

import numpy as np
import pytest
import torch
from evaluation_cases import draw_case
from toy_sets import toy_model, toy_split

from pslib.data.annotations import UNLABELLED, Frame, Gallery, PersonSearchSet, Protocol, Query
from pslib.data.loading import read_image
from pslib.errors import UserError
from pslib.evaluation.benchmark import benchmark_ranking, benchmark_scenes
from pslib.evaluation.detections import Detections
from pslib.evaluation.embed import ground_truth_queries
from pslib.evaluation.gallery import GalleryEmbeddings, embed_gallery
from pslib.evaluation.ranking import VERDICTS, Ranking, gallery_names, gallery_of, hardest, rank
from pslib.evaluation.search import search
from pslib.evaluation.similarity import frame_maps

HER, OTHER = 7, 8
BOX = np.array([0, 0, 40, 80], np.float32)


def gallery(frame, boxes, scores, embeddings, people=()):
    found = Detections(frame, boxes, scores, embeddings)
    return GalleryEmbeddings(found, found, np.array(people, np.int64))


def frames_of(annotations, cameras=None):
    """Frames from lists of (box, person)."""
    return [
        Frame(f"f{number}.jpg", None, np.array([box for box, _ in rows], np.float32).reshape(-1, 4),
              np.array([person for _, person in rows], np.int64), cameras[number] if cameras else 0)
        for number, rows in enumerate(annotations)
    ]  # fmt: skip


def iou(a, b):
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0.0, wide) * max(0.0, high)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def needed(box):
    w, h = box[2] - box[0], box[3] - box[1]
    return min(0.5, w * h / ((w + 10) * (h + 10)))


def by_hand(detections, query, frames, person, own, threshold, shown):
    """What ``rank`` says, by plain loops over frames and detections; no equal similarities."""
    rows = [row for row in range(len(detections)) if detections.frame[row] != own
            and detections.scores[row] >= threshold]  # fmt: skip
    rows.sort(key=lambda row: -float(detections.embeddings[row] @ query))
    right, missed, positives = {}, {}, 0
    for number, frame in enumerate(frames):
        mine = [box for box, who in zip(frame.boxes, frame.person_ids, strict=True) if who == person]
        if number == own or not mine:
            continue
        positives += 1
        on_her = [row for row in range(len(detections)) if detections.frame[row] == number
                  and iou(detections.boxes[row], mine[0]) >= needed(mine[0])]  # fmt: skip
        alive = [row for row in rows if row in on_her]
        if alive:
            right[alive[0]] = number
            if rows.index(alive[0]) + 1 > shown:
                missed[number] = f"ranked at {rows.index(alive[0]) + 1}"
        else:
            missed[number] = "under the threshold" if on_her else "not detected"
    verdicts, precisions, running = [], [], []
    for place, row in enumerate(rows, 1):
        frame = frames[detections.frame[row]]
        overlaps = [iou(detections.boxes[row], box) for box in frame.boxes]
        best = int(np.argmax(overlaps)) if overlaps else -1
        who = frame.person_ids[best] if best >= 0 and overlaps[best] >= needed(frame.boxes[best]) else None
        word = "right" if row in right else "second box" if who == person else "wrong"
        word = "not labelled" if row not in right and who == UNLABELLED else word
        verdicts.append(word)
        if row in right:
            precisions.append((len(precisions) + 1) / place)
        running.append(sum(precisions) / positives)
    return rows, verdicts, running, missed


def drawn_world(seed):
    """Frames with several people, some twice, some unlabelled, some empty; detections on, beside and off them."""
    rng = np.random.default_rng(seed)
    annotations, number, found = [], [], []
    for frame in range(12):
        corners = rng.uniform(0, 100, (int(rng.integers(0, 5)), 2))
        boxes = np.concatenate([corners, corners + rng.uniform(8, 60, corners.shape)], axis=1)
        annotations.append([(box, int(rng.choice([HER, HER, OTHER, UNLABELLED]))) for box in boxes])
        for box in [*boxes, *boxes, np.array([200, 200, 220, 240])]:
            found.append(box + rng.choice([0, 2, 8, 30]) * rng.uniform(-1, 1, 4))
            number.append(frame)
    order = rng.permutation(len(found))
    boxes = np.array(found, np.float32)[order]
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    embeddings = rng.standard_normal((len(found), 6))
    world = gallery(np.array(number)[order], boxes, rng.uniform(0, 1, len(found)), embeddings)
    return frames_of(annotations), world, rng.standard_normal(6).astype(np.float32)


@pytest.mark.parametrize("seed", range(12))
def test_every_rank_verdict_and_reason_agrees_with_plain_loops(seed):
    frames, world, query = drawn_world(seed)
    own, threshold, shown = seed % 4, (0.0, 0.5)[seed % 2], (3, 10)[seed // 2 % 2]
    ranking = rank(world, query, frames=frames, person_id=HER, query_frame=own, score_threshold=threshold, shown=shown)
    rows, verdicts, running, missed = by_hand(world.detections, query, frames, HER, own, threshold, shown)
    assert ranking.detection.tolist() == rows
    assert ranking.verdict == verdicts and set(verdicts) <= set(VERDICTS)
    assert np.allclose(ranking.running_ap, running) and ranking.ap == pytest.approx(running[-1])
    assert ranking.shown == shown
    said = {one.frame: one.reason for one in ranking.missed}
    assert {frame: reason.partition(" (")[0] for frame, reason in said.items()} == missed
    assert np.all(np.diff(ranking.similarity) <= 0) and len(ranking) == len(rows) and ranking.frames == 11


@pytest.mark.parametrize("seed", range(12))
def test_galleries_of_protocols_score_as_the_tables_do(seed):
    protocol, detections, queries, num_frames = draw_case(seed, ties=False)
    result = search(protocol, detections, queries, num_frames=num_frames, score_threshold=0.2)
    annotations = [[] for _ in range(num_frames)]
    for query, shown in zip(protocol.queries, protocol.galleries, strict=True):
        for frame, box in zip(shown.positive_frames, shown.positive_boxes, strict=True):
            annotations[frame].append((box, query.person_id))
    world, frames = GalleryEmbeddings(detections, detections, np.array([])), frames_of(annotations)
    for number, query in enumerate(protocol.queries):
        ranking = rank(world, queries[number], frames=frames, person_id=query.person_id, query_frame=query.frame,
                       among=protocol.galleries[number], score_threshold=0.2)  # fmt: skip
        if result.positives[number] == 0:
            assert ranking.ap is None and "appears in none" in ranking.note
            continue
        assert ranking.ap == pytest.approx(result.ap[number]) and ranking.rank == result.rank[number]
        assert ranking.verdict.count("right") == result.found[number]
        if len(ranking):
            assert ranking.running_ap[-1] == pytest.approx(ranking.ap)


def worked():
    """Four frames; she is in 1, 2 and 3.  Found in 1 (twice) and under a threshold of 0.5 in 2, not in 3."""
    far = BOX + 200
    frames = frames_of([[(BOX, HER)], [(BOX, HER), (far, UNLABELLED)], [(BOX, HER), (far, OTHER)], [(BOX, HER)]])
    world = gallery(
        [1, 1, 1, 2, 2, 3], [BOX, BOX + 1, far, BOX, far, BOX + 30], [0.9, 0.9, 0.9, 0.4, 0.9, 0.9],
        [[0.8, 0], [0.6, 0], [0.9, 0], [0.7, 0], [0.5, 0], [0.3, 0]],
    )  # fmt: skip
    return frames, world


def test_values_worked_by_hand():
    frames, world = worked()
    ranking = rank(world, np.array([1, 0]), frames=frames, person_id=HER, query_frame=0, shown=2)
    assert ranking.verdict == ["not labelled", "right", "right", "second box", "wrong", "wrong"]
    assert ranking.similarity.tolist() == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5, 0.3])
    assert ranking.running_ap.tolist() == pytest.approx([0, 1 / 6, 7 / 18, 7 / 18, 7 / 18, 7 / 18])
    assert ranking.ap == pytest.approx((1 / 2 + 2 / 3) / 3) and ranking.rank == 2 and ranking.positives == 3
    shared = 10 * 50 / (2 * 3200 - 10 * 50)
    assert [(one.frame, one.reason, one.rank) for one in ranking.missed] == [
        (2, "ranked at 3", 3), (3, f"not detected (best IoU {shared:.2f}, needed 0.50)", 0)]  # fmt: skip
    strict = rank(world, np.array([1, 0]), frames=frames, person_id=HER, query_frame=0, score_threshold=0.5)
    assert strict.missed[0].reason == "under the threshold (score 0.40, asked for 0.50)"
    assert strict.ap == pytest.approx(1 / 6) and 3 not in strict.detection


def test_a_box_of_ones_own_is_ranked_without_verdicts():
    frames, world = worked()
    ranking = rank(world, np.array([1, 0]), frames=frames)
    assert ranking.ap is None and ranking.missed == [] and len(ranking.running_ap) == 0
    assert ranking.verdict == ["not labelled"] * 6 and ranking.frames == 4 and "nobody knows" in ranking.note


def test_a_person_seen_nowhere_else_has_no_ap():
    frames, world = worked()
    ranking = rank(world, np.array([1, 0]), frames=frames, person_id=OTHER, query_frame=2)
    assert ranking.ap is None and ranking.note.startswith(f"person {OTHER} appears in none of the 3 frames")


def test_a_gallery_without_detections_misses_everybody():
    frames, _ = worked()
    empty = GalleryEmbeddings(Detections.empty(2), Detections.empty(2), np.array([]))
    ranking = rank(empty, np.array([1, 0]), frames=frames, person_id=HER, query_frame=0)
    assert len(ranking) == 0 and ranking.ap == 0 and ranking.rank == 0 and ranking.verdict == []
    assert [one.reason for one in ranking.missed] == ["not detected (best IoU 0.00, needed 0.50)"] * 3


def test_camera_filters_keep_same_or_other_frames():
    frames, world = worked()
    frames = frames_of([list(zip(one.boxes, one.person_ids, strict=True)) for one in frames], cameras=[1, 1, 2, 2])
    ask = {"frames": frames, "person_id": HER, "query_frame": 0}
    same = rank(world, np.array([1, 0]), cameras="same", **ask)
    other = rank(world, np.array([1, 0]), cameras="other", **ask)
    assert set(world.detections.frame[same.detection]) == {1} and same.positives == 1
    assert set(world.detections.frame[other.detection]) == {2, 3} and other.positives == 2
    assert len(rank(world, np.array([1, 0]), cameras="all", **ask)) == len(same) + len(other)


@pytest.mark.parametrize("options, sentence", [
    ({"cameras": "smae"}, "unknown camera filter 'smae'"),
    ({"cameras": "same", "query_frame": 0}, "does not know its cameras"),
    ({"cameras": "other"}, "has no camera"),
])
def test_filters_that_cannot_be_are_one_sentence(options, sentence):
    frames, world = worked()
    with pytest.raises(UserError, match=sentence):
        rank(world, np.array([1, 0]), frames=frames, **options)


def test_a_filter_that_leaves_no_frame_says_so():
    frames = frames_of([[(BOX, HER)], [(BOX, HER)]], cameras=[1, 1])
    with pytest.raises(UserError, match="no frame is left to search with cameras='other'"):
        rank(worked()[1], np.array([1, 0]), frames=frames, person_id=HER, query_frame=0, cameras="other")


def test_embeddings_of_another_model_are_refused():
    frames, world = worked()
    with pytest.raises(UserError, match="make both with the same model"):
        rank(world, np.ones(3), frames=frames)


def toy():
    model, data = toy_model().eval(), toy_split("test")
    return model, data, embed_gallery(model, data)


def test_galleries_by_name_for_queries_and_for_anybody_else():
    data = toy_split("test")
    assert gallery_names(data) == [*data.protocols, "all frames"]
    protocol = data.protocols["TestG50"]
    query = protocol.queries[0]
    assert gallery_of(data, "TestG50", query_frame=query.frame, person_id=query.person_id) is protocol.galleries[0]
    whole = gallery_of(data, "all frames", query_frame=query.frame, person_id=query.person_id)
    assert sorted(whole.frames) == [index for index in range(len(data.frames)) if index != query.frame]
    asked = {(one.frame, one.person_id) for one in protocol.queries}
    frame, person = next((index, int(who)) for index, one in enumerate(data.frames) for who in one.person_ids
                         if who != UNLABELLED and (index, int(who)) not in asked)  # fmt: skip
    made = gallery_of(data, "TestG50", query_frame=frame, person_id=person)
    again = gallery_of(data, "TestG50", query_frame=frame, person_id=person)
    assert np.array_equal(made.frames, again.frames) and frame not in made.frames
    assert len(set(made.frames.tolist())) == len(made.frames) == len(protocol.galleries[0].frames)
    assert sorted(made.positive_frames) == [index for index, one in enumerate(data.frames)
                                            if index != frame and person in one.person_ids]  # fmt: skip
    with pytest.raises(UserError, match="unknown gallery 'TestG51'"):
        gallery_of(data, "TestG51")


def test_prw_galleries_follow_the_cameras():
    frames = frames_of([[(BOX, HER)], [(BOX, HER), (BOX + 9, HER)], [(BOX, HER)]], cameras=[1, 1, 2])
    protocols = {name: Protocol(name, [], []) for name in ("regular", "cross-camera")}
    data = PersonSearchSet("prw", "test", None, frames, protocols)
    assert gallery_of(data, "regular", query_frame=0, person_id=HER).frames.tolist() == [1, 2]
    assert gallery_of(data, "regular", query_frame=0, person_id=HER).positive_frames.tolist() == [1, 2]
    assert gallery_of(data, "cross-camera", query_frame=0, person_id=HER).frames.tolist() == [2]
    assert gallery_of(data, "cross-camera").frames.tolist() == [0, 1, 2]


def test_hardest_lists_the_worst_query_first():
    frames, world = worked()
    truth = Detections.from_ground_truth(frames, np.ones((6, 2), np.float32))
    world = GalleryEmbeddings(world.detections, truth, np.zeros(6))
    nobody = Gallery(np.array([3]), np.array([], int), np.empty((0, 4)))
    listed = [Gallery(np.array([1, 2]), np.array([1, 2]), np.stack([BOX, BOX])),
              Gallery(np.array([3]), np.array([3]), BOX[None]), nobody]  # fmt: skip
    protocol = Protocol("toy", [Query(0, BOX, HER)] * 3, listed)
    order = hardest(protocol, world, num_frames=4)
    assert [number for number, _ in order] == [1, 0], "a query that nothing can answer is not a failure"
    assert order[0][1] == 0 and order[1][1] == pytest.approx((1 / 2 + 2 / 3) / 2)
    queries = ground_truth_queries(protocol, truth)
    assert order[1][1] == pytest.approx(search(protocol, world.detections, queries, num_frames=4).ap[0])


def test_a_ranking_with_a_wrong_verdict_would_be_seen():
    """The comparison with the loops is no comparison of a thing with itself: a planted fault shows."""
    frames, world, query = drawn_world(0)
    ranking = rank(world, query, frames=frames, person_id=HER, query_frame=0)
    _, verdicts, running, _ = by_hand(world.detections, query, frames, OTHER, 0, 0.0, 10)
    assert ranking.verdict != verdicts and not np.allclose(ranking.running_ap, running)


def test_a_gallery_of_1000_images_is_ranked_whole():
    rng = np.random.default_rng(0)
    frames = frames_of([[(BOX, HER), (BOX + 100, OTHER)]] * 1000)
    number = np.repeat(np.arange(1000), 7)
    boxes = rng.uniform(0, 100, (7000, 4)).astype(np.float32)
    boxes[:, 2:] = boxes[:, :2] + 40
    world = gallery(number, boxes, rng.uniform(0, 1, 7000), rng.standard_normal((7000, 48)))
    ranking = rank(world, rng.standard_normal(48), frames=frames, person_id=HER, query_frame=0)
    assert isinstance(ranking, Ranking) and len(ranking) == 6993
    assert (np.diff(ranking.similarity) <= 0).all() and set(ranking.detection.tolist()) == set(range(7, 7000))


def test_the_benchmark_says_what_it_measured(capsys):
    assert 0 < benchmark_ranking(gallery_size=40, repeats=2) < 5
    assert "gallery of 40 tiny images" in capsys.readouterr().out


def test_the_benchmark_of_scenes_says_what_it_measured(capsys):
    measured = benchmark_scenes(scenes=2, repeats=1)
    printed = capsys.readouterr().out
    assert set(measured) == {"draw", "compress", "read"} and min(measured.values()) > 0
    assert f"{1e3 * measured['draw']:.1f} ms (bar 10 ms)" in printed
    assert f"{measured['draw'] / measured['read']:.1f} times as long" in printed


def test_similarity_of_every_cell_against_a_loop():
    model, data, found = toy()
    image = read_image(data.frames[0].path)[:, :50, :90]  # sides that are no multiple of the stride: cells are cut
    query = found.ground_truth.embeddings[0]
    maps = frame_maps(model, image)
    assert maps.level == "P3" and maps.scores.shape == (-(-50 // maps.stride), -(-90 // maps.stride))
    with torch.no_grad():
        from pslib.models.batching import batch_images

        dense = model.dense(batch_images([image], multiple=model.backbone.strides[-1]))
    wide = -(-90 // model.backbone.strides[-1]) * model.backbone.strides[-1] // maps.stride
    similar = maps.similarity(3 * query)
    for row in range(similar.shape[0]):
        for column in range(similar.shape[1]):
            cell = model.normalize(dense.embeddings[0, row * wide + column][None])[0].detach().numpy()
            assert similar[row, column] == pytest.approx(float(cell @ query), abs=1e-5)
            assert maps.scores[row, column] == pytest.approx(float(dense.scores[0, row * wide + column]), abs=1e-6)
    assert np.allclose(maps.scores, maps.classes * maps.centerness, atol=1e-6)


def test_detections_of_the_frame_view_are_the_gallerys():
    model, data, found = toy()
    maps = frame_maps(model, read_image(data.frames[1].path))
    own = found.detections.frame == 1
    assert np.allclose(maps.boxes, found.detections.boxes[own], atol=1e-3)
    assert np.allclose(maps.box_scores, found.detections.scores[own], atol=1e-5)


def test_the_map_of_another_level_and_its_bad_input():
    model = toy_model(levels=("P3", "P4")).eval()
    image = torch.zeros(3, 64, 96, dtype=torch.uint8)
    fine, coarse = frame_maps(model, image), frame_maps(model, image, level="P4")
    assert (coarse.stride, coarse.scores.shape) == (2 * fine.stride, tuple(side // 2 for side in fine.scores.shape))
    with pytest.raises(UserError, match="unknown pyramid level of this model 'P5'"):
        frame_maps(model, image, level="P5")
    for query, sentence in ((np.ones(3), "same model"), (np.zeros(16), "points nowhere")):
        with pytest.raises(UserError, match=sentence):
            fine.similarity(query)
