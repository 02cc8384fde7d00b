"""What ``pslib data make`` and ``pslib data describe`` do and print."""

import time
from argparse import Namespace
from pathlib import Path

from pslib import paths
from pslib.data.loading import KINDS, load
from pslib.data.loading import describe as describe_splits
from pslib.data.synthetic import make as make_sets
from pslib.errors import UserError, require_choice

__all__ = ["describe", "make"]


def make(options: Namespace) -> None:
    """Draw the sets of ``options.profile`` and print what each holds."""
    if options.workers is not None and options.workers < 1:
        raise UserError(f"--workers {options.workers} draws nothing: give 1 or more.")
    out = options.out or paths.synthetic_dir()
    start = time.perf_counter()
    odd_corners = getattr(options, "odd_corners", False)
    manifests = make_sets(options.profile, out, options.workers, options.only, odd_corners)
    for name, manifest in manifests.items():
        train, test = manifest["counts"]["train"], manifest["counts"]["test"]
        images = train.get("images", train.get("scenes")), test.get("images", test.get("scenes"))
        print(
            f"{name}: train {images[0]:,} images, {train['boxes']:,} boxes, {train['people']:,} people; "
            f"test {images[1]:,} images, {test['boxes']:,} boxes, {test['people']:,} people, "
            f"{test['queries']:,} queries"
        )
    print(f"{Path(out) / options.profile}: ready after {time.perf_counter() - start:.1f} s")


def describe(options: Namespace) -> None:
    """Count a set beside the published counts; both splits where it has both."""
    kind = require_choice("data set", options.kind, KINDS)
    root = options.data_root or paths.synthetic_dir(options.profile) / kind
    splits = []
    for split in ("train", "test"):
        try:
            splits.append(load(kind, root, split, options.bad_boxes))
        except UserError as error:
            if "no image in its train split" not in str(error):  # a validation set has none
                raise
    print(describe_splits(*splits))
