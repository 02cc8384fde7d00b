"""Detection recall and AP against a loop, scikit-learn and hand-worked frames."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from pslib.data.annotations import UNLABELLED, Frame
from pslib.errors import UserError
from pslib.evaluation import detection as detection_module
from pslib.evaluation.detection import detection_metrics
from pslib.evaluation.detections import Detections
from pslib.evaluation.reference import box_iou


def frame_of(boxes, ids):
    return Frame("f", "f.jpg", np.array(boxes, np.float32).reshape(-1, 4), np.array(ids, np.int64))


def found(rows, boxes, scores):
    return Detections(np.array(rows, np.int32), np.array(boxes, np.float32).reshape(-1, 4), scores,
                      np.zeros((len(rows), 1)))


def by_loop(frames, detections, iou, labelled_only, threshold):
    """The rule said aloud: a pair counts if each is the other's best and they overlap enough."""
    people, scores, labels = 0, [], []
    for number, frame in enumerate(frames):
        truth = [box.tolist() for box, person in zip(frame.boxes, frame.person_ids, strict=True)
                 if person != UNLABELLED or not labelled_only]
        people += len(truth)
        rows = [row for row in range(len(detections))
                if detections.frame[row] == number and detections.scores[row] >= threshold]
        table = [[box_iou(detections.boxes[row].tolist(), box) for box in truth] for row in rows]
        for place, row in enumerate(rows):
            right = False
            for person in range(len(truth)):
                column = [line[person] for line in table]
                right = right or (table[place][person] >= iou and table[place].index(max(table[place])) == person
                                  and column.index(max(column)) == place)
            scores.append(float(detections.scores[row]))
            labels.append(right)
    if not any(labels):
        return 0.0, 0.0
    recall = sum(labels) / people
    return recall, average_precision_score(labels, scores) * recall


def draw(seed):
    rng = np.random.default_rng(seed)
    frames, rows, boxes = [], [], []
    for number in range(rng.integers(1, 5)):
        corners = rng.integers(0, 30, (rng.integers(0, 4), 2)).astype(float)
        truth = np.concatenate([corners, corners + rng.integers(5, 25, corners.shape)], axis=1)
        frames.append(frame_of(truth, rng.choice([UNLABELLED, 1, 2], len(truth))))
        for _ in range(rng.integers(0, 6)):
            base = truth[rng.integers(len(truth))] if len(truth) else np.array([0.0, 0, 9, 20])
            boxes.append(base + rng.integers(-3, 4, 4) * rng.choice([0, 1, 2]))
            rows.append(number)
    order = rng.permutation(len(rows))
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return frames, found(np.array(rows, int)[order], boxes[order], rng.choice([.2, .5, .8], len(rows)))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans(), st.sampled_from([0.0, 0.3]), st.sampled_from([0.3, 0.5, 0.9]))
def test_equals_the_loop(seed, labelled_only, threshold, iou):
    frames, detections = draw(seed)
    result = detection_metrics(frames, detections, iou, labelled_only, threshold)
    recall, ap = by_loop(frames, detections, iou, labelled_only, threshold)
    assert result.recall == pytest.approx(recall) and result.ap == pytest.approx(ap)
    matched = result.matched_person[result.right]
    assert len(np.unique(matched)) == len(matched)  # nobody is found twice
    assert result.num_people == sum((frame.person_ids != UNLABELLED).sum() if labelled_only else len(frame.boxes)
                                    for frame in frames)


def test_five_detections_by_hand():
    # Three people; ranking: right, wrong (a second box on the first), right, wrong, wrong; one person never found.
    frames = [frame_of([[0, 0, 10, 20], [30, 0, 40, 20]], [1, 2]), frame_of([[0, 0, 10, 20]], [1])]
    detections = found([0, 0, 0, 0, 1], [[0, 0, 10, 20], [0, 0, 10, 18], [30, 0, 40, 20], [60, 0, 70, 20],
                                         [50, 0, 60, 20]], [.9, .8, .7, .6, .5])
    result = detection_metrics(frames, detections)
    assert result.recall == pytest.approx(2 / 3) and result.ap == pytest.approx((1 / 1 + 2 / 3) / 3)
    assert result.matched_person.tolist() == [0, -1, 1, -1, -1]


def test_labelled_only_changes_the_people_but_not_the_detections():
    frames = [frame_of([[0, 0, 10, 20], [30, 0, 40, 20]], [0, UNLABELLED])]  # identity 0 counts as labelled
    detections = found([0, 0], [[30, 0, 40, 20], [0, 0, 10, 20]], [.9, .8])
    everyone = detection_metrics(frames, detections)
    assert (everyone.recall, everyone.ap) == (1, 1)
    labelled = detection_metrics(frames, detections, labelled_only=True)
    assert (labelled.recall, labelled.ap) == (1, 0.5)  # the unlabelled person's box is now a wrong one, at rank 1
    assert labelled.num_people == 1 and labelled.num_detections == 2


def test_score_threshold_lowers_recall():
    frames = [frame_of([[0, 0, 10, 20]], [1])]
    detections = found([0], [[0, 0, 10, 20]], [.1])
    assert detection_metrics(frames, detections).recall == 1
    cut = detection_metrics(frames, detections, score_threshold=0.2)
    assert (cut.recall, cut.ap, cut.num_detections) == (0, 0, 0)


def test_perfect_detector_and_empty_things():
    frames = [frame_of([[0, 0, 10, 20]], [1]), frame_of([], []), frame_of([[5, 5, 9, 20]], [UNLABELLED])]
    perfect = detection_metrics(frames, Detections.from_ground_truth(frames))
    assert (perfect.recall, perfect.ap) == (1, 1)
    nothing = detection_metrics(frames, Detections.empty(4))
    assert (nothing.recall, nothing.ap, nothing.num_people) == (0, 0, 2)
    nobody = detection_metrics(frames[1:2], found([0], [[0, 0, 5, 5]], [.5]))
    assert (nobody.recall, nobody.ap, nobody.num_people) == (0, 0, 0)
    unlabelled = detection_metrics(frames[2:], Detections.from_ground_truth(frames[2:]), labelled_only=True)
    assert (unlabelled.recall, unlabelled.ap) == (0, 0)
    assert detection_metrics([], Detections.empty(1)).ap == 0
    assert len(Detections.from_ground_truth([])) == 0


def test_detection_outside_the_set():
    with pytest.raises(UserError, match="frame 1 but the set has 1 frames"):
        detection_metrics([frame_of([], [])], found([1], [[0, 0, 5, 5]], [.5]))


def test_the_comparison_notices_planted_faults(monkeypatch):
    right = detection_module.segment_argmax

    calls = itertools.count()

    def one_sided(values, segments):  # being the detection's best person suffices: doubles are found twice
        return right(values, segments) if next(calls) % 2 == 0 else slice(None)

    monkeypatch.setattr(detection_module, "segment_argmax", one_sided)
    with pytest.raises(AssertionError):
        for seed in range(40):
            frames, detections = draw(seed)
            assert detection_metrics(frames, detections).recall == by_loop(frames, detections, 0.5, False, 0)[0]
