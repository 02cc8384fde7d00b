"""Small drawn protocols whose embeddings are small integers: dot products are exact, so ties are real ties."""

import numpy as np

from pslib.data.annotations import Gallery, Protocol, Query
from pslib.evaluation.detections import Detections


def boxes_near(rng: np.random.Generator, box: np.ndarray, count: int) -> np.ndarray:
    """Boxes (count, 4) around ``box``: some overlap it enough, some a little, some not."""
    size = np.tile(box[2:] - box[:2], 2)
    return (box + rng.choice([0.0, 0.1, 0.3, 0.6, 2.0], (count, 1)) * size * rng.uniform(-1, 1, (count, 4))
            ).astype(np.float32)


def draw_case(seed: int, ties: bool = True, repeats: bool = True) -> tuple[Protocol, Detections, np.ndarray, int]:
    """A protocol with all the oddities: repeated images, own image, nobody there, frames without detections."""
    rng = np.random.default_rng(seed)
    num_frames, num_queries, dim = int(rng.integers(3, 9)), int(rng.integers(1, 6)), 3
    queries, galleries = [], []
    truth: dict[int, list[np.ndarray]] = {frame: [] for frame in range(num_frames)}
    for person in range(num_queries):
        frames = rng.permutation(num_frames)[:rng.integers(1, num_frames + 1)]
        if repeats and rng.random() < 0.5:
            frames = np.concatenate([frames, rng.choice(frames, rng.integers(1, 3))])
        frames = frames.astype(np.int32)
        shown = [int(frame) for frame in frames if rng.random() < 0.5]
        if shown and repeats and rng.random() < 0.3:
            shown.append(shown[0])  # the same person annotated twice in one image
        boxes = []
        for frame in shown:
            corner = rng.uniform(0, 60, 2)
            box = np.concatenate([corner, corner + rng.uniform(3, 60, 2)]).astype(np.float32)
            boxes.append(box)
            truth[frame].append(box)
        own = int(rng.integers(num_frames))
        queries.append(Query(own, np.array([0, 0, 9, 20], np.float32), person))
        galleries.append(Gallery(frames, np.array(shown, np.int32), np.array(boxes, np.float32).reshape(-1, 4)))
    rows, found = [], []
    for frame in range(num_frames):
        for box in truth[frame]:
            near = boxes_near(rng, box, int(rng.integers(0, 4)))
            found.append(near)
            rows += [frame] * len(near)
        if rng.random() < 0.5:
            found.append(boxes_near(rng, np.array([0, 0, 20, 40], np.float32), 2))
            rows += [frame] * 2
    order = rng.permutation(len(rows))  # rows need not lie in order of frames
    boxes = np.concatenate(found)[order] if found else np.empty((0, 4), np.float32)
    scores = rng.choice([0.1, 0.4, 0.9], len(rows)).astype(np.float32)
    if ties:
        embeddings, query_embeddings = rng.integers(-2, 3, (len(rows), dim)), rng.integers(-2, 3, (num_queries, dim))
    else:
        embeddings, query_embeddings = rng.standard_normal((len(rows), dim)), rng.standard_normal((num_queries, dim))
    detections = Detections(np.array(rows, np.int32)[order], boxes, scores, embeddings.astype(np.float32))
    return Protocol("drawn", queries, galleries), detections, query_embeddings.astype(np.float32), num_frames


def hand_case(similarities: list[list[float]], shown: list[int], found_in: list[int],
              scores: list[float] | None = None) -> tuple[Protocol, Detections, np.ndarray, int]:
    """One query whose gallery is frames 1, 2, ...; ``similarities[f]`` of the detections of frame f + 1.

    She is in frames ``shown``; in those of ``found_in`` the first detection lies on her, all others lie elsewhere.
    """
    box = np.array([0, 0, 40, 80], np.float32)
    rows = [(frame, place, value) for frame, values in enumerate(similarities, 1) for place, value in enumerate(values)]
    boxes = [box if place == 0 and frame in found_in else box + 100 * (place + 1) for frame, place, _ in rows]
    detections = Detections([frame for frame, _, _ in rows], np.array(boxes).reshape(-1, 4),
                            scores or np.ones(len(rows)), [[value, 1] for _, _, value in rows] or np.empty((0, 2)))
    gallery = Gallery(np.arange(1, len(similarities) + 1, dtype=np.int32), np.array(shown, np.int32),
                      np.tile(box, (len(shown), 1)))
    protocol = Protocol("by hand", [Query(0, box, 7)], [gallery])
    return protocol, detections, np.array([[1, 0]], np.float32), len(similarities) + 1
