"""Embeddings that learn nothing: the yardstick a trained model must beat, and the gauge of a set's difficulty.

On ground-truth boxes, so that no detector enters.  They fix the difficulty of the synthetic sets before any model is
trained: random <= 3 mAP, mean color <= 15, six-stripe histogram 15 to 45 (on the validation people).
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from pslib import paths
from pslib.data.annotations import Frame, PersonSearchSet
from pslib.data.loading import load, read_image
from pslib.errors import UserError, require_choice
from pslib.evaluation.detections import Detections, normalize
from pslib.evaluation.embed import ground_truth_queries
from pslib.evaluation.search import SearchResult, search
from pslib.progress import progress

__all__ = ["BANDS", "VALIDATION", "describe_boxes", "difficulty", "difficulty_table", "histogram_search",
           "measure", "mean_color", "stripe_histogram", "widest_protocol"]

BANDS = {"random": (0.0, 3.0), "mean color": (0.0, 15.0), "histogram": (15.0, 45.0)}  # mAP in percent
VALIDATION = {"cuhk-sysu-val": "cuhk-sysu", "prw-val": "prw"}  # folder: layout
STRIPES, HUES, SATURATIONS, VALUES = 6, 8, 4, 4
RANDOM_DIM, RANDOM_DRAWS = 32, 8


def mean_color(crop: np.ndarray) -> np.ndarray:
    """Mean of each channel, (3,) float32 in 0..1, of a crop (H, W, 3) uint8.

    >>> mean_color(np.full((2, 2, 3), 255, np.uint8)).tolist()
    [1.0, 1.0, 1.0]
    """
    return (crop.reshape(-1, 3).mean(axis=0) / 255).astype(np.float32)


def stripe_histogram(crop: np.ndarray) -> np.ndarray:
    """Root of the hue-saturation-value histogram of six horizontal stripes, (768,) float32 of length 1.

    Each stripe counts its pixels in 8 x 4 x 4 cells and weighs the same; the dot product of two such roots is the
    Bhattacharyya coefficient of the histograms.  A stripe without rows (a crop under six pixels high) stays zero.

    >>> float((stripe_histogram(np.zeros((12, 4, 3), np.uint8)) ** 2).sum().round(5))
    1.0
    """
    hue, saturation, value = np.moveaxis(np.asarray(Image.fromarray(crop).convert("HSV"), np.int64), 2, 0)
    cell = (hue * HUES // 256 * SATURATIONS + saturation * SATURATIONS // 256) * VALUES + value * VALUES // 256
    stripe = np.arange(crop.shape[0]) * STRIPES // crop.shape[0]
    cells = HUES * SATURATIONS * VALUES
    counts = np.bincount((stripe[:, None] * cells + cell).ravel(), minlength=STRIPES * cells).reshape(STRIPES, cells)
    return normalize(np.sqrt(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)).reshape(1, -1))[0]


def measure(data: PersonSearchSet, protocol: str, seed: int = 0) -> dict[str, float]:
    """mAP in percent of the three embeddings on ``data.protocols[protocol]``, ground-truth boxes; reads the images.

    Mean colors are compared by Euclidean distance, which counts brightness and not only hue; random embeddings are
    drawn eight times and their mAP averaged.
    """
    truth = _true_boxes(data, protocol)
    colors, histograms = describe_boxes(data.frames, truth)

    def mean_ap(embeddings: np.ndarray, similarity: str = "cosine") -> float:
        return 100 * _search(data, protocol, replace(truth, embeddings=embeddings), similarity).mean_ap

    rng = np.random.default_rng(seed)
    noise = [normalize(rng.standard_normal((len(truth), RANDOM_DIM))) for _ in range(RANDOM_DRAWS)]
    return {"random": float(np.mean([mean_ap(draw) for draw in noise])),
            "mean color": mean_ap(colors, "euclidean"), "histogram": mean_ap(histograms)}


def histogram_search(data: PersonSearchSet, protocol: str) -> SearchResult:
    """The search of ``data.protocols[protocol]`` by stripe histograms on ground-truth boxes; reads the images.

    What a trained model must beat, query by query: the result's ``ap`` (Q,) is in 0..1.
    """
    truth = _true_boxes(data, protocol)
    return _search(data, protocol, replace(truth, embeddings=describe_boxes(data.frames, truth)[1]))


def _true_boxes(data: PersonSearchSet, protocol: str) -> Detections:
    """The annotated boxes of all frames that the protocol's queries and galleries name."""
    require_choice("protocol", protocol, list(data.protocols))
    needed = np.zeros(len(data.frames), bool)
    for query, gallery in zip(data.protocols[protocol].queries, data.protocols[protocol].galleries, strict=True):
        needed[gallery.frames] = needed[query.frame] = True
    truth = Detections.from_ground_truth(data.frames)
    return truth.select(needed[truth.frame])


