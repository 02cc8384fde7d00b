"""The folders of the sets that pslib writes: whose they are, what is removed, who writes; and damaged manifests."""

import errno
import json
import multiprocessing
import os
import select
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
from set_fixtures import MINI, hand_made_prw, mini_sets  # noqa: F401 (fixture)
from test_readers import one_sentence

from pslib import notebook
from pslib.data import folders, synthetic
from pslib.data.loading import describe, fingerprint, load
from pslib.data.manifest import read_manifest
from pslib.data.paper_layout import make_thin
from pslib.data.profiles import SplitSize
from pslib.data.synthetic import SETS, make
from pslib.errors import UnreadableError
from pslib.experiments.commands import open_run_data

FEW = replace(
    MINI, name="few", train=SplitSize(4, 9), validation=SplitSize(3, 9), test=SplitSize(3, 12), sightings=(3, 4, 4)
)


def files(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


# ------------------------------------------------------------------------------- whose a folder is


@pytest.mark.parametrize("manifest", ['{"name": "my own set"}', "[]", "{", '{"set": "cuhk-sysu", "plan": "x"}',
                                      '{"set": "prw", "settings": {}}'])  # fmt: skip
def test_a_real_set_with_a_manifest_of_its_own_is_not_cleared(tmp_path, manifest):
    """Planted fault: any manifest.json counts as ours, and a set that took years to collect is gone."""
    for draw in (lambda: make(FEW, tmp_path, workers=1, only="prw"), lambda: make_thin(tmp_path / "few", "prw", 100)):
        root = hand_made_prw(tmp_path / "few/prw")
        (root / "manifest.json").write_text(manifest)
        before = files(root)
        one_sentence(draw, str(root), "pslib did not draw", "--out")
        assert files(root) == before


@pytest.mark.parametrize("name", ["cuhk-sysu-val", "prw-val"])
def test_only_what_pslib_wrote_is_removed(tmp_path, name):
    make(FEW, tmp_path, workers=1, only=name)
    root, images = tmp_path / "few" / name, folders.IMAGES[name.removesuffix("-val")]
    mine = {"notes.txt": b"a year of work", "figures/one.jpg": b"?", f"{images}/sketch.jpg": b"!"}
    for path, content in mine.items():
        (root / path).parent.mkdir(exist_ok=True)
        (root / path).write_bytes(content)
    (root / "annotation" if "cuhk" in name else root / "annotations").joinpath("left.mat.part").write_bytes(b"")
    other = replace(FEW, seed=5, validation=SplitSize(3, 12))
    manifest = make(other, tmp_path, workers=1, only=name)[name]
    left = files(root)
    assert {path: left[path] for path in mine} == mine
    again = make(other, tmp_path / "fresh", workers=1, only=name)[name]
    assert left.keys() - mine.keys() - {path for path in left if path.endswith("left.mat.part")} \
        == files(tmp_path / "fresh/few" / name).keys()  # fmt: skip
    assert manifest == again
    before = (root / "manifest.json").stat().st_mtime_ns
    make(other, tmp_path, workers=1, only=name)  # somebody's own picture among the images is none of the set's
    assert (root / "manifest.json").stat().st_mtime_ns == before


def test_a_thin_set_is_replaced_by_another_and_keeps_what_is_not_its_own(tmp_path, monkeypatch):
    make_thin(tmp_path, "prw", shrink=90)
    (tmp_path / "prw/notes.txt").write_text("mine")
    make_thin(tmp_path, "prw", shrink=100)
    thin = load("prw", tmp_path / "prw", "test")
    assert len(thin.frames) == 61 == len(list((tmp_path / "prw/frames").iterdir())) - 57
    assert (tmp_path / "prw/notes.txt").read_text() == "mine"
    # killed half-way, the next call takes it for its own and goes on
    monkeypatch.setattr("pslib.data.paper_layout.write_prw", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        make_thin(tmp_path, "prw", shrink=95)
    monkeypatch.undo()
    assert make_thin(tmp_path, "prw", shrink=95)["prw"]["settings"]["shrink"] == 95


# ------------------------------------------------------------------------------- who writes


def draw_one_set(folder, barrier, failed):
    barrier.wait()
    try:
        make(FEW, folder, workers=1, only=["prw-val", "cuhk-sysu-val"])
    except BaseException as error:
        failed.put(repr(error))


def test_two_processes_draw_one_set_between_them(tmp_path):
    """As two pages do that are opened on a fresh checkout."""
    context = multiprocessing.get_context("fork")
    barrier, failed = context.Barrier(2), context.Queue()
    both = [context.Process(target=draw_one_set, args=(tmp_path, barrier, failed)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert failed.empty(), failed.get()
    for name in ("prw-val", "cuhk-sysu-val"):
        assert fingerprint(tmp_path / "few" / name) == make(FEW, tmp_path, workers=1, only=name)[name]["fingerprint"]


def test_the_workers_of_a_killed_process_end_with_it(tmp_path, monkeypatch):
    """Planted fault: they wait for work for ever, and whoever draws the set again may wait for them."""
    ended, alive = os.pipe()

    def say_and_wait(*_):
        os.write(alive, b"x")
        time.sleep(90)  # longer than the test waits

    monkeypatch.setattr(synthetic, "draw_batch", say_and_wait)
    monkeypatch.setattr(synthetic, "_BATCH", 2)
    drawing = multiprocessing.get_context("fork").Process(target=make, args=(FEW, tmp_path, 2, "prw-val"))
    drawing.start()
    os.close(alive)
    assert os.read(ended, 1) + os.read(ended, 1) == b"xx"
    drawing.kill()
    drawing.join()
    readable, _, _ = select.select([ended], [], [], 60)
    assert readable and os.read(ended, 1) == b"", "a worker still holds the other end"
    os.close(ended)


def test_who_waited_draws_nothing_again(tmp_path, monkeypatch, capsys):
    """The set is looked at again once the lock is free: planted fault, drawing what the other has just finished."""
    monkeypatch.setenv("PSLIB_PLAIN", "1")
    real = folders.writing

    def finished_meanwhile(root, name):
        monkeypatch.setattr(synthetic, "writing", real)
        make(FEW, tmp_path, workers=1, only="prw-val")
        return real(root, name)

    monkeypatch.setattr(synthetic, "writing", finished_meanwhile)
    make(FEW, tmp_path, workers=1, only="prw-val")
    assert capsys.readouterr().out.count("annotate: 100 %") == 1


# ------------------------------------------------------------------------------- what a manifest says


@pytest.mark.parametrize("content", ["{", "[]", "7", "", "{}", "\udcff"])
def test_a_damaged_manifest_is_one_sentence_everywhere(tmp_path, monkeypatch, content):
    monkeypatch.setenv("PSLIB_ROOT", str(tmp_path))
    root = hand_made_prw(tmp_path / "data/synthetic/tiny/prw")
    (root / "manifest.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    train = load("prw", root, "train")
    for read in (lambda: read_manifest(root), lambda: fingerprint(root), lambda: describe(train),
                 lambda: notebook.data_state("tiny")):  # fmt: skip
        one_sentence(read, "manifest.json is damaged", "draw the set again")


def test_a_manifest_that_cannot_be_read_just_now_is_not_called_damaged(tmp_path, monkeypatch):
    """It may be whole: nobody is told to remove the folder, and nothing in it changes."""
    root = hand_made_prw(tmp_path / "few/prw")
    (root / "manifest.json").write_text('{"by": "me"}')
    before = files(root)
    read_text = Path.read_text

    def closed(path, *arguments, **options):  # file modes would not stop root
        if path.name == "manifest.json":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return read_text(path, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", closed)
    for read in (lambda: read_manifest(root), lambda: fingerprint(root), lambda: make(FEW, tmp_path, only="prw")):
        with pytest.raises(UnreadableError, match="manifest.json: Permission denied: make it readable"):
            read()
    assert files(root) == before


def test_a_manifest_of_somebody_else_is_no_sign_of_a_drawn_set(tmp_path):
    root = hand_made_prw(tmp_path / "prw")
    plain = fingerprint(root)
    (root / "manifest.json").write_text('{"by": "me"}')
    told = describe(load("prw", root, "train"))
    assert "DISAGREES" in told and "drawn" not in told
    assert fingerprint(root) == plain


def test_a_drawn_set_that_lost_its_fingerprint_is_damaged(tmp_path, mini_sets):  # noqa: F811
    shutil.copytree(mini_sets / "prw-val", tmp_path / "prw-val")
    content = read_manifest(mini_sets / "prw-val")
    del content["fingerprint"]
    (tmp_path / "prw-val/manifest.json").write_text(json.dumps(content))
    one_sentence(lambda: fingerprint(tmp_path / "prw-val"), "is damaged")
    assert {read_manifest(mini_sets / name)["set"] for name in SETS} == set(SETS)


def test_a_set_of_the_papers_layout_is_run_on(tmp_path):
    """It has a manifest without a fingerprint: its frames are digested."""
    make_thin(tmp_path, "prw", shrink=100)
    data = open_run_data("prw", "paper", tmp_path / "prw")
    assert len(data.fingerprint) == 64 and data.fingerprint == fingerprint(tmp_path / "prw")
    make_thin(tmp_path / "other", "prw", shrink=100, seed=23)
    assert fingerprint(tmp_path / "other/prw") != data.fingerprint
