"""A gallery is embedded once: what a model saw in a set is kept on disk and found again by content.

The file's name holds a key over everything that decides its numbers: the weights and switches of the model, the images
and boxes of the set, the test size, and the code that turns pixels into embeddings.  Change any of them and another
file is made; the old one stays, and is found again when the change is taken back.
"""

import hashlib
import inspect
import io
import json
import os
import zipfile
import zlib
from dataclasses import asdict, is_dataclass, replace
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import nn

from pslib import ops, paths
from pslib.data import loading, pictures, transforms
from pslib.data.annotations import PersonSearchSet
from pslib.data.layouts import write_bytes
from pslib.errors import UserError
from pslib.evaluation import fast, gallery
from pslib.evaluation.detections import Detections
from pslib.evaluation.gallery import GalleryEmbeddings, embed_gallery, similarity_of
from pslib.models import (
    alignps,
    alignps_config,
    assignment,
    backbones,
    batching,
    deformable,
    fcos,
    merging,
    nae,
    neck,
    norm_aware,
    proposals,
    reid_heads,
    roi_alignps,
    roi_branch,
    seqnet,
    two_stage,
    two_stage_config,
)  # fmt: skip

__all__ = ["cached_gallery", "gallery_key", "set_digest", "weights_digest"]

# The modules between a file of pixels and an embedding: an edit of one makes stored galleries out of date.
_PATH_OF_A_PIXEL = (
    pictures, loading, transforms, batching, backbones, deformable, ops, merging, neck, fcos, alignps_config, alignps,
    assignment, proposals, reid_heads, two_stage_config, two_stage, norm_aware, roi_branch, nae, roi_alignps, seqnet,
    fast, gallery,
)  # fmt: skip
_MEMORIES = frozenset({"memory", "centers"})  # modules that training alone reads, of the model or of a branch
_END_BYTES = 16384  # read at either end of an image file
_PARTS = ("frame", "boxes", "scores", "embeddings")
_DAMAGE = (OSError, ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile, zlib.error, UserError)


def weights_digest(model: nn.Module) -> str:
    """SHA-256 over the model's class, switches, precision and every tensor that inference reads (not the memory)."""
    config = getattr(model, "config", None)
    settings = asdict(config) if is_dataclass(config) else repr(config)
    parts = [type(model).__qualname__, settings, getattr(model, "precision", None)]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        if _MEMORIES.isdisjoint(name.split(".")):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def set_digest(data: PersonSearchSet) -> str:
    """SHA-256 over the frames of a set in their order: names, boxes, person ids, and the image files.

    Of a file its size, first and last bytes are read, which is quick; an edit of the middle alone would not be seen.
    """
    digest = hashlib.sha256()
    for frame in data.frames:
        digest.update(os.fsencode(f"{frame.name} {len(frame.boxes)} "))  # a name need not be UTF-8
        digest.update(_mark_of(frame.path))
        digest.update(np.asarray(frame.boxes, "<f4").tobytes())
        digest.update(np.asarray(frame.person_ids, "<i8").tobytes())
    return digest.hexdigest()


def _mark_of(path: Path) -> bytes:
    """The size and both ends of a file; nothing of one that is missing, which embedding will name."""
    if not path.exists():
        return b""
    with path.open("rb") as file:
        begin, size = file.read(_END_BYTES), file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _END_BYTES))
        return f"{size} ".encode() + begin + file.read()


@cache
def _code_digest() -> str:
    """SHA-256 over the source of the modules that compute embeddings."""
    text = "".join(inspect.getsource(module) for module in _PATH_OF_A_PIXEL)
    return hashlib.sha256(text.encode()).hexdigest()


