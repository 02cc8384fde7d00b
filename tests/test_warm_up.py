"""Warm starts: crops and their answers, what counts as an answer, the file one leaves, the committed ones."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from toy_sets import toy_recipe

from pslib import paths
from pslib.data.people import VIEWS, sample_people, sample_person
from pslib.data.plans import generator
from pslib.data.profiles import PROFILES
from pslib.data.scenes import OBJECTS
from pslib.errors import UserError
from pslib.models.backbones import TinyBackbone
from pslib.training import warm_start as warm_start_module
from pslib.training import warm_up
from pslib.training.checkpoints import load_weights
from pslib.training.trainer import build_model
from pslib.training.warm_start import apply_warm_start, warm_start_path
from pslib.training.warm_up import (
    CROP_SIZES,
    IDENTITY,
    LESSONS,
    QUESTIONS,
    CropClassifier,
    draw_crop,
    draw_person_crop,
    ensure_warm_start,
    make_warm_start,
)


def test_a_crop_follows_from_its_number():
    first, answers = draw_crop(5, (64, 32))
    again, answers_again = draw_crop(5, (64, 32))
    assert np.array_equal(first, again) and answers == answers_again
    assert first.shape == (64, 32, 3) and first.dtype == np.uint8
    assert not np.array_equal(first, draw_crop(6, (64, 32))[0])


def test_crops_drawn_side_by_side_are_those_drawn_one_by_one():
    count, lesson = warm_up.CHUNK + 8, LESSONS["neutral"]  # two chunks
    drawn = warm_up._draw(lesson, count, CROP_SIZES)
    for number, (image, answers) in enumerate(drawn):
        again, answers_again = lesson.draw(number, CROP_SIZES[number % len(CROP_SIZES)])
        assert np.array_equal(image, again) and answers == answers_again
    assert len(drawn) == count


def test_answers_are_of_the_question_or_do_not_apply():
    drawn = [draw_crop(number, (48, 32))[1] for number in range(60)]
    person = QUESTIONS["content"].index("person")
    for answers in drawn:
        assert len(answers) == len(QUESTIONS)
        if answers[0] == person:
            for answer, options in zip(answers, QUESTIONS.values(), strict=True):
                assert 0 <= answer < len(options)
        else:
            assert 0 <= answers[0] < len(QUESTIONS["content"]) and set(answers[1:]) == {-1}
    people = sum(answers[0] == person for answers in drawn)
    assert 25 < people < 55 and len({tuple(answers) for answers in drawn}) > 20
    assert len({answers[1] for answers in drawn}) == len(VIEWS) + 1  # every view, and -1


def test_answers_are_those_of_the_drawn_person(monkeypatch):
    seen = {}

    def watched(scene, size):
        seen["scene"] = scene
        return np.zeros((*size, 3), np.uint8)

    monkeypatch.setattr(warm_up, "render_crop", watched)
    for number in range(40):
        answers = dict(zip(QUESTIONS, draw_crop(number, (48, 32))[1], strict=True))
        scene, content = seen["scene"], QUESTIONS["content"][answers["content"]]
        if content == "person":
            placed = scene.placements[0]
            truth = {
                "view": placed.view, "upper": placed.person.upper.kind, "upper_pattern": placed.person.upper.pattern,
                "lower": placed.person.lower.kind, "lower_pattern": placed.person.lower.pattern,
                "bag": placed.person.bag, "hair": placed.person.hair, "hat": placed.person.hat,
            }  # fmt: skip
            assert {name: QUESTIONS[name][answers[name]] for name in truth} == truth
        elif content == "street":
            assert not scene.placements and not scene.occluders
        else:
            assert content in OBJECTS and scene.occluders[0].kind == content


def test_no_question_asks_for_a_colour_or_an_identity():
    assert not {"colour", "color", "identity", "person_id"} & set(QUESTIONS)
    assert not {"red", "blue", "green"} & {option for options in QUESTIONS.values() for option in options}


def test_the_loss_is_the_mean_over_questions_of_what_applies():
    torch.manual_seed(0)
    model = CropClassifier(TinyBackbone()).eval()
    crops = torch.randn(3, 3, 48, 32)
    answers = torch.full((3, len(QUESTIONS)), -1)
    answers[0] = 0
    answers[1, 0] = 2
    answers[2, 0] = 3
    with torch.no_grad():
        logits = list(model(crops).values())
        expected = [F.cross_entropy(logits[0], answers[:, 0])]
        expected += [-one[0].log_softmax(0)[0] for one in logits[1:]]
        assert model.loss(crops, answers).item() == pytest.approx((sum(expected) / len(QUESTIONS)).item(), rel=1e-5)


def test_a_batch_of_objects_trains_only_the_first_question():
    model = CropClassifier(TinyBackbone())
    answers = torch.full((2, len(QUESTIONS)), -1)
    answers[:, 0] = 3
    model.loss(torch.randn(2, 3, 48, 32), answers).backward()
    assert model.answers["content"].weight.grad.norm() > 0
    assert all(layer.weight.grad.norm() == 0 for name, layer in model.answers.items() if name != "content")


def test_a_mirrored_side_view_looks_the_other_way():
    image = np.arange(48 * 32 * 3, dtype=np.uint8).reshape(48, 32, 3)
    crops = [(image, [1, VIEWS.index(view)] + [0] * (len(QUESTIONS) - 2)) for view in VIEWS] * 20
    plain, same = warm_up._stack(crops)
    assert same[:, 1].tolist() == [answers[1] for _, answers in crops]
    mixed, answers = warm_up._stack(crops, np.random.default_rng(0))
    other = {"left": "right", "right": "left", "front": "front", "back": "back"}
    mirrored = 0
    for row in range(len(crops)):
        view = VIEWS[same[row, 1]]
        if torch.equal(mixed[row], plain[row]):
            assert VIEWS[answers[row, 1]] == view
        else:
            mirrored += 1
            assert torch.equal(mixed[row], plain[row].flip(-1)) and VIEWS[answers[row, 1]] == other[view]
    assert 25 < mirrored < 55 and (answers[:, [0, 2]] == same[:, [0, 2]]).all()


def test_accuracy_counts_only_where_a_question_applies():
    model = CropClassifier(TinyBackbone()).eval()
    for layer in model.answers.values():
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
        with torch.no_grad():
            layer.bias[1] = 1.0  # always answers 1
    crop = np.zeros((48, 32, 3), np.uint8)
    crops = [(crop, [1] * len(QUESTIONS)), (crop, [0] + [-1] * (len(QUESTIONS) - 1))]
    accuracy = warm_up._accuracy(model, crops, CROP_SIZES)
    assert accuracy == {"content": 0.5} | {name: 1.0 for name in list(QUESTIONS)[1:]}


def test_a_short_training_leaves_weights_that_load(tmp_path, monkeypatch):
    path, accuracy = make_warm_start(crops=24, epochs=1, batch_size=4, path=tmp_path / "a" / "w.safetensors")
    assert set(accuracy) == set(QUESTIONS) and all(0 <= share <= 1 for share in accuracy.values())
    tensors, header = load_weights(path)
    assert header["crops"] == "24" and header["epochs"] == "1" and set(QUESTIONS) <= set(header)
    assert list((tmp_path / "a").iterdir()) == [path]
    monkeypatch.setattr(warm_start_module, "warm_start_path", lambda *_: path)
    backbone = TinyBackbone()
    apply_warm_start(backbone, "tiny", "neutral")
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in backbone.state_dict().items())


def test_what_is_no_warm_start_is_refused(tmp_path, monkeypatch):
    backbone = TinyBackbone()
    before = backbone.stem[0].weight.clone()
    apply_warm_start(backbone, "tiny", "none")
    assert torch.equal(before, backbone.stem[0].weight)
    with pytest.raises(UserError, match="nearest: neutral"):
        apply_warm_start(backbone, "tiny", "neutrl")
    with pytest.raises(UserError, match="nearest: tiny"):
        make_warm_start("tyni")
    with pytest.raises(UserError, match="nearest: identity"):
        make_warm_start("tiny", "identiti")
    monkeypatch.setenv("PSLIB_ROOT", str(tmp_path))
    with pytest.raises(UserError, match="pslib warm-start --backbone tiny --kind neutral"):
        apply_warm_start(backbone, "tiny", "neutral")


def test_a_warm_start_of_another_backbone_is_refused(monkeypatch):
    committed = warm_start_path("tiny")
    monkeypatch.setattr(warm_start_module, "warm_start_path", lambda *_: committed)
    with pytest.raises(UserError, match="fits another backbone than resnet18"):
        build_model(toy_recipe(model__backbone="resnet18", warm_start="neutral"), 3, 0)


def test_the_committed_warm_start_loads_and_has_learned():
    path = warm_start_path("tiny")
    assert path == paths.weights_dir() / "warm-start-tiny-neutral.safetensors"
    tensors, header = load_weights(path)
    model = build_model(toy_recipe(warm_start="neutral"), 3, seed=0)
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in model.backbone.state_dict().items())
    for name, options in QUESTIONS.items():
        assert float(header[name]) > 1.2 / len(options), name


def drawn_people(monkeypatch, numbers):
    """Who stands in the crops ``numbers`` of the identity lesson, and how."""
    placed = []

    def watched(scene, size):
        placed.append(scene.placements[0])
        return np.zeros((*size, 3), np.uint8)

    monkeypatch.setattr(warm_up, "render_crop", watched)
    answers = [draw_person_crop(number, (48, 32))[1] for number in numbers]
    return placed, answers


def test_crops_of_one_identity_show_one_person_differently(monkeypatch):
    people = len(IDENTITY["identity"])
    placed, answers = drawn_people(monkeypatch, [*range(3, 3 + 12 * people, people), 4])
    assert answers == [[3]] * 12 + [[4]]
    assert all(one.person == placed[0].person for one in placed[:12]) and placed[12].person != placed[0].person
    assert len({one.view for one in placed[:12]}) > 1 and len({one.phase for one in placed[:12]}) == 12


def test_the_people_of_the_identity_lesson_are_in_no_split():
    taught = {sample_person(np.random.default_rng([warm_up._SEED, 1, i])) for i in IDENTITY["identity"]}
    assert len(taught) == len(IDENTITY["identity"])
    tiny = PROFILES["tiny"]
    for kind, knobs in (("cuhk-sysu", tiny.knobs), ("prw", tiny.prw_knobs)):
        for split, size in (("train", tiny.train), ("validation", tiny.validation), ("test", tiny.test)):
            assert not taught & set(sample_people(size.people, generator(tiny.seed, kind, split, "people"), knobs))


def test_every_person_is_seen_at_every_size():
    people, sizes = len(IDENTITY["identity"]), len(CROP_SIZES)
    seen = {(number % people, number % sizes) for number in range(LESSONS["identity"].crops)}
    assert len(seen) == people * sizes


def test_a_person_mirrored_stays_the_person():
    crop = (np.arange(48 * 32 * 3, dtype=np.uint8).reshape(48, 32, 3), [7])
    assert warm_up._stack([crop] * 20, np.random.default_rng(0))[1].tolist() == [[7]] * 20


def test_an_identity_start_is_one_classifier_of_people(tmp_path):
    path, accuracy = make_warm_start("tiny", "identity", crops=24, epochs=1, batch_size=4, path=tmp_path / "w")
    assert set(accuracy) == {"identity"}
    assert load_weights(path)[0].keys() == load_weights(warm_start_path("tiny"))[0].keys()


def test_a_missing_warm_start_is_made_once_and_kept_under_build(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PSLIB_ROOT", str(tmp_path))
    made = []

    def make(backbone, kind, device):
        made.append((backbone, kind, device))
        warm_start_path(backbone, kind).touch()

    monkeypatch.setattr(warm_up, "make_warm_start", make)
    for _ in range(2):
        ensure_warm_start("resnet18", "neutral")
        ensure_warm_start("resnet18", "none")
    assert made == [("resnet18", "neutral", "cpu")]
    assert warm_start_path("resnet18") == tmp_path / "build" / "weights" / "warm-start-resnet18-neutral.safetensors"
    assert capsys.readouterr().out.count("made once") == 1
    with pytest.raises(UserError, match="nearest: neutral"):
        ensure_warm_start("resnet18", "neutrl")


def test_a_warm_start_of_a_resnet_loads_into_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PSLIB_ROOT", str(tmp_path))
    make_warm_start("resnet18", crops=12, epochs=1, batch_size=2)
    tensors, _ = load_weights(warm_start_path("resnet18"))
    recipe = toy_recipe(model__backbone="resnet18", model__deformable_stages=("res5",), warm_start="neutral")
    backbone = build_model(recipe, 3, seed=0).backbone
    assert torch.equal(backbone.body.layer1[0].conv1.weight, tensors["body.layer1.0.conv1.weight"])
    assert torch.equal(backbone.body.layer4[0].conv2.weight, 2 * tensors["body.layer4.0.conv2.weight"])


def test_the_committed_identity_start_loads_and_knows_its_people():
    tensors, header = load_weights(warm_start_path("tiny", "identity"))
    model = build_model(toy_recipe(warm_start="identity"), 3, seed=0)
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in model.backbone.state_dict().items())
    assert float(header["identity"]) > 100 / len(IDENTITY["identity"])
