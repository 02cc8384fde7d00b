"""The first steps of the committed recipes, and of variants that go other ways, on fixed inputs.

``python tests/replay.py`` rewrites data/replay.json.

Records stay valid only while the code computes what it computed.  If a loss moves here, raise the number of what
changed in ``pslib.training.recipe.COMPONENT_VERSIONS`` (every older record then shows as STALE) and rewrite the file.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from toy_sets import toy_image

from pslib import paths
from pslib.data.annotations import UNLABELLED, Frame, PersonSearchSet
from pslib.experiments.catalogue import VARIANTS
from pslib.models.families import without_download
from pslib.training.recipe import COMPONENT_VERSIONS, Recipe, family_of
from pslib.training.recipes import RECIPES
from pslib.training.trainer import train

STEPS = 3
# Variants of tables whose losses run through code that no recipe does: structures, levels, necks, backbones, losses.
VARIANTS_TOO = (
    "t1", "t2", "scale-region", "p4", "p3-p4", "p3-multiscale", "lateral", "output-concat", "lateral-output", "res3-4",
    "oim", "toim-without-table", "no-mean-subtraction", "quarter-queue", "unnormalized-table", "t3-identity",
    "roi-separate", "roi-bare", "roi-star", "roi-kl", "roi-dv",
)  # fmt: skip
REPLAYED = (*RECIPES, *VARIANTS_TOO)
# Machines and versions of torch sum in different orders; what a change of the code does is larger.
TOLERANCE = 1e-3


def replay_file() -> Path:
    return paths.root() / "data" / "replay.json"


def _recipe(name: str) -> Recipe:
    """The recipe or variant; the paper's without its download, on small images."""
    recipe = (RECIPES | VARIANTS)[name].with_(workers=0)
    model = without_download(recipe.model)
    if model == recipe.model:
        return recipe
    small = recipe.with_(model=model, image_sizes=((160, 96), (128, 64)), schedule__batch_size=2)
    if family_of(recipe) == "two-stage":
        return small.with_(model__rois_per_image=8)
    if family_of(recipe) in ("nae", "seqnet", "roi-alignps"):
        # Room for all proposals: which of them a draw hits would depend on the last bits of their scores.
        return small.with_(model__rpn_after_nms=(6, 6), model__roi__rois_per_image=24)
    return small


def fixed_set(folder: Path) -> PersonSearchSet:
    """Sixteen scenes of rectangles as PNG, which decodes to the same bytes everywhere."""
    rng = np.random.default_rng(0)
    frames = []
    for number in range(16):
        people = [number % 5, (number + 2) % 5, UNLABELLED][: 1 + number % 3]
        image, boxes = toy_image(rng, people)
        path = folder / f"{number}.png"
        Image.fromarray(image).save(path)
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1).astype(np.float32)
        frames.append(Frame(path.name, path, corners, np.array(people, np.int64)))
    return PersonSearchSet("cuhk-sysu", "train", folder, frames)


def first_losses(name: str) -> dict[str, list[float]]:
    """Every loss of the first steps of recipe ``name``, seed 0."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several sum in orders of their own
    try:
        with tempfile.TemporaryDirectory() as folder:
            _, curves = train(_recipe(name), fixed_set(Path(folder)), seed=0, stop_after=STEPS)
    finally:
        torch.set_num_threads(threads)
    return curves.losses


def moved(stored: dict[str, list[float]], found: dict[str, list[float]]) -> list[str]:
    """Which losses differ by more than the tolerance, in words."""
    return [
        f"{name}: {values} is now {found.get(name)}"
        for name, values in stored.items()
        if name not in found or not np.allclose(values, found[name], rtol=TOLERANCE, atol=2e-5)
    ] + [f"{name} is new" for name in found.keys() - stored.keys()]


def rewrite() -> None:
    """Store today's losses and component versions."""
    content = {"components": COMPONENT_VERSIONS, "losses": {name: first_losses(name) for name in sorted(REPLAYED)}}
    target = replay_file()
    partial = target.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(partial, target)
    print(f"{target.name}: {len(content['losses'])} recipes, {STEPS} steps each")


if __name__ == "__main__":
    sys.exit(rewrite())
