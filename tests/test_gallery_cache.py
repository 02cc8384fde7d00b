"""The gallery cache: read back what was written, made anew when anything that matters changes, damage named."""

import copy
import inspect
import json
import os
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from toy_sets import toy_model as training_model
from toy_sets import toy_split

from pslib.data import loading
from pslib.data.annotations import PersonSearchSet
from pslib.errors import UserError
from pslib.evaluation import cache
from pslib.evaluation.cache import cached_gallery, gallery_key, set_digest
from pslib.evaluation.fast import prepare
from pslib.evaluation.gallery import embed_gallery
from pslib.losses.oim import OIMMemory
from pslib.models.alignps import AlignPS, AlignPSConfig
from pslib.models.families import build
from pslib.models.nae import NAE, NAEConfig
from pslib.models.roi_alignps import RoiAlignPS, RoiAlignPSConfig
from pslib.models.seqnet import SeqNet, SeqNetConfig
from pslib.models.two_stage import TwoStage, TwoStageConfig


def toy_model():
    return training_model().eval()


@pytest.fixture
def counted(monkeypatch):
    """How often the gallery was embedded."""
    calls = []

    def embed(*arguments, **options):
        calls.append(options)
        return embed_gallery(*arguments, **options)

    monkeypatch.setattr(cache, "embed_gallery", embed)
    return calls


def same(one, other):
    for who in ("detections", "ground_truth"):
        for part in ("frame", "boxes", "scores", "embeddings"):
            a, b = getattr(getattr(one, who), part), getattr(getattr(other, who), part)
            assert a.dtype == b.dtype and np.array_equal(a, b), (who, part)
    assert np.array_equal(one.person_ids, other.person_ids)


def files(folder, suffix):
    return sorted(path.name for path in folder.iterdir() if path.name.endswith(suffix))


def test_a_second_call_reads_what_the_first_one_wrote(tmp_path, counted):
    model, data = toy_model(), toy_split("test")
    first = cached_gallery(model, data, name="toy", folder=tmp_path)
    second = cached_gallery(model, data, name="toy", folder=tmp_path)
    assert len(counted) == 1
    same(first, second)
    same(first, embed_gallery(model, data))
    key = gallery_key(model, data)
    assert files(tmp_path, "") == [f"toy-{key}.json", f"toy-{key}.npz"]
    story = json.loads((tmp_path / f"toy-{key}.json").read_text())
    assert story["key"] == key and story["frames"] == len(data.frames) and story["name"] == "toy"
    assert story["annotated_boxes"] == len(first.ground_truth) and story["set"]["kind"] == "cuhk-sysu"
    assert "/" not in json.dumps(story), "provenance travels with the file: no paths of this machine"


def test_the_default_folder_is_build_galleries(tmp_path, monkeypatch):
    monkeypatch.setenv("PSLIB_ROOT", str(tmp_path))
    cached_gallery(toy_model(), toy_split("test"), name="toy")
    assert len(files(tmp_path / "build" / "galleries", ".npz")) == 1


def changed_models():
    other = toy_model()
    with torch.no_grad():
        next(other.head.parameters()).view(-1)[0] += 1e-3
    yield "one weight", other
    switched = toy_model()
    switched.config = replace(switched.config, class_threshold=0.5)
    yield "a switch without weights", switched


def test_another_model_is_another_gallery():
    data = toy_split("test")
    for what, model in changed_models():
        assert gallery_key(model, data) != gallery_key(toy_model(), data), what


def test_a_prepared_model_counts_with_its_precision_and_switches(tmp_path, counted):
    data, model = toy_split("test"), toy_model()
    strict = copy.deepcopy(model)
    strict.config = replace(model.config, class_threshold=0.9)
    prepared = [prepare(model), prepare(strict), prepare(model, "bfloat16"), prepare(model, "float16"), model]
    assert not any(one.training for one in prepared)
    assert len({gallery_key(one, data) for one in prepared}) == len(prepared)
    for one in prepared[:2]:
        same(cached_gallery(one, data, name="toy", folder=tmp_path), embed_gallery(one, data))
    assert len(counted) == 2


def test_a_name_that_is_not_utf8_has_a_digest():
    data = toy_split("test")
    frame = data.frames[0]
    names = [os.fsdecode(name) for name in (b"caf\xe9", b"caf\xe8")]
    strange = [replace(data, frames=[replace(frame, name=name), *data.frames[1:]]) for name in names]
    assert len({set_digest(one) for one in (data, *strange)}) == 3


def test_a_model_in_training_is_refused(tmp_path):
    with pytest.raises(UserError, match="model.eval()"):
        cached_gallery(training_model(), toy_split("test"), name="toy", folder=tmp_path)