def _search(data: PersonSearchSet, protocol: str, gallery: Detections, similarity: str = "cosine") -> SearchResult:
    chosen = data.protocols[protocol]
    queries = ground_truth_queries(chosen, gallery)
    return search(chosen, gallery, queries, num_frames=len(data.frames), similarity=similarity)


def difficulty_table(measured: dict[str, dict[str, float]]) -> str:
    """Lines of ``{set name: measure(...)}`` beside the bands, each with "in" or "OUT"."""
    lines = [f"{'mAP in %':24}" + "".join(f"{name:>26}" for name in BANDS)]
    for title, values in measured.items():
        cells = []
        for name, (low, high) in BANDS.items():
            word = "in" if low <= values[name] <= high else "OUT"
            cells.append(f"{values[name]:6.1f} {word:>3} [{low:g}, {high:g}]")
        lines.append(f"{title:24}" + "".join(f"{cell:>26}" for cell in cells))
    return "\n".join(lines)


def difficulty(options) -> None:
    """``pslib data difficulty``: measure the validation sets of ``options.profile`` and print the table.

    ``options.data_root`` is the folder that holds them, by default ``data/synthetic/<profile>``.  With
    ``options.split`` "test" the test people are measured instead, on every protocol: the yardstick beside a model's
    results.  Nothing is chosen by it.
    """
    root = Path(options.data_root) if options.data_root else paths.synthetic_dir(options.profile)
    if options.split == "test":
        print("test people, ground-truth boxes, mAP in %")
        for kind in VALIDATION.values():
            data = load(kind, root / kind, "test")
            for protocol in data.protocols:
                values = "   ".join(f"{name} {value:5.1f}" for name, value in measure(data, protocol).items())
                print(f"  {kind:<10} {protocol:<13} {values}")
        return
    measured, sizes = {}, []
    for name, kind in VALIDATION.items():
        data = load(kind, root / name, "test")
        protocol = widest_protocol(data)
        measured[f"{name}, {protocol}"] = measure(data, protocol)
        chosen = data.protocols[protocol]
        images = np.mean([len(gallery.frames) for gallery in chosen.galleries])
        sizes.append(f"{name}: {len(chosen.queries)} queries of {len({q.person_id for q in chosen.queries})} people, "
                     f"{images:.0f} gallery images each")
    print(difficulty_table(measured))
    print("ground-truth boxes; " + "; ".join(sizes))


def widest_protocol(data: PersonSearchSet) -> str:
    """The protocol the bands are read on: ``regular``, or the largest ``TestG``.

    It searches (almost) all frames.  Of 100 frames with some 280 boxes, seven of them right, a random ranking
    already reaches 4 mAP.
    """
    if "regular" in data.protocols:
        return "regular"
    sizes = [name for name in data.protocols if name.removeprefix("TestG").isdigit()]
    if not sizes:
        raise UserError(f"{data.root} has no protocol regular or TestG..: give a data root made by 'pslib data make'.")
    return max(sizes, key=lambda name: int(name.removeprefix("TestG")))


def describe_boxes(frames: Sequence[Frame], detections: Detections) -> tuple[np.ndarray, np.ndarray]:
    """Mean colors (M, 3) and six-stripe histograms (M, 768) of the boxes; each frame is read once, empty ones not."""
    colors = np.zeros((len(detections), 3), np.float32)
    histograms = np.zeros((len(detections), STRIPES * HUES * SATURATIONS * VALUES), np.float32)
    order = np.argsort(detections.frame, kind="stable")
    pieces = [rows for rows in np.split(order, detections.offsets(len(frames))[1:-1]) if len(rows)]
    for rows in progress(pieces, "describe boxes"):
        image = read_image(frames[detections.frame[rows[0]]].path).permute(1, 2, 0).numpy()  # (H, W, 3)
        for row in rows:
            crop = _crop(image, detections.boxes[row])
            colors[row], histograms[row] = mean_color(crop), stripe_histogram(crop)
    return colors, histograms


def _crop(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The whole pixels of a box within the image, at least one."""
    height, width = image.shape[:2]
    x1, y1 = min(max(int(np.floor(box[0])), 0), width - 1), min(max(int(np.floor(box[1])), 0), height - 1)
    x2, y2 = min(max(int(np.ceil(box[2])), x1 + 1), width), min(max(int(np.ceil(box[3])), y1 + 1), height)
    return np.ascontiguousarray(image[y1:y2, x1:x2])
