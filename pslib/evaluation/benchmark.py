"""How fast the search evaluator is, against the loop version, on sets of the real sizes (``pslib bench evaluator``),
how fast one new query is ranked (``pslib bench browser``), and how fast a scene is drawn (``pslib bench scene``)."""

import io
import resource
import sys
import time

import numpy as np
from PIL import Image

from pslib.data.annotations import Frame, Gallery, Protocol, Query
from pslib.data.drawing import jpeg
from pslib.data.pictures import to_pixels
from pslib.data.scenes import render, sample_person, sample_scene
from pslib.evaluation.cost import take_turns
from pslib.evaluation.detections import Detections, normalize
from pslib.evaluation.gallery import GalleryEmbeddings
from pslib.evaluation.ranking import rank
from pslib.evaluation.reference import reference_search
from pslib.evaluation.search import search

__all__ = ["benchmark_evaluator", "benchmark_ranking", "benchmark_scenes", "drawn_protocol"]


def drawn_protocol(queries: int, gallery_size: int, frames: int, dim: int = 256, per_frame: float = 7.0,
                   positives: float = 1.9, seed: int = 0) -> tuple[Protocol, Detections, np.ndarray]:
    """Random detections (Poisson, ``per_frame`` each) and a protocol of the given size; nothing is read from disk.

    Each query has 1 + Poisson(positives - 1) positive frames; her box there is one of the detections, and that
    detection's embedding is drawn near hers, so that rankings are neither perfect nor random.
    """
    rng = np.random.default_rng(seed)
    held = np.maximum(rng.poisson(per_frame, frames), 1)
    frame = np.repeat(np.arange(frames, dtype=np.int32), held)
    corner = rng.uniform(0, 800, (len(frame), 2))
    side = np.stack([rng.uniform(30, 120, len(frame)), rng.uniform(60, 300, len(frame))], axis=1)
    boxes = np.concatenate([corner, corner + side], axis=1).astype(np.float32)
    embeddings = normalize(rng.standard_normal((len(frame), dim), dtype=np.float32))
    query_embeddings = normalize(rng.standard_normal((queries, dim), dtype=np.float32))
    first = np.cumsum(held) - held
    listed, galleries = [], []
    for number in range(queries):
        own = int(rng.integers(frames))
        pool = rng.permutation(frames)[:gallery_size + 1] if gallery_size < frames else np.arange(frames)
        pool = pool[pool != own][:gallery_size].astype(np.int32)
        shown = pool[rng.permutation(len(pool))[:1 + rng.poisson(positives - 1)]]
        rows = first[shown] + rng.integers(held[shown])
        noise = rng.standard_normal((len(rows), dim), dtype=np.float32) / np.sqrt(dim, dtype=np.float32)
        embeddings[rows] = normalize(query_embeddings[number] + 2.5 * noise)
        listed.append(Query(own, boxes[first[own]], number))
        galleries.append(Gallery(pool, shown, boxes[rows]))
    detections = Detections(frame, boxes, rng.uniform(0.1, 1, len(frame)), embeddings)
    return Protocol(f"drawn {queries} x {gallery_size}", listed, galleries), detections, query_embeddings


