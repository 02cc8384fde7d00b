"""Draws the synthetic sets and writes them where the readers of the real sets find them.

``make("tiny", Path("data/synthetic"))`` leaves four folders below ``data/synthetic/tiny``: ``cuhk-sysu`` and ``prw``
with train and test, and ``cuhk-sysu-val`` and ``prw-val``, whose *test* split holds the validation people.  Nobody is
in two splits.  The same seed gives the same pixels on any number of workers.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
from PIL import Image

from pslib.data.annotations import UNLABELLED
from pslib.data.drawing import Batch, World, camera_places, disk_errors, draw_batch, jpeg, read_record
from pslib.data.folders import IMAGES, clear_for, count_images, writing
from pslib.data.layouts import DrawnFrame, write_bytes, write_cuhk_sysu, write_prw
from pslib.data.manifest import read_manifest
from pslib.data.oddities import add_cuhk_oddities, add_prw_oddities
from pslib.data.paper_layout import make_thin
from pslib.data.plans import Job, gapped_ids, generator, plan_scenes, plan_walks
from pslib.data.profiles import Profile, profile_named
from pslib.data.protocols import cuhk_protocols, prw_queries
from pslib.data.scenes import GENERATOR_VERSION, render, sample_people, sample_scene
from pslib.data.workers import process_pool
from pslib.errors import UserError, require_choice
from pslib.progress import progress

__all__ = ["SETS", "dealt", "make"]

SETS = ("cuhk-sysu", "prw", "cuhk-sysu-val", "prw-val")
LAYOUT_VERSION = 1  # raise it with every change of plans, protocols or files that moves an annotation
_BATCH = 16  # jobs drawn between two records


def make(
    profile: str | Profile,
    out: Path | str,
    workers: int | None = None,
    only: str | Sequence[str] | None = None,
    odd_corners: bool = False,
) -> dict[str, dict]:
    """Draw the sets of a profile below ``out/<profile>``, or find them there; their manifests by set name.

    Args:
        workers: processes; by default one a core.
        only: the name or names of :data:`SETS` to make.
        odd_corners: plant the released sets' known oddities: a query in its own gallery, a repeated gallery image,
            a person twice in one frame, sums beyond uint8, negative coordinates, all three annotation keys.

    Raises:
        UserError: unknown profile or set, a full disk, a folder in the way that is not ours.
    """
    if profile == "paper-layout":
        return make_thin(Path(out) / profile, only)
    profile = profile_named(profile) if isinstance(profile, str) else profile
    names = [only] if isinstance(only, str) else list(only or SETS)
    for name in names:
        require_choice("set", name, SETS)
    sets = [_DrawnSet(profile, name, Path(out) / profile.name / name, odd_corners) for name in names]
    with disk_errors(Path(out)), ExitStack() as locks:
        # In one order for everybody, so that two processes never wait for each other.
        for drawn in sorted(sets, key=lambda drawn: drawn.name):
            if not drawn.complete():
                locks.enter_context(writing(drawn.root, drawn.name))
        todo = [drawn for drawn in sets if not drawn.complete()]
        for drawn in todo:
            drawn.prepare()
        _draw([(batch, drawn, split) for drawn in todo for split, batch in drawn.batches()], workers)
        for drawn in progress(todo, "annotate") if todo else ():
            drawn.finish()
    return {drawn.name: drawn.manifest() for drawn in sets}


def dealt(root: Path, split: str, profile: Profile | None = None) -> tuple[list[Job], World]:
    """What was drawn in a split of the drawn set at ``root``: its jobs and their world, dealt again from the seed.

    ``split`` as the set is loaded, "train" or "test"; ``profile`` where the set was drawn with one that has no name.
    Raises UserError if the set was not drawn by this version of the generator, which would paint other pixels.
    """
    try:
        manifest = read_manifest(root) or {}
        name, odd_corners, plan = manifest["set"], manifest["odd_corners"], manifest["plan"]
        drawn_as = manifest["profile"]
    except (UserError, KeyError):
        raise UserError(f"{root} has no manifest of a drawn set: only drawn people can be drawn again.") from None
    drawn = _DrawnSet(profile or profile_named(drawn_as), name, root, odd_corners)
    if drawn.plan != plan:
        raise UserError(f"{root} was drawn by another version of the generator: draw it again with 'pslib data make'.")
    return drawn.deal("validation" if "validation" in drawn.splits else split)


# Each worker keeps the worlds of its run: people are sent once, not with every batch.
_worlds: dict[tuple[str, str], World] = {}


def _keep(worlds: dict[tuple[str, str], World]) -> None:
    _worlds.update(worlds)


def _draw_for(key: tuple[str, str], batch: Batch) -> int:
    return draw_batch(batch, _worlds[key])


def _draw(work: list[tuple[Batch, "_DrawnSet", str]], workers: int | None) -> None:
    """Draw all batches, in parallel where that is asked for, behind one progress bar that counts batches."""
    work = [item for item in work if not item[0].record.exists()]
    if not work:
        return
    worlds = {(drawn.name, split): drawn.worlds[split] for _, drawn, split in work}
    workers = min(workers or os.cpu_count() or 1, len(work))
    if workers == 1:
        for batch, drawn, split in progress(work, "draw"):
            draw_batch(batch, drawn.worlds[split])
        return
    with process_pool(workers, _keep, worlds) as pool:
        futures = [pool.submit(partial(_draw_for, (drawn.name, split)), batch) for batch, drawn, split in work]
        try:
            for future in progress(futures, "draw"):
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


@dataclass
class _DrawnSet:
    """One of the four sets: what to draw, where it lies, whether it is finished."""

    profile: Profile
    name: str
    root: Path
    odd_corners: bool

    def __post_init__(self) -> None:
        self.kind = self.name.removesuffix("-val")
        self.knobs = self.profile.knobs if self.kind == "cuhk-sysu" else self.profile.prw_knobs
        self.splits = ("validation",) if self.name.endswith("-val") else ("train", "test")
        self.images = self.root / IMAGES[self.kind]
        self.records = self.root / ".drawing"
        settings = {**asdict(self.profile), "set": self.name, "odd_corners": self.odd_corners}
        versions = {"generator": GENERATOR_VERSION, "layout": LAYOUT_VERSION, "probe": _probe()}
        self.plan = hashlib.sha256(json.dumps([settings, versions], sort_keys=True).encode()).hexdigest()

    def manifest(self) -> dict:
        return read_manifest(self.root) or {}

    def complete(self) -> bool:
        """True if a manifest of this very plan stands over as many images as it counts."""
        try:
            manifest = self.manifest()
            counted = manifest["counts"]["images"] if manifest["plan"] == self.plan else None
            return counted == count_images(self.root, self.kind)
        except (UserError, KeyError, TypeError):
            return False

    def prepare(self) -> None:
        """Make the folders and the jobs; clear away what another plan left, and only what is ours."""
        self.jobs, self.worlds = {}, {}
        for split in self.splits:  # before anything is cleared away: a plan may be impossible
            self.jobs[split], self.worlds[split] = self.deal(split)
        clear_for(self.root, self.name, "plan", self.plan)
        self.images.mkdir(parents=True, exist_ok=True)

    def deal(self, split: str) -> tuple[list[Job], World]:
        """What is drawn in one split, from the profile's seed alone: the same at any time."""
        ids = self._ids()[("train", "validation", "test").index(split)]
        people = sample_people(len(ids), generator(self.profile.seed, self.kind, split, "people"), self.knobs)
        cameras = camera_places(self.profile.seed, self.knobs) if self.kind == "prw" else ()
        appearance = dict(zip(ids.tolist(), people, strict=True))
        return self._jobs(split, ids), World(self.knobs, appearance, self.images, cameras, self.kind == "cuhk-sysu")

    def _ids(self) -> list[np.ndarray]:
        profile = self.profile
        people = [profile.train.people, profile.validation.people, profile.test.people]
        return gapped_ids(people, generator(profile.seed, self.kind, "ids"))

    def _jobs(self, split: str, ids: np.ndarray) -> list[Job]:
        profile, word = self.profile, f"{self.kind} {split}"
        order = ("train", "validation", "test").index(split)
        size = (profile.train, profile.validation, profile.test)[order]
        if self.kind == "prw":
            return plan_walks(
                ids, profile.walks, profile.walk_frames, size.scenes, profile.prw_sizes, order + 1, profile.seed, word
            )
        # train and test images are numbered through each other, as in the released set
        total = sum(getattr(profile, name).scenes for name in self.splits)
        numbers = generator(profile.seed, self.name, "names").permutation(total) + 1
        first = 0 if split == self.splits[0] else getattr(profile, self.splits[0]).scenes
        names = [f"s{number}.jpg" for number in numbers[first : first + size.scenes]]
        sizes = [(144, 320)] if self.odd_corners else profile.cuhk_sizes  # wide enough for sums beyond 255
        return plan_scenes(ids, profile.sightings[order], names, sizes, profile.seed, word)

    def batches(self) -> Iterator[tuple[str, Batch]]:
        for split, jobs in self.jobs.items():
            for start in range(0, len(jobs), _BATCH):
                record = self.records / f"{split}-{start:06d}.json"
                yield split, Batch(record, tuple(jobs[start : start + _BATCH]))

    def finish(self) -> None:
        """Write annotations and protocols, and the manifest as the last file of all."""
        frames: dict[str, list[DrawnFrame]] = {"train": [], "validation": [], "test": []}
        for split, batch in self.batches():
            frames[split] += read_record(batch.record)
        train, test = frames["train"], frames["validation"] or frames["test"]
        rng = generator(self.profile.seed, self.name, "protocols")
        per_person = self.profile.queries_per_person
        if self.kind == "cuhk-sysu":
            if self.odd_corners:
                test = add_cuhk_oddities(test)
            protocols = cuhk_protocols(test, per_person, self.profile.gallery_sizes, rng, self.odd_corners)
            write_cuhk_sysu(self.root, train, test, protocols)
            queries = protocols[0].queries
        else:
            if self.odd_corners:
                train, test = add_prw_oddities(train), add_prw_oddities(test)
            queries = prw_queries(test, per_person, rng)
            write_prw(self.root, train, test, queries, self.odd_corners)
            self._query_boxes(test, queries)
        self._write_manifest(train, test, queries)
        shutil.rmtree(self.records)

    def _query_boxes(self, test: Sequence[DrawnFrame], queries: Sequence) -> None:
        """The queries cut out, as PRW ships them; no reader of ours needs them."""
        (self.root / "query_box").mkdir(exist_ok=True)
        for query in queries:
            frame = test[query.frame]
            x, y, w, h = frame.boxes[query.row]
            with Image.open(self.images / frame.name) as image:
                crop = np.asarray(image.crop((round(x), round(y), round(x + w), round(y + h))))
            write_bytes(self.root / "query_box" / f"{frame.person_ids[query.row]}_{frame.name}", jpeg(crop))

    def _write_manifest(self, train: list[DrawnFrame], test: list[DrawnFrame], queries: Sequence) -> None:
        everyone = [*train, *test]
        content = {
            "profile": self.profile.name,
            "set": self.name,
            "kind": self.kind,
            "seed": self.profile.seed,
            "generator_version": GENERATOR_VERSION,
            "layout_version": LAYOUT_VERSION,
            "odd_corners": self.odd_corners,
            "knobs": asdict(self.knobs),
            "counts": {
                "images": len(everyone),
                "train": _counts(train),
                "test": {**_counts(test), "queries": len(queries)},
            },
            "plan": self.plan,
            "fingerprint": _fingerprint(everyone, asdict(self.knobs)),
        }
        write_bytes(self.root / "manifest.json", (json.dumps(content, indent=1) + "\n").encode())


