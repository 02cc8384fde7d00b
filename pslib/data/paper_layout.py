"""Sets of the real sets' size with images of one colour, to test readers and evaluator at scale.

Counts follow the released sets (:mod:`pslib.data.published`): 18,184 images and galleries up to 4,000 in the layout of
CUHK-SYSU, 11,816 frames and 2,057 queries in that of PRW.  Nothing is drawn, so nothing can be learned from them.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from pslib.data.annotations import UNLABELLED
from pslib.data.drawing import disk_errors, jpeg
from pslib.data.folders import IMAGES, clear_for, writing
from pslib.data.layouts import DrawnFrame, write_bytes, write_cuhk_sysu, write_prw
from pslib.data.manifest import read_manifest
from pslib.data.plans import CAMERAS, deal, generator
from pslib.data.protocols import cuhk_protocols, prw_queries
from pslib.errors import UserError, require_choice
from pslib.progress import progress

__all__ = ["REAL", "ThinSplit", "make_thin"]


@dataclass(frozen=True)
class ThinSplit:
    """Counts of one split: frames, people, labelled boxes a person, all boxes."""

    scenes: int
    people: int
    sightings: int
    boxes: int


REAL = {
    "cuhk-sysu": (ThinSplit(11_206, 5_532, 3, 55_272), ThinSplit(6_978, 2_900, 3, 40_871)),
    "prw": (ThinSplit(5_704, 483, 31, 18_048), ThinSplit(6_112, 450, 42, 25_062)),
}
_QUERIES = {"cuhk-sysu": 2_900, "prw": 2_057}
_SIZES = ((300, 400), (240, 320))


def make_thin(
    out: Path, only: str | Sequence[str] | None = None, shrink: int = 1, seed: int = 22,
    gallery_sizes: Sequence[int] = (50, 100, 500, 1000, 2000, 4000),
) -> dict[str, dict]:  # fmt: skip
    """Write the thin sets below ``out``, each count divided by ``shrink``, or find them there; their manifests.

    Raises UserError for an unknown set, a full disk, a folder in the way that is not ours.
    """
    names = [only] if isinstance(only, str) else list(only or REAL)
    manifests = {}
    for name in progress(names, "write thin sets"):
        splits = REAL[require_choice("set", name, REAL)]
        root, settings = out / name, {"set": name, "seed": seed, "shrink": shrink, "galleries": list(gallery_sizes)}
        if not _complete(root, settings):
            with disk_errors(root), writing(root, name):
                if not _complete(root, settings):
                    clear_for(root, name, "settings", json.dumps(settings))
                    _write(name, root, splits, settings)
        manifests[name] = read_manifest(root)
    return manifests


def _complete(root: Path, settings: dict) -> bool:
    try:
        return (read_manifest(root) or {}).get("settings") == settings
    except UserError:
        return False


def _write(name: str, root: Path, splits: tuple[ThinSplit, ThinSplit], settings: dict) -> None:
    seed, shrink = settings["seed"], settings["shrink"]
    rng = generator(seed, "thin", name)
    least = CAMERAS if name == "prw" else 2
    parts = [
        ThinSplit(max(least, s.scenes // shrink), max(2, s.people // shrink), s.sightings, s.boxes // shrink)
        for s in splits
    ]
    frames, first = [], 1
    for part in parts:
        frames.append(_frames(name, part, first, 1 + sum(p.people for p in parts[: len(frames)]), rng))
        first += part.scenes
    train, test = frames
    images = root / IMAGES[name]
    images.mkdir(parents=True, exist_ok=True)
    thin = [jpeg(np.full((*size, 3), 128, np.uint8)) for size in _SIZES]
    for frame in progress([*train, *test], f"images of {name}"):
        (images / frame.name).write_bytes(thin[frame.camera == CAMERAS])
    most = max(1, _QUERIES[name] // shrink)
    if name == "cuhk-sysu":
        protocols = cuhk_protocols(test, 1, settings["galleries"], rng)
        write_cuhk_sysu(root, train, test, progress(protocols, "protocols"))
        queries = len(protocols[0].queries)
    else:
        chosen = prw_queries(test, CAMERAS, rng)[:most]
        write_prw(root, train, test, chosen)
        (root / "query_box").mkdir(exist_ok=True)
        for query in chosen:
            frame = test[query.frame]
            (root / "query_box" / f"{frame.person_ids[query.row]}_{frame.name}").write_bytes(thin[0])
        queries = len(chosen)
    content = {
        "profile": "paper-layout",
        "set": name,
        "kind": name,
        "seed": seed,
        "settings": settings,
        "counts": {"train": asdict(parts[0]), "test": {**asdict(parts[1]), "queries": queries}},
    }
    write_bytes(root / "manifest.json", (json.dumps(content, indent=1) + "\n").encode())
    shutil.rmtree(root / ".drawing")


def _frames(name: str, part: ThinSplit, first: int, first_person: int, rng: np.random.Generator) -> list[DrawnFrame]:
    """Frames with people dealt into them and unlabelled boxes up to the split's count."""
    labelled = part.people * part.sightings
    share = np.full(part.scenes, labelled // part.scenes)
    share[: labelled - int(share.sum())] += 1
    groups = deal(np.arange(first_person, first_person + part.people), part.sightings, rng.permutation(share), rng)
    others = rng.multinomial(max(0, part.boxes - labelled), np.full(part.scenes, 1 / part.scenes))
    frames = []
    for index, (people, unlabelled) in enumerate(zip(groups, others.tolist(), strict=True)):
        camera = index % CAMERAS + 1 if name == "prw" else 0
        height, width = _SIZES[camera == CAMERAS]
        total = len(people) + unlabelled
        # distinct left edges keep the boxes of a frame apart, as identity is attached by equal boxes
        x = rng.choice(width - 80, total, replace=False)
        y, w, h = rng.integers(0, height - 160, total), rng.integers(20, 80, total), rng.integers(40, 160, total)
        frames.append(
            DrawnFrame(
                f"c{camera}s1_{first + index:06d}.jpg" if camera else f"s{first + index}.jpg",
                np.stack([x, y, w, h], axis=1).astype(np.float64),
                np.array([*people, *[UNLABELLED] * unlabelled], np.int64),
                rng.uniform(0.3, 1, total),
                camera,
            )
        )
    return frames
