"""One door to every data set: ``load`` it, ``describe`` it, read its images, make its training targets."""

import hashlib
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pslib.data.annotations import UNLABELLED, Frame, PersonSearchSet
from pslib.data.cuhk_sysu import read_cuhk_sysu
from pslib.data.manifest import damaged, drawn_with, read_manifest
from pslib.data.pictures import TOO_LARGE, to_pixels
from pslib.data.prw import read_prw
from pslib.data.published import PUBLISHED
from pslib.errors import UserError, require_choice

__all__ = [
    "KINDS", "count", "describe", "fingerprint", "load", "read_ahead", "read_image", "training_labels",
    "training_target",
]  # fmt: skip

_READERS = {"cuhk-sysu": read_cuhk_sysu, "prw": read_prw}
_SIGNS = {"cuhk-sysu": "annotation/Images.mat", "prw": "frame_test.mat"}  # a file that only this layout has
KINDS = tuple(_READERS)


def load(kind: str, root: Path | str, split: str, bad_boxes: str = "raise") -> PersonSearchSet:
    """Read one split of a data set from disk; people without identity are kept as :data:`UNLABELLED`.

    Args:
        kind: ``"cuhk-sysu"`` or ``"prw"``.
        root: the folder that holds ``annotation/`` or ``frames/``.
        split: ``"train"`` or ``"test"``; a validation set keeps its people in its test split.
        bad_boxes: what to do with a box without area inside its image: ``"raise"`` (UserError) or ``"drop"``.

    The protocols of a test split (``dataset.protocols``) are read from disk when first asked for.
    """
    root = Path(root)
    read = _READERS[require_choice("data set", kind, KINDS)]
    require_choice("split", split, ["train", "test"])
    _check_root(kind, root)
    dataset = read(root, split, bad_boxes)
    if not dataset.frames:
        advice = "use another root for training: this may be a validation set" if split == "train" else "restore it"
        raise UserError(f"{root} has no image in its {split} split: {advice}.")
    return dataset


def _check_root(kind: str, root: Path) -> None:
    if not root.is_dir():
        raise UserError(f"the data root {root} is no folder: draw a set with 'pslib data make', or correct the path.")
    if not (root / _SIGNS[kind]).exists():
        for other, sign in _SIGNS.items():
            if other != kind and (root / sign).exists():
                raise UserError(f"{root} holds a {other} set, not {kind}: load it as {other}, or give another root.")
        raise UserError(
            f"{root / _SIGNS[kind]} is missing, so {root} is no {kind} root: give the folder that holds it, "
            "or draw a set with 'pslib data make'."
        )


def fingerprint(root: Path | str, bad_boxes: str = "raise") -> str:
    """What a set says about its images, as a digest: annotations and, of a drawn set, its knobs; never image bytes.

    A drawn set has it in its manifest; of another one the names, boxes and person ids of all frames are digested, read
    with ``bad_boxes`` as in :func:`load`: a set without some of its boxes is another one.
    """
    root = Path(root)
    manifest = read_manifest(root) or {}
    if isinstance(manifest.get("fingerprint"), str):
        return manifest["fingerprint"]
    if "plan" in manifest:  # a drawn set's manifest, which lost its fingerprint
        raise damaged(root)
    kind = next((kind for kind, sign in _SIGNS.items() if (root / sign).exists()), KINDS[0])
    digest = hashlib.sha256()
    for split in ("train", "test"):
        for frame in load(kind, root, split, bad_boxes).frames:
            digest.update(f"{split} {frame.name} {len(frame.boxes)}".encode())
            digest.update(np.round(frame.boxes, 2).astype("<f8").tobytes())
            digest.update(frame.person_ids.astype("<i8").tobytes())
    return digest.hexdigest()


