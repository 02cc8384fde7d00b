"""One run: train a recipe with a seed, evaluate it once on the test set, write the record."""

import json
import resource
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pslib.data.annotations import UNLABELLED, PersonSearchSet
from pslib.data.validation import carve_fold
from pslib.errors import NotFiniteError, UserError, require_writable
from pslib.evaluation.cbgm import ContextMatching
from pslib.evaluation.detection import detection_metrics
from pslib.evaluation.gallery import GalleryEmbeddings, SearchModel, embed_gallery
from pslib.evaluation.readout import ReadOut
from pslib.evaluation.sampling import has_sampling_points, sampling_spread
from pslib.evaluation.search import search
from pslib.experiments.records import (
    READ,
    find_record,
    main_protocol_name,
    provenance,
    read_record,
    record_stem,
    write_record,
)
from pslib.experiments.stages import checkpoint_of, train_chain
from pslib.models.alignps import AlignPS
from pslib.training.checkpoints import save_weights, stored_run
from pslib.training.recipe import Recipe, recipe_hash
from pslib.training.trainer import Curves, DivergedError

__all__ = [
    "RunData",
    "validation_scores",
    "validation_steps",
    "measure",
    "evaluate_test",
    "look_inside",
    "fold_of",
    "run",
]

# People whose embeddings every record keeps, so that pictures of all models show the same fifteen.
PICTURED_PEOPLE = 15
# Test frames whose people's sampling points are measured.
SAMPLED_FRAMES = 100


@dataclass(frozen=True)
class RunData:
    """The three splits a run works on, and the fingerprint its hash covers."""

    train: PersonSearchSet
    validation: PersonSearchSet | None
    test: PersonSearchSet
    fingerprint: str


def main_protocol(data: PersonSearchSet) -> str:
    """The protocol a single number is taken from, see :func:`main_protocol_name`."""
    return main_protocol_name(list(data.protocols))


def validation_steps(steps: int, goes_on: bool = False) -> tuple[int, ...]:
    """Steps after which validation is measured: an eighth, a quarter, half, three quarters and the end.

    A recipe that ``goes_on`` from another is measured at its end alone: its weights may have been kept as the start of
    a third before anybody asked, and a record must not depend on that.

    >>> validation_steps(480), validation_steps(30, goes_on=True)
    ((60, 120, 240, 360, 480), (30,))
    """
    parts = (1.0,) if goes_on else (0.125, 0.25, 0.5, 0.75, 1.0)
    return tuple(sorted({max(1, round(steps * part)) for part in parts}))


