"""A person-search set of coloured rectangles: twelve training frames, eight test frames, drawn in milliseconds.

The tests of models, training and records need people who can be told apart, not people who look like people.
"""

import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pslib.data.annotations import UNLABELLED, PersonSearchSet
from pslib.data.layouts import CuhkProtocol, DrawnFrame, DrawnQuery, write_cuhk_sysu
from pslib.data.loading import load
from pslib.evaluation.gallery import embed_gallery
from pslib.experiments.run import RunData
from pslib.models.alignps import AlignPS, AlignPSConfig
from pslib.training.recipe import Recipe, Schedule

SIZE = (64, 96)  # height, width px
SMALL = AlignPSConfig(channels=16, head_channels=16, head_depth=1, queue_size=8, size_cuts=(24.0, 40.0))
# Of its own, not a committed recipe: those may be tuned without a test noticing.
TOY = Recipe("alignps", "cuhk-sysu", model=SMALL, schedule=Schedule(steps=6, batch_size=4, warmup_steps=2),
             warm_start="none")  # fmt: skip


def toy_image(rng: np.random.Generator, people: list[int], size=SIZE) -> tuple[np.ndarray, np.ndarray]:
    """An image (H, W, 3) uint8 with one two-coloured rectangle a person, side by side, and their [x, y, w, h]."""
    image = rng.integers(90, 130, (*size, 3)).astype(np.uint8)
    lane = size[1] // 3
    boxes = []
    for place, person in zip(rng.permutation(3)[: len(people)], people, strict=True):
        width, height = int(rng.integers(12, 20)), int(rng.integers(28, 46))
        x, y = int(place) * lane + int(rng.integers(0, lane - width)), int(rng.integers(0, size[0] - height))
        colours = np.random.default_rng([7, person + 1]).integers(0, 255, (2, 3))
        image[y : y + height // 2, x : x + width] = colours[0]
        image[y + height // 2 : y + height, x : x + width] = colours[1]
        boxes.append([x, y, width, height])
    return image, np.array(boxes, np.float64).reshape(-1, 4)


def toy_batch(seed: int = 0, count: int = 2, people: int = 2, identities: int = 6, size=SIZE):
    """Images (uint8) and targets of ``count`` scenes; the last person of each scene has no identity."""
    rng = np.random.default_rng(seed)
    images: list[Tensor] = []
    targets: list[dict[str, Tensor]] = []
    for _ in range(count):
        ids = rng.permutation(identities)[:people].tolist()
        image, boxes = toy_image(rng, ids, size)
        images.append(torch.from_numpy(image).permute(2, 0, 1))
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
        labels = torch.tensor([*ids[:-1], UNLABELLED] if people > 1 else ids, dtype=torch.int64)
        targets.append({"boxes": torch.from_numpy(corners).float(), "labels": labels})
    return images, targets


def toy_model(identities: int = 6, seed: int = 0, **switches) -> AlignPS:
    """A small AlignPS with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AlignPS(replace(SMALL, **switches), identities)


def toy_source(data: PersonSearchSet):
    """``data`` under two models, "first" and "second", that detect something everywhere, for the query browser."""
    from pslib.viz.browser_query import Source  # most tests of models and training draw nothing

    models = {}
    for seed, name in enumerate(("first", "second")):
        models[name] = toy_model(seed=seed).eval()
        with torch.no_grad():
            models[name].head.classify.bias += 6.0
    return Source(data, models, {name: embed_gallery(model, data, desc=name) for name, model in models.items()})


def train_step(model, images, targets, rate=0.01):
    """One step of plain gradient descent and of the memory; the losses it began with."""
    losses = model.train()(images, targets)
    model.zero_grad()
    sum(losses.values()).backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= rate * parameter.grad
    model.update_memory()
    return losses


def thirty_steps(model):
    """Thirty steps of AdamW on the toy batch, enough for a tiny model to find its people: the losses of each step."""
    images, targets = toy_batch()
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=3e-3)
    curve = []
    for _ in range(30):
        losses = model(images, targets)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        model.update_memory()
        curve.append({key: value.item() for key, value in losses.items()})
    return curve


def toy_recipe(**changes) -> Recipe:
    """The six-step recipe of the tests, with fields changed."""
    return TOY.with_(**changes)


def _split(root: Path, rng: np.random.Generator, first: int, frames: int, people: list[int]) -> list[DrawnFrame]:
    drawn = []
    for number in range(first, first + frames):
        here = [people[number % len(people)], people[(number + 1) % len(people)], UNLABELLED]
        here = here if number != first + 2 else []  # one scene without people
        image, boxes = toy_image(rng, here)
        # No two boxes of the set are equal, so the layout's look-up by the four numbers is unambiguous.
        Image.fromarray(image).save(root / "Image/SSM" / f"s{number}.jpg", quality=95)
        drawn.append(DrawnFrame(f"s{number}.jpg", boxes, np.array(here, np.int64), np.ones(len(here))))
    return drawn


def write_toy_set(root: Path, seed: int = 0) -> Path:
    """Write the set in the layout of CUHK-SYSU and return its root."""
    rng = np.random.default_rng(seed)
    (root / "Image/SSM").mkdir(parents=True)
    train = _split(root, rng, 1, 12, [11, 12, 15, 19, 20, 23])
    test = _split(root, rng, 13, 8, [31, 32, 35, 37])
    queries, galleries = [], []
    for index, frame in enumerate(test):
        asked = frame.person_ids[:1]
        shown = [i for i, other in enumerate(test) if i != index and np.isin(asked, other.person_ids).any()]
        if shown:
            queries.append(DrawnQuery(index, 0))
            galleries.append(np.array([*shown, *(i for i in range(8) if i != index and i not in shown)]))
    protocols = [
        CuhkProtocol(f"train_test/{name}.mat", name, queries, galleries) for name in ("TestG50", "TestG100")
    ] + [
        CuhkProtocol("subset/Occlusion.mat", "Occlusion1", queries[:2], galleries[:2]),
        CuhkProtocol("subset/Resolution.mat", "Test_Size", queries[:2], galleries[:2]),
    ]
    write_cuhk_sysu(root, train, test, protocols)
    return root


@cache
def _folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="pslib-toy-")


@cache
def toy_root() -> Path:
    """The toy set of this process, read only; its validation people stand beside it as in drawn sets."""
    folder = Path(_folder().name)
    write_toy_set(folder / "cuhk-sysu-val", seed=1)
    return write_toy_set(folder / "cuhk-sysu")


@cache
def toy_split(split: str) -> PersonSearchSet:
    """"train" or "test" of the toy set."""
    return load("cuhk-sysu", toy_root(), split)


def toy_data(fingerprint: str = "toy") -> RunData:
    """What a run works on."""
    validation = load("cuhk-sysu", toy_root().with_name("cuhk-sysu-val"), "test")
    return RunData(toy_split("train"), validation, toy_split("test"), fingerprint)
