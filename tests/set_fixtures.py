"""Small sets of both layouts for the tests of readers and writers: hand-made ones, and drawn ones made once."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pslib.data.layouts import CuhkProtocol, DrawnFrame, DrawnQuery, write_cuhk_sysu, write_prw
from pslib.data.profiles import PROFILES, SplitSize
from pslib.data.synthetic import make

MINI = replace(
    PROFILES["tiny"],
    name="mini",
    train=SplitSize(people=12, scenes=36),
    validation=SplitSize(people=6, scenes=20),
    test=SplitSize(people=10, scenes=60),
    gallery_sizes=(20, 50, 100),
)


def frame(name, boxes, people, camera=0, visible=None):
    boxes = np.array(boxes, np.float64).reshape(-1, 4)
    visible = np.ones(len(boxes)) if visible is None else np.array(visible, float)
    return DrawnFrame(name, boxes, np.array(people, np.int64), visible, camera)


def blank_images(folder: Path, frames, size=(144, 320)):
    folder.mkdir(parents=True, exist_ok=True)
    for drawn in frames:
        Image.new("RGB", size[::-1], (40, 80, 120)).save(folder / drawn.name)


def hand_made_cuhk(root: Path, gallery=(1, 2)):
    """Two training people, one test person; boxes whose x + w does not fit uint8."""
    train = [
        frame("s10.jpg", [[20, 10, 30, 50], [200, 20, 90, 60]], [7, 3]),
        frame("s2.jpg", [[200, 10, 100, 50], [0, 0, 20, 40]], [7, -1]),
        frame("s6.jpg", [], []),
    ]
    test = [
        frame("s3.jpg", [[210, 10, 100, 50], [250, 0, 20, 40]], [9, -1]),
        frame("s4.jpg", [[20, 10, 30, 50]], [9]),
        frame("s5.jpg", [[1, 2, 30, 50]], [-1]),
    ]
    blank_images(root / "Image/SSM", train + test)
    query, order = [DrawnQuery(0, 0)], [np.array(gallery, int)]
    protocols = [
        CuhkProtocol("train_test/TestG50.mat", "TestG50", query, order),
        CuhkProtocol("subset/Occlusion.mat", "Occlusion1", query, order),
        CuhkProtocol("subset/Resolution.mat", "Test_Size", query, order),
    ]
    write_cuhk_sysu(root, train, test, protocols)
    return root


def hand_made_prw(root: Path, odd_corners=True):
    """Three cameras; person 9 under cameras 1 and 2, twice in one frame; negative coordinates; all three keys."""
    train = [
        frame("c1s1_000151.jpg", [[10.5, 5, 20.25, 50], [60, 5, 20, 50]], [482, -1], 1),
        frame("c6s1_000001.jpg", [[1, 1, 10, 20]], [5], 6),
    ]
    test = [
        frame("c1s2_000200.jpg", [[30, 20, 25.5, 60], [100, 20, 25, 60]], [9, -1], 1),
        frame("c2s2_000200.jpg", [[-3, 20, 25, 60], [8, 20, 25, 60]], [9, 9], 2),
        frame("c1s2_000225.jpg", [[300, 20, 25, 60]], [9], 1),
        frame("c3s2_000001.jpg", [], [], 3),
    ]
    blank_images(root / "frames", train + test)
    write_prw(root, train, test, [DrawnQuery(0, 0)], odd_corners)
    return root


_made: dict[str, Path] = {}  # both modules that import the fixtures share what they drew


def _once(name: str, factory, **options) -> Path:
    if name not in _made:
        out = factory.mktemp(name)
        make(MINI, out, workers=2, **options)
        _made[name] = out / "mini"
    return _made[name]


@pytest.fixture(scope="session")
def mini_sets(tmp_path_factory) -> Path:
    """The four drawn sets of the MINI profile; read only."""
    return _once("drawn", tmp_path_factory)


@pytest.fixture(scope="session")
def odd_sets(tmp_path_factory) -> Path:
    """The sets of MINI with train and test, odd corners planted; read only."""
    return _once("odd", tmp_path_factory, only=["cuhk-sysu", "prw"], odd_corners=True)
