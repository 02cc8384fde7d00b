"""Makes the warm starts: backbones that have learned to see before any person search.

*neutral*: a classifier looks at drawn crops of separate people and objects and names what ImageNet would teach: which
object, which view, which garments, which textures, which bag and hair.  Colour is no label and neither is any identity.

*identity*: the classifier sees several crops of each of some hundred people, in other views, poses, light and places,
and names the person.  It favours whatever reads backbone features almost raw, as re-id first does, so comparisons
between structures are shown from both starts.

The people of either come from a seed of their own, so none of them is met again in training, validation or test.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from pslib.data.people import BAGS, HAIR_STYLES, HATS, LOWER_KINDS, PATTERNS, UPPER_KINDS, VIEWS
from pslib.data.sampling import sample_crop
from pslib.data.scenes import OBJECTS, render_crop, sample_person
from pslib.data.workers import process_pool
from pslib.errors import require_choice
from pslib.models.backbones import build_backbone
from pslib.models.batching import batch_images
from pslib.progress import progress
from pslib.training.checkpoints import compact
from pslib.training.warm_start import WARM_STARTS, warm_start_path

__all__ = [
    "QUESTIONS", "IDENTITY", "LESSONS", "Crop", "Lesson", "draw_crop", "draw_person_crop", "CropClassifier",
    "make_warm_start", "ensure_warm_start",
]  # fmt: skip

# Each question with its possible answers; -1 where it does not apply (a tree has no garment).
QUESTIONS: dict[str, Sequence[str]] = {
    "content": ("street", "person", *OBJECTS),
    "view": VIEWS,
    "upper": UPPER_KINDS,
    "upper_pattern": PATTERNS,
    "lower": LOWER_KINDS,
    "lower_pattern": PATTERNS,
    "bag": BAGS,
    "hair": HAIR_STYLES,
    "hat": HATS,
}
# The people of the identity warm start.  Their number and that of the crop sizes have no common factor, so that crops
# taken in turns show each person at every size.
IDENTITY: dict[str, Sequence[int]] = {"identity": range(500)}
# Crops of several sizes, since people in scenes are: (height, width) px, for a backbone that starts at stride 4.
CROP_SIZES = ((48, 32), (64, 32), (96, 48))
CHUNK = 32  # crops that a process draws at a time
_SEED = 77_000_000  # far from the seeds of the profiles

Crop = tuple[np.ndarray, list[int]]


def draw_crop(number: int, size: tuple[int, int]) -> Crop:
    """Crop ``number``: an image (H, W, 3) uint8 and its answers, one an entry of :data:`QUESTIONS`."""
    rng = np.random.default_rng([_SEED, number])
    content = QUESTIONS["content"]
    # Two crops in three show a person: objects have one question to answer, people nine.
    choice = "person" if rng.random() < 0.67 else str(rng.choice([name for name in content if name != "person"]))
    if choice != "person":
        scene = sample_crop(rng, kind=None if choice == "street" else choice, size=size)
        return render_crop(scene, size), [content.index(choice)] + [-1] * (len(QUESTIONS) - 1)
    person = sample_person(rng)
    scene = sample_crop(rng, person=person, size=size)
    answers = {
        "content": "person",
        "view": scene.placements[0].view,
        "upper": person.upper.kind,
        "upper_pattern": person.upper.pattern,
        "lower": person.lower.kind,
        "lower_pattern": person.lower.pattern,
        "bag": person.bag,
        "hair": person.hair,
        "hat": person.hat,
    }
    return render_crop(scene, size), [QUESTIONS[name].index(answer) for name, answer in answers.items()]


def draw_person_crop(number: int, size: tuple[int, int]) -> Crop:
    """Crop ``number``: an image (H, W, 3) uint8 of one of the people of :data:`IDENTITY`, taken in turns, and who."""
    identity = number % len(IDENTITY["identity"])
    person = sample_person(np.random.default_rng([_SEED, 1, identity]))
    scene = sample_crop(np.random.default_rng([_SEED, 2, number]), person=person, size=size)
    return render_crop(scene, size), [identity]


@dataclass(frozen=True)
class Lesson:
    """What a kind of warm start learns: the questions, crops with their answers, and for how long."""

    questions: Mapping[str, Sequence]
    draw: Callable[[int, tuple[int, int]], Crop]
    crops: int
    epochs: int = 8


LESSONS = {
    "neutral": Lesson(QUESTIONS, draw_crop, crops=15_000),
    "identity": Lesson(IDENTITY, draw_person_crop, crops=10_000),  # twenty of each person
}


class CropClassifier(nn.Module):
    """A backbone whose averaged C5 answers every question; crops (B, 3, H, W) to logits per question."""

    def __init__(self, backbone: nn.Module, questions: Mapping[str, Sequence] = QUESTIONS):
        super().__init__()
        self.backbone = backbone
        width = backbone.channels[-1]
        self.answers = nn.ModuleDict({name: nn.Linear(width, len(options)) for name, options in questions.items()})

    def forward(self, crops: Tensor) -> dict[str, Tensor]:
        pooled = self.backbone(crops)[-1].mean(dim=(2, 3))  # (B, C5)
        return {name: layer(pooled) for name, layer in self.answers.items()}

    def loss(self, crops: Tensor, answers: Tensor) -> Tensor:
        """Mean over the questions of the cross-entropy; ``answers`` (B, questions), -1 where none applies."""
        terms = []
        for column, logits in enumerate(self(crops).values()):
            asked = answers[:, column] >= 0
            terms.append(F.cross_entropy(logits[asked], answers[asked, column]) if asked.any() else logits.sum() * 0)
        return torch.stack(terms).mean()


def make_warm_start(
    backbone: str = "tiny",
    kind: str = "neutral",
    *,
    crops: int | None = None,
    epochs: int | None = None,
    batch_size: int = 64,
    learning_rate: float = 2e-3,
    device: str = "cpu",
    path: Path | None = None,
) -> tuple[Path, dict[str, float]]:
    """Train the classifier and store its backbone; returns the path and the accuracy on crops it has not seen.

    ``pslib warm-start --backbone tiny`` calls this; the tiny results are committed.  ``crops`` and ``epochs`` are
    those of the kind's :class:`Lesson` unless given.
    """
    lesson = LESSONS[require_choice("kind of warm start", kind, LESSONS)]
    crops, epochs = crops or lesson.crops, epochs or lesson.epochs
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        model = CropClassifier(build_backbone(backbone), lesson.questions)
    factor = model.backbone.strides[0] // 4  # a coarser backbone looks at larger crops
    sizes = [(height * factor, width * factor) for height, width in CROP_SIZES]
    drawn = _draw(lesson, crops + crops // 10, sizes)
    model = model.to(device, memory_format=torch.channels_last)
    groups = [list(range(first, crops, len(sizes))) for first in range(len(sizes))]
    steps = [len(group) // batch_size for group in groups]
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=epochs * sum(steps))
    rng = np.random.default_rng(_SEED)
    bar = progress(range(epochs), "train classifier")
    for _ in bar:
        orders = [rng.permutation(group)[: count * batch_size] for group, count in zip(groups, steps, strict=True)]
        batches = [batch for order in orders for batch in order.reshape(-1, batch_size)]
        for index in rng.permutation(len(batches)):
            images, answers = _stack([drawn[number] for number in batches[index]], rng)
            loss = model.loss(images.to(device), answers.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        bar.set_postfix(loss=float(loss.detach()))
    accuracy = _accuracy(model.eval().cpu(), drawn[crops:], sizes)
    target = path or warm_start_path(backbone, kind)
    target.parent.mkdir(parents=True, exist_ok=True)
    header = {name: f"{value:.3f}" for name, value in accuracy.items()} | {"crops": str(crops), "epochs": str(epochs)}
    partial = target.with_suffix(".partial")
    save_file(compact(model.backbone.state_dict()), partial, metadata=header)
    os.replace(partial, target)
    return target, accuracy


def ensure_warm_start(backbone: str, kind: str, device: str = "cpu") -> None:
    """Make the warm start ``kind`` of ``backbone`` if it is none that lies ready; says so, as it takes minutes.

    Of several processes one makes it and the others wait.
    """
    require_choice("warm start", kind, WARM_STARTS)
    path = warm_start_path(backbone, kind)
    if kind == "none" or path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            print(f"the {kind} warm start of {backbone} is made once and kept as {path}", flush=True)
            make_warm_start(backbone, kind, device=device)


def _draw(lesson: Lesson, count: int, sizes: Sequence[tuple[int, int]]) -> list[Crop]:
    """Crops 0..count-1, of the ``sizes`` in turns, drawn by one process a core."""
    turns = [sizes[number % len(sizes)] for number in range(count)]
    with process_pool(min(os.cpu_count() or 1, -(-count // CHUNK))) as pool:
        return list(progress(pool.map(lesson.draw, range(count), turns, chunksize=CHUNK), "draw crops", total=count))


def _stack(crops: Sequence[Crop], rng: np.random.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Crops of one size as a normalised batch (B, 3, H, W) and their answers (B, questions).

    With a generator half of them are mirrored; a mirrored side view looks the other way.
    """
    left, right = VIEWS.index("left"), VIEWS.index("right")
    swapped = {left: right, right: left}
    images, answers = [], []
    for image, answer in crops:
        if rng is not None and rng.random() < 0.5:
            # The answer after the first, if there is one, is the view.
            image, answer = image[:, ::-1], [answer[0], *(swapped.get(a, a) for a in answer[1:2]), *answer[2:]]
        images.append(torch.from_numpy(image.copy()).permute(2, 0, 1))
        answers.append(answer)
    return batch_images(images, multiple=1).tensors, torch.tensor(answers)


@torch.no_grad()
def _accuracy(model: CropClassifier, crops: Sequence[Crop], sizes: Sequence[tuple[int, int]]) -> dict[str, float]:
    """Share of right answers for each question, over the crops it applies to."""
    right, asked = np.zeros(len(model.answers)), np.zeros(len(model.answers))
    for size in sizes:
        same = [crop for crop in crops if crop[0].shape[:2] == size]
        if not same:
            continue
        images, answers = _stack(same)
        for column, logits in enumerate(model(images).values()):
            applies = answers[:, column] >= 0
            right[column] += float((logits.argmax(1) == answers[:, column])[applies].sum())
            asked[column] += float(applies.sum())
    return {name: float(r / max(1, n)) for name, r, n in zip(model.answers, right, asked, strict=True)}