def benchmark_evaluator(scale: float = 1.0) -> dict[str, float]:
    """Time :func:`search` at the sizes of CUHK-SYSU (100 and 4,000 images) and PRW, and the loop version at 100.

    Prints one line a case and returns seconds by case, the ratio, and the peak memory of the process in GB.
    ``scale`` < 1 shortens the list of queries (tests use it); the bars hold for 1.
    """
    cases = {"CUHK-SYSU 100": (2900, 100, 6978, 1.9, 1.0), "CUHK-SYSU 4000": (2900, 4000, 6978, 1.9, 15.0),
             "PRW regular": (2057, 6112, 6112, 36.0, 10.0)}
    measured: dict[str, float] = {}
    for name, (queries, size, frames, positives, bar) in cases.items():
        queries = max(2, round(queries * scale))
        protocol, detections, embeddings = drawn_protocol(queries, size, frames, positives=positives)
        num_frames = frames
        seconds = []
        for _ in range(3 if size == 100 else 1):
            start = time.perf_counter()
            result = search(protocol, detections, embeddings, num_frames=num_frames)
            seconds.append(time.perf_counter() - start)
        measured[name] = float(np.median(seconds))
        print(f"{name}: {queries} queries x {len(protocol.galleries[0].frames)} images, {len(detections)} detections: "
              f"{measured[name]:.2f} s (bar {bar:g} s), mAP {100 * result.mean_ap:.1f}")
        if size == 100:
            start = time.perf_counter()
            slow = reference_search(protocol, detections, embeddings)
            measured["loop"] = time.perf_counter() - start
            measured["ratio"] = measured["loop"] / measured[name]
            difference = float(np.abs(result.ap - [outcome["ap"] for outcome in slow]).max())
            print(f"  loop version: {measured['loop']:.2f} s, {measured['ratio']:.1f} times as long (bar 10); "
                  f"largest difference in AP {difference:.1e}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    measured["peak GB"] = peak / (2**30 if sys.platform == "darwin" else 2**20)
    print(f"peak memory of the process: {measured['peak GB']:.2f} GB (bar 4 GB)")
    return measured


def benchmark_ranking(gallery_size: int = 1000, repeats: int = 20) -> float:
    """Time :func:`rank` for new queries, warm, over as many tiny images (48-dimensional embeddings, annotations of
    as many people as detections, all with verdicts); prints and returns the slowest of ``repeats`` queries, seconds."""
    frames = gallery_size + 1  # the query's own is not searched
    protocol, detections, embeddings = drawn_protocol(repeats, gallery_size, frames, dim=48, per_frame=4.0)
    by_frame = np.split(detections.boxes, np.cumsum(np.bincount(detections.frame, minlength=frames))[:-1])
    people = [np.full(len(boxes), repeats, np.int64) for boxes in by_frame]  # nobody's number, but the queries' below
    for query, gallery in zip(protocol.queries, protocol.galleries, strict=True):
        for frame, box in zip(gallery.positive_frames, gallery.positive_boxes, strict=True):
            people[frame][(by_frame[frame] == box).all(axis=1)] = query.person_id
    listed = [Frame(f"{number}.jpg", None, boxes, who)
              for number, (boxes, who) in enumerate(zip(by_frame, people, strict=True))]
    gallery = GalleryEmbeddings(detections, detections, np.concatenate(people))
    seconds = []
    for number in (0, *range(repeats)):
        query = protocol.queries[number]
        start = time.perf_counter()
        ranking = rank(gallery, embeddings[number], frames=listed, person_id=query.person_id, query_frame=query.frame)
        seconds.append(time.perf_counter() - start)
    warm = seconds[1:]
    print(f"new query, gallery of {ranking.frames} tiny images, {len(ranking)} detections, warm: slowest of {repeats} "
          f"{max(warm):.3f} s, median {float(np.median(warm)):.3f} s (bar 0.2 s)")
    return max(warm)


def benchmark_scenes(scenes: int = 40, repeats: int = 5) -> dict[str, float]:
    """Time drawing ``scenes`` (144 x 224 px, three people, a passer-by), compressing and reading them, in turns.

    Prints one line and returns the mean seconds of processor time of the quickest turn: "draw", "compress", "read".
    """
    generators = [np.random.default_rng(seed) for seed in range(scenes)]
    given = [sample_scene([(k, sample_person(rng)) for k in range(3)], rng, unlabelled=1) for rng in generators]
    images = [render(scene).image for scene in given]
    files = [jpeg(image) for image in images]
    calls = {
        "draw": lambda: [render(scene) for scene in given],
        "compress": lambda: [jpeg(image) for image in images],
        "read": lambda: [to_pixels(Image.open(io.BytesIO(file))) for file in files],
    }
    measured = {name: min(times.cpu) / scenes for name, times in take_turns(calls, repeats).items()}
    print(f"a scene, three people and a passer-by, one core, quickest of {repeats} turns of {scenes}: "
          f"{1e3 * measured['draw']:.1f} ms (bar 10 ms), {measured['draw'] / measured['read']:.1f} times as long as "
          f"reading it from JPEG ({1e3 * measured['read']:.1f} ms; compressing {1e3 * measured['compress']:.1f} ms)")
    return measured