@pytest.mark.parametrize("config", [AlignPSConfig(), NAEConfig(), RoiAlignPSConfig(), SeqNetConfig()])
def test_the_key_ignores_what_inference_does_not_read(config):
    model, data = build(config, 3), toy_split("test")
    before = gallery_key(model, data)
    memories = [part for part in model.modules() if isinstance(part, OIMMemory)]
    for memory in memories:
        memory.table += 1.0
    assert memories and gallery_key(model, data) == before


def test_a_two_stage_model_has_a_key_of_its_weights_and_not_of_its_centers():
    model, data = TwoStage(TwoStageConfig(embedding_dim=8), 3), toy_split("test")
    before = gallery_key(model, data)
    model.centers.centers += 1.0
    assert gallery_key(model, data) == before
    with torch.no_grad():
        model.head.feat.bias += 1.0
    assert gallery_key(model, data) != before


@pytest.mark.parametrize("family", [AlignPS, TwoStage, NAE, RoiAlignPS, SeqNet])
def test_the_code_of_every_module_that_a_model_imports_counts(family):
    names = {module.__name__ for module in cache._PATH_OF_A_PIXEL}
    used, waiting = set(), {family.__module__}
    while waiting:
        source = inspect.getsource(sys.modules[waiting.pop()])
        new = set(re.findall(r"^from (pslib\.(?:models|ops)[\w.]*) import", source, re.M)) - used
        used, waiting = used | new, waiting | new
    assert len(used) > 3 and used <= names
    assert inspect.getmodule(loading.to_pixels).__name__ in names, "how a file is decoded counts, too"


def test_frames_boxes_ids_size_and_code_count(monkeypatch, tmp_path):
    model, data = toy_model(), toy_split("test")
    keys = {gallery_key(model, data), gallery_key(model, data, (48, 32)), gallery_key(model, toy_split("train"))}
    keys.add(gallery_key(model, data, batch_size=1))
    first = data.frames[0]

    def with_first(frame):
        return PersonSearchSet(data.kind, data.split, data.root, [frame, *data.frames[1:]])

    keys.add(gallery_key(model, with_first(replace(first, boxes=first.boxes + 1))))
    keys.add(gallery_key(model, with_first(replace(first, person_ids=first.person_ids + 1))))
    Image.new("RGB", (96, 64)).save(tmp_path / "other.jpg")
    keys.add(gallery_key(model, with_first(replace(first, path=tmp_path / "other.jpg"))))
    monkeypatch.setattr(cache, "_code_digest", lambda: "edited")
    keys.add(gallery_key(model, data))
    assert len(keys) == 8


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def forget_the_last_half(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def foreign(path):
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    np.savez(path, **{**arrays, "key": np.array("another")})


def missing_rows(path):
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    np.savez(path, **{**arrays, "person_ids": arrays["person_ids"][:-1]})


def frame_outside(path):
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    np.savez(path, **{**arrays, "ground_truth/frame": arrays["ground_truth/frame"] + 1000})


@pytest.mark.parametrize("damage", [flip_a_byte, forget_the_last_half, foreign, missing_rows, frame_outside,
                                    lambda path: path.write_bytes(b"no archive")])
def test_a_damaged_or_foreign_file_is_named_set_aside_and_made_again(tmp_path, capsys, counted, damage):
    model, data = toy_model(), toy_split("test")
    whole = cached_gallery(model, data, name="toy", folder=tmp_path)
    path = next(tmp_path.glob("*.npz"))
    damage(path)
    again = cached_gallery(model, data, name="toy", folder=tmp_path)
    said = capsys.readouterr().out
    assert str(path) in said and "set aside" in said
    assert path.with_name(path.name + ".set-aside").exists() and len(counted) == 2
    same(whole, again)
    same(whole, cached_gallery(model, data, name="toy", folder=tmp_path))
    assert len(counted) == 2


def test_a_folder_that_cannot_be_written_costs_no_result(tmp_path, capsys):
    (tmp_path / "taken").write_text("a file where the folder should be")
    found = cached_gallery(toy_model(), toy_split("test"), name="toy", folder=tmp_path / "taken")
    assert len(found.ground_truth) > 0
    assert "is not kept" in capsys.readouterr().out


def test_progress_is_shown_while_embedding_only(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PSLIB_PLAIN", "1")
    for expected in ("embed toy: 100 %", ""):
        cached_gallery(toy_model(), toy_split("test"), name="toy", folder=tmp_path)
        assert expected in capsys.readouterr().out
    cached_gallery(toy_model(), toy_split("test"), name="toy", folder=tmp_path)
    assert capsys.readouterr().out == ""