def measure(
    data: PersonSearchSet,
    embeddings: GalleryEmbeddings,
    search_threshold: float = 0.0,
    cbgm: ContextMatching | None = None,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Detection, search and ground-truth-box re-id on every protocol: scalars in per cent, arrays per query.

    Search leaves out detections that score below ``search_threshold``; detection is measured with all.  With ``cbgm``
    both searches are re-ranked by the people beside the query.
    """
    found = detection_metrics(data.frames, embeddings.detections)
    labelled = detection_metrics(data.frames, embeddings.detections, labelled_only=True)
    scalars: dict[str, Any] = {
        "detection": {
            "recall": 100 * found.recall,
            "ap": 100 * found.ap,
            "recall_labelled": 100 * labelled.recall,
            "people": found.num_people,
        },
        "search": {},
        "ground_truth": {},
    }
    people = np.repeat(np.arange(len(data.frames)), [len(frame.boxes) for frame in data.frames])
    hit = np.bincount(found.matched_person[found.right], minlength=len(people)).astype(bool)
    arrays: dict[str, np.ndarray] = {"detection/found": hit, "detection/frame": people.astype(np.int32)}
    for name, protocol in data.protocols.items():
        queries = embeddings.of_queries(protocol)
        arrays[f"{name}/people"] = np.array([query.person_id for query in protocol.queries], np.int64)
        for boxes, gallery, threshold in (
            ("detected", embeddings.detections, search_threshold),
            ("ground-truth", embeddings.ground_truth, 0.0),
        ):
            result = search(
                protocol,
                gallery,
                queries,
                num_frames=len(data.frames),
                score_threshold=threshold,
                similarity=embeddings.similarity,
                cbgm=cbgm,
            )
            arrays[f"{name}/{boxes}/ap"] = result.ap.astype(np.float32)
            arrays[f"{name}/{boxes}/rank"] = result.rank.astype(np.int32)
            group = "search" if boxes == "detected" else "ground_truth"
            scalars[group][name] = {
                "map": 100 * float(result.mean_ap),
                **{f"top{k}": 100 * float(result.top(k)) for k in (1, 5, 10)},
            }
    return scalars, arrays


def validation_scores(model: nn.Module, recipe: Recipe, data: PersonSearchSet, device: str = "cpu") -> dict[str, float]:
    """What a curve of validation holds of ``model``: search, its top-1, re-id with true boxes, recall, per cent."""
    embeddings = embed_gallery(model, data, device=device, test_size=recipe.test_size, desc="validate")
    scalars, _ = measure(data, embeddings, recipe.search_threshold)
    protocol = main_protocol(data)
    return {
        "map": scalars["search"][protocol]["map"],
        "top1": scalars["search"][protocol]["top1"],
        "ground_truth_map": scalars["ground_truth"][protocol]["map"],
        "recall": scalars["detection"]["recall"],
    }


def _validator(recipe: Recipe, data: PersonSearchSet | None, device: str):
    """A function of the model that measures validation, for the curve of mAP against steps."""
    return None if data is None else lambda model: validation_scores(model, recipe, data, device)


def evaluate_test(
    model: SearchModel,
    recipe: Recipe,
    data: PersonSearchSet,
    device: str = "cpu",
    cbgm: ContextMatching | None = None,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Everything a record keeps of the test set, the embeddings of fifteen fixed people included.

    A model that offers several ``reads``, several embeddings of a person, is evaluated with each.  No record has
    ``cbgm``.
    """
    scalars, arrays = _evaluate(model, recipe, data, device, cbgm)
    others = [read for read in getattr(model, "reads", ()) if read != model.config.read]
    if others:
        scalars |= {"read": model.config.read, "reads": {}}
    for read in others:
        scalars["reads"][read], more = _evaluate(model.reading(read), recipe, data, device, cbgm)
        arrays |= {f"{read}{READ}{name}": array for name, array in more.items()}
    return scalars, arrays


def _evaluate(
    model: SearchModel, recipe: Recipe, data: PersonSearchSet, device: str, cbgm: ContextMatching | None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    embeddings = embed_gallery(model, data, device=device, test_size=recipe.test_size, desc="test")
    scalars, arrays = measure(data, embeddings, recipe.search_threshold, cbgm)
    ids = embeddings.person_ids
    pictured = np.isin(ids, np.unique(ids[ids != UNLABELLED])[:PICTURED_PEOPLE])
    arrays["pictured/embeddings"] = embeddings.ground_truth.embeddings[pictured].astype(np.float16)
    arrays["pictured/people"] = ids[pictured]
    arrays["pictured/frames"] = embeddings.ground_truth.frame[pictured]
    arrays["pictured/boxes"] = embeddings.ground_truth.boxes[pictured].astype(np.float16)
    return scalars, arrays


def look_inside(reader: ReadOut, recipe: Recipe, data: PersonSearchSet) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What a record keeps of the network itself: re-id read out at every layer, the reach of its sampling points.

    ``reader`` has been run over ``data``.
    """
    model = reader.model.cpu()
    arrays = {f"readout/{name}": ap for name, ap in reader.search(data, main_protocol(data)).items()}
    scalars = {"readout": {name.removeprefix("readout/"): 100 * float(ap.mean()) for name, ap in arrays.items()}}
    if has_sampling_points(model):
        frames = range(0, len(data.frames), max(1, len(data.frames) // SAMPLED_FRAMES))
        for path, spread in sampling_spread(model, data, frames, recipe.test_size).items():
            arrays |= {f"sampling/{path}/radius": spread.radius, f"sampling/{path}/inside": spread.inside}
        counts = [len(data.frames[number].boxes) for number in frames]
        arrays["sampling/frame"] = np.repeat(np.array(frames, np.int32), counts)
        scalars["sampling"] = {
            name.removeprefix("sampling/"): float(values.mean()) for name, values in arrays.items() if "/C" in name
        }
    return scalars, {name: v.astype(np.float16) if v.dtype.kind == "f" else v for name, v in arrays.items()}


def fold_of(data: RunData, folds: int, fold: int) -> RunData:
    """Cross-validation: the training people without those of one fold, who are tested on; test people stay unseen."""
    training, held = carve_fold(data.train, folds, fold)
    return RunData(training, None, held, data.fingerprint)


def run(
    recipe: Recipe,
    seed: int,
    data: RunData,
    *,
    records: Path,
    work: Path,
    device: str = "cpu",
    weights: Path | None = None,
    test: bool = True,
    inside: bool = False,
) -> Path:
    """Compute one run unless it is recorded already; return the path of its record.

    Args:
        records: folder of the records.
        work: folder of checkpoints; a run killed half-way goes on from there.
        weights: where to keep the trained model, if anywhere.
        test: False leaves the test set alone (tuning looks at validation only).
        inside: keep what :func:`look_inside` finds as well.

    A record that is there stays as it is.  Where only its weights are missing, the model is trained again for them.
    Two processes may not compute one run at a time: whoever calls holds its :func:`run_lock`.

    Training that diverges is recorded as such.  Raises UserError if it diverges where a record says that it did not, if
    that record or the checkpoint cannot be read, or if the new record cannot be written.
    """
    run_hash = recipe_hash(recipe, data.fingerprint)
    stem = record_stem(records, recipe, run_hash, seed)
    path = find_record(records, recipe, run_hash, seed)
    if path.exists():
        # Weights are named by recipe and seed only: those of another hash may lie there.
        kept = weights is None or stored_run(weights).endswith(f"{run_hash}-s{seed}")
        if kept or read_record(path).info["status"] == "diverged":
            return path
    checkpoint = checkpoint_of(work, run_hash, seed)
    # Before the training: found out after it, all of it would be lost.
    require_writable(stem.parent, work, *([] if weights is None else [weights.parent]))
    if recipe.folds:
        data = fold_of(data, recipe.folds, seed)
    started = time.perf_counter()
    info: dict[str, Any] = {
        "recipe": asdict(recipe),
        "hash": run_hash,
        "seed": seed,
        "data": {"kind": data.test.kind, "fingerprint": data.fingerprint, "identities": len(data.train.person_ids)},
        **provenance(_device_name(device), recipe),
    }
    curves = Curves()
    try:
        model, curves = train_chain(
            recipe,
            data.train,
            data.fingerprint,
            seed,
            work=work,
            device=device,
            validate=_validator(recipe, data.validation, device),
            validate_at=validation_steps(recipe.schedule.steps, recipe.start is not None),
        )
        trained = time.perf_counter()
        test = test and not path.exists()
        # One pass over the test set serves its measurements and the read-out of the layers.
        reader = ReadOut(model) if inside and isinstance(model, AlignPS) else None
        results, arrays = evaluate_test(reader or model, recipe, data.test, device) if test else ({}, {})
        tested = time.perf_counter()
        if test and reader is not None:
            scalars, more = look_inside(reader, recipe, data.test)
            results, arrays = results | scalars, arrays | more
    except NotFiniteError as error:
        curves = error.curves if isinstance(error, DivergedError) else curves
        info |= {"status": "diverged", "reason": str(error), "protocols": []}
        if isinstance(error, DivergedError) and error.start:
            info["curves_of"] = error.start
        if path.exists():
            raise UserError(f"{error} The record {path} says that it did not: it stays.") from None
        written = write_record(stem, info, _curve_arrays(curves))
        shutil.rmtree(checkpoint.parent, ignore_errors=True)
        return written
    if weights is not None:
        note = {
            "run": stem.name,
            "kind": recipe.kind,
            "test_size": json.dumps(recipe.test_size),
            "search_threshold": json.dumps(recipe.search_threshold),
        }
        save_weights(weights, model, note)
    if path.exists():
        shutil.rmtree(checkpoint.parent, ignore_errors=True)
        return path
    info |= {
        "status": "finished",
        "protocols": list(data.test.protocols) if test else [],
        "results": results,
        "validation": curves.validation,
        "trained_commit": curves.commit or info["commit"],
        "earlier_commits": curves.earlier_commits,
        "cost": {
            "train_seconds": curves.seconds,
            "earlier_seconds": curves.earlier_seconds,
            "total_seconds": time.perf_counter() - started + curves.killed_seconds,
            "test_seconds": tested - trained,
            "peak_memory_mb": _peak_memory_mb(),
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "threads": torch.get_num_threads(),
        },
    }
    written = write_record(stem, info, {**arrays, **_curve_arrays(curves)})
    shutil.rmtree(checkpoint.parent, ignore_errors=True)
    return written


def _curve_arrays(curves: Curves) -> Mapping[str, np.ndarray]:
    return {f"loss/{name}": np.array(values, np.float32) for name, values in curves.losses.items()}


def _peak_memory_mb() -> float:
    """Largest resident memory of this process so far, MB (10^6 bytes)."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu"
