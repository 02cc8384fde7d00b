"""NAE+: every cell of a region read by the norm-aware head, against loops over the cells and against convolutions."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F
from toy_sets import toy_batch

from pslib.models import roi_branch as module
from pslib.models.backbones import build_backbone
from pslib.models.batching import batch_images
from pslib.models.nae import NAE, NAEConfig
from pslib.models.norm_aware import NormAwareHead, PixelNormAwareHead, _resize, covered_cells
from pslib.models.roi_branch import RoiBranch, RoiBranchConfig

IDENTITIES = 6
PIXELS = RoiBranchConfig(dim=16, queue_size=8, pixels=True)


def head(cls=PixelNormAwareHead):
    """A head whose batch normalisations have seen something and have factors of their own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = cls((5, 7), 8)
        with torch.no_grad():
            for _, norm in made.projectors:
                norm.weight.uniform_(0.5, 2.0)
                norm.bias.uniform_(-1.0, 1.0)
            made.rescaler.weight.fill_(3.0)
            made.rescaler.bias.fill_(-0.5)
        NormAwareHead.forward(made.train(), [torch.randn(40, 5), torch.randn(40, 7)])
        return made.eval()


def maps(regions=3, shallow=(4, 4), deep=(4, 4), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(regions, width, *cells, generator=generator) for width, cells in ((5, shallow), (7, deep))]


# --- the head -------------------------------------------------------------------------------------------------------


def check_cells(made, inputs):
    out = made(inputs)
    count, _, height, width = inputs[1].shape
    for region in range(count):
        total, scores = torch.zeros(8), []
        for row in range(height):
            for column in range(width):
                cell = NormAwareHead.forward(made, [x[region, :, row, column][None] for x in inputs])
                score = 1 / (1 + math.exp(-cell.logits.item()))
                assert out.logits[region, row, column].item() == pytest.approx(cell.logits.item(), abs=1e-4)
                assert out.norms[region, row, column].item() == pytest.approx(cell.norms.item(), abs=1e-4)
                total += score * cell.embeddings[0]
                scores.append(score)
        assert torch.allclose(out.embeddings[region], total / total.norm(), atol=1e-5)
        assert out.scores[region].item() == pytest.approx(sum(scores) / len(scores), abs=1e-5)


def test_every_cell_is_read_as_a_vector_and_weighted_by_its_score():
    check_cells(head(), maps(deep=(4, 3), shallow=(4, 3)))


class Unweighted(PixelNormAwareHead):
    """Planted: all cells count alike."""

    def forward(self, inputs):
        out = super().forward(inputs)
        rows = [x.movedim(1, 3).flatten(0, 2) for x in inputs]
        each = NormAwareHead.forward(self, rows).embeddings.reshape(len(inputs[0]), -1, 8).mean(dim=1)
        return replace(out, embeddings=F.normalize(each))


class Sideways(PixelNormAwareHead):
    """Planted: rows and columns of the logits are exchanged."""

    def forward(self, inputs):
        out = super().forward(inputs)
        return replace(out, logits=out.logits.transpose(1, 2))


@pytest.mark.parametrize("cls", [Unweighted, Sideways])
def test_planted_faults_of_the_head_are_caught(cls):
    with pytest.raises(AssertionError):
        check_cells(head(cls), maps())


@pytest.mark.parametrize("shallow", [(4, 4), (8, 8), (7, 7)])
def test_it_is_convolution_then_resizing_as_released_once_trained(shallow):
    made, inputs = head(), maps(shallow=shallow)
    parts = []
    for x, (linear, norm) in zip(inputs, made.projectors, strict=True):
        y = F.conv2d(x, linear.weight[:, :, None, None], linear.bias)
        y = F.batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias)
        parts.append(F.interpolate(y, size=(4, 4), mode="bilinear", align_corners=False))
    raw = torch.cat(parts, dim=1)
    norms = raw.norm(dim=1, keepdim=True)
    scale = made.rescaler
    logits = F.batch_norm(norms, scale.running_mean, scale.running_var, scale.weight, scale.bias)
    expected = F.normalize((raw / norms * logits.sigmoid()).mean(dim=(2, 3)))
    out = made(inputs)
    assert torch.allclose(out.embeddings, expected, atol=1e-5)
    assert torch.allclose(out.logits, logits[:, 0], atol=1e-4)


def test_in_training_all_cells_of_the_batch_are_normed_together():
    made = head().train()
    inputs = maps()
    out = made(inputs)
    rows = [torch.stack([x[r, :, i, j] for r in range(3) for i in range(4) for j in range(4)]) for x in inputs]
    together = NormAwareHead.forward(made, rows)
    assert torch.allclose(out.logits.flatten(), together.logits, atol=1e-5)


