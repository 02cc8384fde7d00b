"""One contract for all models, held to one table: what the trainer, the evaluation and a reader may rely on."""

import io
from copy import deepcopy
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch.nn import functional as F
from toy_sets import SMALL, toy_batch, toy_split

from pslib.data.annotations import UNLABELLED
from pslib.errors import UserError
from pslib.evaluation.cbgm import ContextMatching
from pslib.evaluation.gallery import embed_gallery, similarity_of
from pslib.evaluation.search import search
from pslib.models.alignps import AlignPS
from pslib.models.nae import NAE, NAEConfig
from pslib.models.roi_alignps import RoiAlignPS, RoiAlignPSConfig
from pslib.models.roi_branch import RoiBranchConfig
from pslib.models.seqnet import SeqNet, SeqNetConfig
from pslib.models.two_stage import TwoStage, TwoStageConfig

IDENTITIES = 6
DENSE = replace(SMALL, class_threshold=0.0)
ROI = RoiBranchConfig(dim=16, queue_size=8, score_threshold=0.0)
TWO = TwoStageConfig(embedding_dim=16, fc_width=32, queue_size=8, score_threshold=0.0)
BOTH = RoiAlignPSConfig(dense=DENSE, roi=ROI)
MODELS = {
    "AlignPS": (AlignPS, DENSE),
    "IAN": (TwoStage, TWO),
    "JDI-PS": (TwoStage, replace(TWO, identity_loss="oim")),
    "NAE": (NAE, NAEConfig(roi=ROI)),
    "NAE+": (NAE, NAEConfig(roi=replace(ROI, pixels=True))),
    "SeqNet": (SeqNet, SeqNetConfig(roi=replace(SeqNetConfig().roi, dim=16, queue_size=8, score_threshold=0.0))),
    "ROI-AlignPS": (RoiAlignPS, replace(BOTH, mutual=("information", "kl", "diversity"))),
    "ROI-AlignPS without RPN": (RoiAlignPS, replace(BOTH, rpn=False, read="roi")),
    "separate training": (RoiAlignPS, replace(BOTH, shared=False)),
}
every_model = pytest.mark.parametrize("name", MODELS)


@cache
def _trained(name):
    cls, config = MODELS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = cls(config, IDENTITIES)
        for seed in range(2):
            sum(model.train()(*toy_batch(seed)).values()).backward()
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.grad is not None:
                        parameter -= 0.01 * parameter.grad / max(1.0, parameter.grad.norm().item())
                        parameter.grad = None
            model.update_memory()
    return model


def trained(name):
    """A model that has learned two steps, one's own to change."""
    return deepcopy(_trained(name)).eval()


def run(model, images, boxes):
    with torch.no_grad():
        return model.detect_and_embed(images, boxes)


def given(targets):
    return [target["boxes"] for target in targets]


def as_rows(found):
    return torch.cat([found["boxes"], found["scores"][:, None], found["embeddings"]], dim=1)


# --- training -------------------------------------------------------------------------------------------------------


@every_model
def test_training_gives_finite_scalars_that_move_nearly_everything(name):
    model = trained(name).train()
    losses = model(*toy_batch(3))
    assert len(losses) >= 4
    for key, loss in losses.items():
        assert loss.ndim == 0 and loss.isfinite() and loss.requires_grad and loss.dtype == torch.float32, key
    sum(losses.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    reached = [p.grad is not None and bool((p.grad != 0).any()) for p in model.parameters()]
    assert sum(reached) > 0.8 * len(reached)


def unlabelled(targets):
    return [target | {"labels": torch.full_like(target["labels"], UNLABELLED)} for target in targets]


def nobody(targets):
    return [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)} for _ in targets]


def nobody_in_the_first(targets):
    return [*nobody(targets[:1]), *targets[1:]]