def read_image(path: Path | str) -> Tensor:
    """The image as a uint8 RGB tensor (3, H, W), turned upright where its EXIF says how.

    Raises:
        UserError: the file is missing, truncated, too large, or no image.
    """
    try:
        with Image.open(path) as image:
            pixels = to_pixels(image)
        # NumPy turns it: PyTorch's threads belong to the model that computes meanwhile.
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: restore it from the data set, or draw the set again.") from None
    except Image.DecompressionBombError:
        raise UserError(TOO_LARGE.format(path=path)) from None
    except (OSError, SyntaxError, ValueError):  # Pillow's ways to say that a file is damaged
        raise UserError(
            f"{path} does not decode as an image (it is truncated or damaged): restore it from the data set."
        ) from None


def read_ahead(paths: Iterable[Path | str], ahead: int) -> Iterator[Tensor]:
    """Images of ``paths`` in their order, each as of :func:`read_image`.

    Threads read up to ``ahead`` of them while the caller works on those before.  Raises UserError where the first bad
    image would be returned, as reading one by one would.
    """
    with ThreadPoolExecutor(min(ahead, os.cpu_count() or 1)) as readers:
        waiting: deque[Future[Tensor]] = deque()
        for path in paths:
            waiting.append(readers.submit(read_image, path))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def training_labels(dataset: PersonSearchSet) -> dict[int, int]:
    """Raw person id -> training label, asserted to be exactly 0..I-1 in order of the raw ids."""
    labels = dataset.labels()
    assert sorted(labels.values()) == list(range(len(labels))), "labels must be 0..I-1 without gaps"
    assert UNLABELLED not in labels, "people without identity must not get a row of the table"
    return labels


def training_target(frame: Frame, labels: dict[int, int]) -> dict[str, Tensor]:
    """``boxes`` (N, 4) float32 ``[x1, y1, x2, y2]`` and ``labels`` (N,) int64: 0..I-1, or UNLABELLED."""
    rows = [UNLABELLED if person == UNLABELLED else labels[person] for person in frame.person_ids.tolist()]
    boxes = torch.from_numpy(frame.boxes.reshape(-1, 4).copy())
    return {"boxes": boxes, "labels": torch.tensor(rows, dtype=torch.int64)}


def count(dataset: PersonSearchSet) -> dict[str, int]:
    """What a split holds: images, boxes, labelled and unlabelled, people, queries (test only)."""
    labelled = sum(int((frame.person_ids != UNLABELLED).sum()) for frame in dataset.frames)
    boxes = sum(len(frame.boxes) for frame in dataset.frames)
    counts = {
        "images": len(dataset.frames),
        "boxes": boxes,
        "labelled boxes": labelled,
        "unlabelled boxes": boxes - labelled,
        "people": len(dataset.person_ids),
    }
    if dataset.protocols:
        counts["queries"] = len(dataset.protocols[next(iter(dataset.protocols))].queries)
    return counts


def describe(*splits: PersonSearchSet) -> str:
    """A table of what was read beside what was published, with every disagreement named.

    Give one split, or train and test for the totals as well.  A drawn set has no published counts.
    """
    rows: list[tuple[str, str, int]] = [(s.split, what, number) for s in splits for what, number in count(s).items()]
    if len(splits) > 1:
        for what in ("images", "boxes", "labelled boxes"):
            rows.append(("both", what, sum(number for _, name, number in rows if name == what)))
        # some of PRW's training people walk through its test frames too, so people are not summed
        rows.append(("both", "people", len(np.unique(np.concatenate([s.person_ids for s in splits])))))
    kind, root = splits[0].kind, splits[0].root
    drawn = drawn_with(read_manifest(root))
    lines = [f"{kind} at {root}" + (f" ({drawn})" if drawn else "")]
    for split, what, number in rows:
        published = {} if drawn else PUBLISHED.get((kind, split, what), {})
        beside = "; ".join(f"{source}: {value:,}" + _verdict(number, value) for source, value in published.items())
        lines.append(f"  {split:5} {what:16} {number:>8,}   {beside}".rstrip())
    return "\n".join([*lines, *(f"  note: {note}" for note in _notes(splits))])


def _verdict(number: int, published: int) -> str:
    return "" if number == published else f" DISAGREES by {number - published:+,}"


def _notes(splits: Iterable[PersonSearchSet]) -> list[str]:
    return [f"{dataset.split}: {note}" for dataset in splits for note in dataset.notes]
