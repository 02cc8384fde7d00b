"""What claims compare: each measure of a record as values to be drawn anew, one a query, a person or a frame."""

import numpy as np

from pslib.evaluation.separation import own_neighbors, probe_answers
from pslib.experiments.records import READ, Record
from pslib.experiments.tables import main_protocol_of

__all__ = ["NEIGHBORS", "values_of"]

NEIGHBORS = 5  # that identity purity asks
CHANCE = 50.0  # per cent of two branches


def values_of(record: Record, measure: str) -> tuple[np.ndarray, np.ndarray]:
    """What a claim compares, (Q,) in per cent, and the groups (Q,) that its bootstrap draws: query people or frames.

    Raises KeyError with the name of an array that the record does not have.
    """
    arrays = record.arrays
    if measure == "recall":
        return 100.0 * arrays["detection/found"], arrays["detection/frame"]
    if measure == "spread":
        wide, close = (arrays[f"sampling/{path}/radius"].astype(np.float64) for path in ("C4", "C3"))
        return 100 * (wide - close), arrays["sampling/frame"]
    if measure == "inside":
        close, wide = (arrays[f"sampling/{path}/inside"].astype(np.float64) for path in ("C3", "C4"))
        return 100 * (close - wide), arrays["sampling/frame"]
    if measure == "identity purity":
        people = arrays["pictured/people"]
        return 100 * own_neighbors(arrays["pictured/embeddings"], people, NEIGHBORS, "cosine"), people
    if measure == "branch probe":
        branches = [arrays[f"{branch}{READ}pictured/embeddings"] for branch in ("dense", "roi")]
        branch, people = np.repeat([0, 1], len(branches[0])), np.tile(arrays["pictured/people"], 2)
        right = probe_answers(np.concatenate(branches), branch, people, "cosine") == branch
        return 100.0 * right - CHANCE, people
    protocol = main_protocol_of(record)
    if measure == "gallery growth":
        sizes = sorted((name for name in record.info["protocols"] if name.startswith("TestG")), key=_gallery_size)
        return 100 * (record.ap(sizes[-1]) - record.ap(sizes[0])), record.people(sizes[0])
    if measure == "top1":
        return 100.0 * (record.rank(protocol) == 1), record.people(protocol)
    boxes = "ground-truth" if measure == "ground-truth map" else "detected"
    return 100 * record.ap(protocol, boxes), record.people(protocol)


def _gallery_size(protocol: str) -> int:
    return int(protocol.removeprefix("TestG"))