def test_a_region_of_equal_cells_is_one_vector():
    made = head()
    vectors = [x[:, :, 0, 0] for x in maps()]
    out = made([x[:, :, None, None].expand(-1, -1, 3, 3) for x in vectors])
    alone = NormAwareHead.forward(made, vectors)
    assert torch.allclose(out.embeddings, alone.embeddings, atol=1e-5)
    assert torch.allclose(out.scores, alone.scores, atol=1e-5)


def test_the_surest_cells_speak_loudest():
    made, inputs = head(), maps(regions=1)
    with torch.no_grad():
        made.rescaler.weight.fill_(1e3)
        first, second = made(inputs).logits.flatten().topk(2).values
        made.rescaler.bias.sub_((first + second) / 2)  # now the longest vector is sure, and no other
    out = made(inputs)
    best = int(out.norms.argmax())
    alone = NormAwareHead.forward(made, [x.flatten(2)[0, :, best][None] for x in inputs])
    assert out.logits.flatten().topk(2).values.sign().tolist() == [1, -1]
    assert torch.allclose(out.embeddings, alone.embeddings, atol=1e-3)


@pytest.mark.parametrize("bias", [-40.0, -110.0])
def test_an_embedding_is_of_unit_length_where_no_cell_shows_a_person(bias):
    """Scores of 1e-18, and of nothing that float32 holds: how they compare is known from the logits."""
    made, inputs = head(), maps()
    inputs = [x.requires_grad_() for x in inputs]
    with torch.no_grad():
        made.rescaler.bias.fill_(bias)
    out = made(inputs)
    torch.testing.assert_close(out.embeddings.norm(dim=1), torch.ones(3))
    exact = (out.logits.double() - out.logits.double().amax(dim=(1, 2), keepdim=True)).exp().flatten(1)
    cells = NormAwareHead.forward(made, [x.movedim(1, 3).flatten(0, 2) for x in inputs]).embeddings.double()
    want = F.normalize((exact.unsqueeze(2) * cells.reshape(3, 16, 8)).sum(dim=1))
    torch.testing.assert_close(out.embeddings.double(), want, atol=1e-5, rtol=1e-5)
    out.embeddings.sum().backward()
    assert all(x.grad.isfinite().all() for x in inputs)


@pytest.mark.parametrize("training", [True, False])
def test_no_region_gives_nothing(training):
    made = head().train(training)
    out = made([torch.zeros(0, 5, 7, 7), torch.zeros(0, 7, 4, 4)])
    assert out.embeddings.shape == (0, 8) and out.logits.shape == (0, 4, 4) and out.scores.shape == (0,)


# --- what the cells learn -------------------------------------------------------------------------------------------


def test_covered_cells_are_those_of_a_fine_drawing():
    generator = torch.Generator().manual_seed(0)
    corner = 40 * torch.rand(20, 2, generator=generator)
    boxes = torch.cat([corner, corner + 10 + 30 * torch.rand(20, 2, generator=generator)], dim=1)
    others = boxes + 12 * torch.randn(20, 4, generator=generator)
    others[:, 2:] = others[:, 2:].maximum(others[:, :2] + 1)
    covered = covered_cells(boxes, others, (4, 3))
    assert covered.shape == (20, 4, 3) and (covered >= 0).all() and (covered <= 1 + 1e-6).all()
    fine = 60  # points a cell and axis
    for box, other, shares in zip(boxes, others, covered, strict=True):
        across = box[0] + (box[2] - box[0]) * (torch.arange(3 * fine) + 0.5) / (3 * fine)
        down = box[1] + (box[3] - box[1]) * (torch.arange(4 * fine) + 0.5) / (4 * fine)
        inside = ((down >= other[1]) & (down <= other[3]))[:, None] & ((across >= other[0]) & (across <= other[2]))
        drawn = inside.float().reshape(4, fine, 3, fine).mean(dim=(1, 3))
        assert torch.allclose(shares, drawn, atol=0.03)


def test_covered_cells_by_hand():
    box = torch.tensor([[10.0, 0.0, 30.0, 40.0]])
    assert (covered_cells(box, box, (4, 4)) == 1).all()
    assert (covered_cells(box, box + 100, (4, 4)) == 0).all() and (covered_cells(box, box - 100, (4, 4)) == 0).all()
    half = covered_cells(box, torch.tensor([[20.0, 10.0, 99.0, 99.0]]), (2, 2))
    assert half.tolist() == [[[0.0, 0.5], [0.0, 1.0]]]
    nothing = torch.tensor([[5.0, 5.0, 5.0, 5.0]])
    assert covered_cells(nothing, box, (2, 2)).isfinite().all()
    assert covered_cells(box[:0], box[:0], (2, 2)).shape == (0, 2, 2)