def gallery_key(
    model: nn.Module, data: PersonSearchSet, test_size: tuple[int, int] | None = None, batch_size: int = 8
) -> str:
    """Sixteen hex digits over all that decides what :func:`embed_gallery` returns."""
    size = list(test_size) if test_size else None
    parts = [weights_digest(model), set_digest(data), size, batch_size, _code_digest()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def cached_gallery(
    model: nn.Module,
    data: PersonSearchSet,
    *,
    name: str,
    folder: Path | None = None,
    device: str | torch.device = "cpu",
    test_size: tuple[int, int] | None = None,
    batch_size: int = 8,
) -> GalleryEmbeddings:
    """All frames of ``data`` as ``model`` sees them: read from disk if they were embedded before, else embedded now.

    ``name`` begins the file's name and says to people what it holds ("alignps-cuhk-sysu"); ``folder`` is
    ``build/galleries`` by default.  The arrays lie in ``<name>-<key>.npz``; ``<name>-<key>.json`` beside it says where
    they come from.  ``device``, ``test_size`` and ``batch_size`` as in :func:`embed_gallery`, which shows the
    progress bar.

    A file that is damaged, or whose content belongs to another key, is named, set aside and made again.  A folder that
    cannot be written to costs the next start its time, not this one its result: one line says so.

    Raises UserError for a model in training mode.
    """
    if model.training:
        raise UserError("the model is in training mode, in which it embeds no gallery: call model.eval() first.")
    folder = folder or paths.build_dir() / "galleries"
    key = gallery_key(model, data, test_size, batch_size)
    path = folder / f"{name}-{key}.npz"
    if path.exists():
        try:
            return replace(_read(path, key, len(data.frames)), similarity=similarity_of(model))
        except _DAMAGE as error:
            kept = path.with_name(path.name + ".set-aside")
            os.replace(path, kept)
            print(f"{path} cannot be used ({_reason(error)}): set aside as {kept.name}, embedding again.")
    found = embed_gallery(model, data, device=device, batch_size=batch_size, test_size=test_size, desc=f"embed {name}")
    provenance = {
        "name": name,
        "key": key,
        "model": type(model).__qualname__,
        "weights": weights_digest(model),
        "set": {"kind": data.kind, "split": data.split, "folder": data.root.name, "digest": set_digest(data)},
        "frames": len(data.frames),
        "detections": len(found.detections),
        "annotated_boxes": len(found.ground_truth),
        "test_size": test_size,
        "code": _code_digest(),
        "device": str(device),
        "torch": version("torch"),
        "date": datetime.now(UTC).date().isoformat(),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(path.with_suffix(".json"), (json.dumps(provenance, indent=1) + "\n").encode())
        write_bytes(path, _packed(found, key))
    except OSError as error:
        print(f"{path} cannot be written ({error.strerror}): the gallery is not kept, the next start embeds again.")
    return found


def _reason(error: BaseException) -> str:
    return str(error).rstrip(".") if isinstance(error, UserError) else type(error).__name__


def _packed(found: GalleryEmbeddings, key: str) -> bytes:
    arrays = {f"detections/{part}": getattr(found.detections, part) for part in _PARTS}
    arrays |= {f"ground_truth/{part}": getattr(found.ground_truth, part) for part in _PARTS}
    buffer = io.BytesIO()
    np.savez(buffer, key=np.array(key), person_ids=found.person_ids, **arrays)
    return buffer.getvalue()


def _read(path: Path, key: str, num_frames: int) -> GalleryEmbeddings:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:  # closed, whatever it turns out to be
        if str(stored["key"]) != key:
            raise UserError(f"it holds the gallery {stored['key']}")
        detections, ground_truth = (
            Detections(*(stored[f"{who}/{part}"] for part in _PARTS)) for who in ("detections", "ground_truth")
        )
        person_ids = stored["person_ids"]
    for rows in (detections, ground_truth):
        rows.offsets(num_frames)  # raises if a row lies in a frame that the set has not
    if len(person_ids) != len(ground_truth):
        raise UserError(f"it has {len(ground_truth)} annotated boxes but {len(person_ids)} person ids")
    return GalleryEmbeddings(detections, ground_truth, person_ids)