@cache
def _probe() -> str:
    """A digest of one drawn scene: pictures of an older generator are redrawn even if its version was not raised."""
    rng = generator(0, "probe")
    scene = sample_scene(list(enumerate(sample_people(3, rng))), rng)
    return hashlib.sha256(render(scene).image.tobytes()).hexdigest()[:16]


def _counts(frames: Sequence[DrawnFrame]) -> dict[str, int]:
    ids = np.concatenate([frame.person_ids for frame in frames]) if frames else np.empty(0, np.int64)
    labelled = ids[ids != UNLABELLED]
    return {
        "images": len(frames),
        "boxes": len(ids),
        "labelled boxes": len(labelled),
        "people": len(np.unique(labelled)),
    }


def _fingerprint(frames: Sequence[DrawnFrame], knobs: dict) -> str:
    """SHA-256 over annotations and knobs; not over image bytes, which differ with the JPEG encoder's build."""
    digest = hashlib.sha256(json.dumps([knobs, GENERATOR_VERSION], sort_keys=True).encode())
    for frame in sorted(frames, key=lambda frame: frame.name):
        digest.update(frame.name.encode())
        digest.update(np.round(frame.boxes, 2).astype("<f8").tobytes())
        digest.update(frame.person_ids.astype("<i8").tobytes())
    return digest.hexdigest()