@every_model
@pytest.mark.parametrize("change", [unlabelled, nobody, nobody_in_the_first])
def test_batches_that_lack_people_have_finite_losses_with_a_graph(name, change):
    model = trained(name).train()
    images, targets = toy_batch(3)
    losses = model(images, change(targets))
    assert set(losses) == set(model(images, targets))
    assert all(loss.isfinite() and loss.requires_grad for loss in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    model.update_memory()
    assert all(buffer.isfinite().all() for buffer in model.buffers())


@every_model
def test_a_step_is_decided_by_torchs_global_seed(name):
    losses = []
    for _ in range(2):
        torch.manual_seed(5)
        losses.append(trained(name).train()(*toy_batch(3)))
    assert all(torch.equal(losses[0][key], losses[1][key]) for key in losses[0])


@every_model
def test_memories_move_when_the_trainer_says_so_and_only_then(name):
    model = trained(name)
    memories = [(key, buffer) for key, buffer in model.named_buffers() if "running" not in key and "batches" not in key]
    before = {key: buffer.clone() for key, buffer in memories}
    sum(model.train()(*toy_batch(3)).values()).backward()
    run(model.eval(), *(part(toy_batch(4)) for part in (lambda b: b[0], lambda b: given(b[1]))))
    assert before and all(torch.equal(buffer, before[key]) for key, buffer in memories)
    model.update_memory()
    after = {key: buffer.clone() for key, buffer in model.named_buffers() if key in before}
    assert any(not torch.equal(after[key], before[key]) for key in before)
    model.update_memory()
    assert all(torch.equal(buffer, after[key]) for key, buffer in model.named_buffers() if key in after)


# --- evaluation -----------------------------------------------------------------------------------------------------


@every_model
def test_evaluation_gives_boxes_scores_and_embeddings_best_first(name):
    model = trained(name)
    images, targets = toy_batch(3)
    with torch.no_grad():
        alone = model(images)
    detected, embedded = run(model, images, given(targets))
    assert sum(len(found["scores"]) for found in detected) > 0
    for plain, found, rows, target in zip(alone, detected, embedded, targets, strict=True):
        assert set(found) == {"boxes", "scores", "embeddings"} == set(plain)
        assert torch.equal(found["boxes"], plain["boxes"]) and torch.equal(found["scores"], plain["scores"])
        assert torch.allclose(found["embeddings"], plain["embeddings"], atol=1e-5)
        boxes, scores = found["boxes"], found["scores"]
        assert boxes.shape == (len(scores), 4) and (boxes >= 0).all()
        assert (boxes[:, 0::2] <= 96).all() and (boxes[:, 1::2] <= 64).all() and (boxes[:, 2:] > boxes[:, :2]).all()
        assert ((scores >= 0) & (scores <= 1)).all() and (scores[1:] <= scores[:-1]).all()
        assert found["embeddings"].shape == (len(scores), rows.shape[1]) and len(rows) == len(target["boxes"])
        assert all(value.dtype == torch.float32 and value.isfinite().all() for value in (*found.values(), rows))
        if similarity_of(model) == "cosine":
            for embeddings in (found["embeddings"], rows):
                assert torch.allclose(embeddings.norm(dim=1), torch.ones(len(embeddings)), atol=1e-5)


@every_model
def test_evaluation_changes_nothing_and_draws_nothing(name):
    model = trained(name)
    images, targets = toy_batch(3)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    drawn = torch.get_rng_state()
    first, again = (run(model, images, given(targets)) for _ in range(2))
    assert torch.equal(drawn, torch.get_rng_state())
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    for one, other in zip(first[0], again[0], strict=True):
        assert torch.equal(as_rows(one), as_rows(other))


@every_model
def test_no_box_asked_for_and_no_detection_are_empty_results(name):
    model = trained(name)
    for part in model.modules():  # nothing is sure enough
        config = getattr(part, "config", None)
        for switch in ("class_threshold", "score_threshold"):
            if hasattr(config, switch):
                part.config = config = replace(config, **{switch: 1.0})
        if hasattr(config, "roi") and isinstance(part, SeqNet):
            part.config = replace(config, roi=replace(config.roi, score_threshold=1.0))
    images, targets = toy_batch(3)
    detected, embedded = run(model, images, [torch.zeros(0, 4), targets[1]["boxes"]])
    dim = embedded[1].shape[1]
    assert embedded[0].shape == (0, dim) and len(embedded[1]) == 2
    for found in detected:
        assert (
            found["boxes"].shape == (0, 4) and found["scores"].shape == (0,) and found["embeddings"].shape == (0, dim)
        )


@every_model
def test_floating_and_uint8_images_are_the_same_images(name):
    model = trained(name)
    images, targets = toy_batch(3)
    plain, floating = (run(model, batch, given(targets))[1] for batch in (images, [image / 255 for image in images]))
    assert all(torch.allclose(one, other, atol=1e-4) for one, other in zip(plain, floating, strict=True))


@every_model
def test_a_saved_and_loaded_model_says_the_same(name):
    model = trained(name)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    cls, config = MODELS[name]
    torch.manual_seed(99)
    other = cls(config, IDENTITIES)
    other.load_state_dict(torch.load(file, weights_only=True))
    images, targets = toy_batch(3)
    (found, rows), (found_again, rows_again) = (run(m.eval(), images, given(targets)) for m in (model, other))
    for one, again in zip([*map(as_rows, found), *rows], [*map(as_rows, found_again), *rows_again], strict=True):
        assert torch.equal(one, again)


@every_model
def test_two_images_of_one_size_are_seen_as_each_alone(name):
    model = trained(name)
    images, targets = toy_batch(3)
    together = run(model, images, given(targets))
    for place in range(2):
        alone = run(model, images[place : place + 1], given(targets[place : place + 1]))
        assert torch.allclose(together[1][place], alone[1][0], atol=1e-4)
        one, other = together[0][place], alone[0][0]
        assert len(one["scores"]) == len(other["scores"])
        # Those whose scores are as good as equal may change places.
        apart = (as_rows(one)[:, None] - as_rows(other)).abs().amax(dim=2)
        assert (apart.amin(dim=0) < 1e-3).all() and (apart.amin(dim=1) < 1e-3).all()


@every_model
def test_padding_beside_a_larger_image_is_seen_but_little(name):
    # Padding is no part of the promise.  What convolutions make of it leaks over the border, deformable ones look
    # further, and the scores by which AlignPS chooses a box's cell come out of group normalisations, whose statistics
    # include it.  Yet no person may change much.
    model = trained(name)
    images, targets = toy_batch(3)
    larger = toy_batch(4, count=1, size=(96, 144))[0]
    alone = run(model, images[:1], given(targets[:1]))[1][0]
    beside = run(model, [images[0], *larger], [targets[0]["boxes"], torch.zeros(0, 4)])[1][0]
    assert (F.cosine_similarity(alone, beside) > 0.99).all()


# --- through the evaluation -----------------------------------------------------------------------------------------


@every_model
def test_a_set_is_embedded_and_searched_with_and_without_context(name):
    model, data = trained(name), toy_split("test")
    gallery = embed_gallery(model, data)
    protocol = data.protocols["TestG50"]
    ask = (protocol, gallery.detections, gallery.of_queries(protocol))
    switches = {"num_frames": len(data.frames), "similarity": gallery.similarity}
    plain = search(*ask, **switches)
    if gallery.similarity == "euclidean":
        with pytest.raises(UserError, match="cosine"):
            search(*ask, **switches, cbgm=ContextMatching())
        return
    assert search(*ask, **switches, cbgm=ContextMatching(k2=1)).mean_ap == plain.mean_ap
    context = search(*ask, **switches, cbgm=ContextMatching())
    assert (context.found == plain.found).all() and 0 <= context.mean_ap <= 1