def run(seed=0, pixels=True):
    torch.manual_seed(seed)
    network = build_backbone("tiny")
    branch = RoiBranch(replace(PIXELS, pixels=pixels), network, IDENTITIES)
    images, targets = toy_batch(seed)
    proposals = [target["boxes"].repeat(6, 1) + 5 * torch.randn(12, 4) for target in targets]
    away = torch.tensor([[0.0, 0.0, 4.0, 60.0], [90.0, 0.0, 96.0, 20.0]])
    proposals = [torch.cat([found, away]) for found in proposals]
    samples = branch.sample(proposals, targets)
    output = branch.read(network.trunk(batch_images(images, 16).tensors), [sample.boxes for sample in samples])
    return branch, samples, output, branch.losses(output, samples)


def check_class_loss(seed=0):
    _, samples, output, losses = run(seed)
    terms, row, partly = [], 0, 0
    _, height, width = output.logits.shape
    for sample in samples:
        for roi, label, matched in zip(sample.boxes.tolist(), sample.labels, sample.matched.tolist(), strict=True):
            (x1, y1, x2, y2), (u1, v1, u2, v2) = roi, matched
            for i in range(height):
                for j in range(width):
                    left, right = (x1 + (x2 - x1) * place / width for place in (j, j + 1))
                    top, bottom = (y1 + (y2 - y1) * place / height for place in (i, i + 1))
                    wide, high = min(right, u2) - max(left, u1), min(bottom, v2) - max(top, v1)
                    share = max(0, wide) * max(0, high) / (right - left) / (bottom - top)
                    share = share if label != IDENTITIES else 0.0
                    partly += 0.01 < share < 0.99
                    sure = 1 / (1 + math.exp(-output.logits[row, i, j].item()))
                    terms.append(-share * math.log(sure) - (1 - share) * math.log(1 - sure))
            row += 1
    assert partly > 20 and any((sample.labels == IDENTITIES).any() for sample in samples)
    assert losses["roi_class"].item() == pytest.approx(sum(terms) / len(terms), rel=1e-3)


def test_the_class_loss_is_that_of_a_loop_over_cells():
    check_class_loss()


@pytest.mark.parametrize("fault", [
    lambda boxes, matched, cells: boxes.new_ones(len(boxes), *cells),  # every cell of a person's region is her
    lambda boxes, matched, cells: covered_cells(matched, boxes, cells),
    lambda boxes, matched, cells: covered_cells(boxes, matched, cells).transpose(1, 2),
])  # fmt: skip
def test_planted_faults_of_the_labels_are_caught(monkeypatch, fault):
    monkeypatch.setattr(module, "covered_cells", fault)
    with pytest.raises(AssertionError):
        check_class_loss()


def test_a_person_in_her_own_box_is_everywhere_and_background_nowhere(monkeypatch):
    seen = []
    plain = F.binary_cross_entropy_with_logits
    monkeypatch.setattr(F, "binary_cross_entropy_with_logits", lambda x, y, **k: (seen.append(y), plain(x, y, **k))[1])
    _, samples, _, _ = run()
    labels, truth = (torch.cat([getattr(sample, name) for sample in samples]) for name in ("labels", "truth"))
    assert (seen[0][truth] > 0.999).all() and (seen[0][labels == IDENTITIES] == 0).all()


# --- the model ------------------------------------------------------------------------------------------------------


def test_nae_and_nae_plus_share_their_weights():
    config = NAEConfig(roi=replace(PIXELS, pixels=False))
    plain = NAE(config, IDENTITIES)
    plus = NAE(replace(config, roi=PIXELS), IDENTITIES)
    plus.load_state_dict(plain.state_dict())  # NAE+ is released as starting from NAE
    images, targets = toy_batch()
    with torch.no_grad():
        one, other = (m.eval().detect_and_embed(images, [t["boxes"] for t in targets])[1] for m in (plain, plus))
    assert one[0].shape == other[0].shape and not torch.allclose(one[0], other[0], atol=1e-3)


def test_the_box_is_moved_by_the_mean_over_the_cells():
    branch, _, _, _ = run()
    branch.eval()
    trunk, boxes = torch.randn(1, 64, 8, 12), [torch.tensor([[8.0, 0.0, 40.0, 48.0]])]
    with torch.no_grad():
        out = branch.read(trunk, boxes)
        deep = branch.last_stage(branch.roi_layer(trunk, boxes))
        assert torch.allclose(out.deltas, branch.box(deep.mean(dim=(2, 3))), atol=1e-6)
    assert out.logits.shape == (1, *deep.shape[-2:])


def test_regions_are_resized_channels_last():
    """In planes, a GPU resizes such small maps one after the other."""
    assert _resize(torch.rand(3, 16, 14, 14), (7, 7)).is_contiguous(memory_format=torch.channels_last)
