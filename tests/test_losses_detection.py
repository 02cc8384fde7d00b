"""The FCOS losses against torchvision's FCOS head, plain loops, finite differences and values worked by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection.fcos import FCOSHead

import pslib.losses.detection
from pslib.errors import UserError
from pslib.losses.detection import centerness_targets, fcos_losses


def make_batch(seed=0, batch=2, cells=12, boxes=3, background=0.5, dtype=torch.float32):
    """Class logits, ltrb, centerness logits, matched and target ltrb of a made-up batch."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape):
        return torch.rand(shape, generator=generator, dtype=dtype)

    matched = torch.randint(0, boxes, (batch, cells), generator=generator)
    matched[uniform(batch, cells) < background] = -1
    target = (0.1 + 3 * uniform(batch, cells, 4)) * (matched >= 0).unsqueeze(-1)
    return (
        4 * uniform(batch, cells) - 2,
        0.1 + 3 * uniform(batch, cells, 4),
        4 * uniform(batch, cells) - 2,
        matched,
        target,
    )


def naive_losses(class_logits, ltrb, centerness_logits, matched, target):
    """Sums of the three losses, cell by cell, from their formulas; and the sum of the centerness targets."""
    classification = box = weighted_box = centerness = central_sum = 0.0
    for image, cell in torch.cartesian_prod(*(torch.arange(n) for n in matched.shape)).tolist():
        p = 1 / (1 + math.exp(-class_logits[image, cell]))
        if matched[image, cell] < 0:
            classification -= 0.75 * p**2 * math.log(1 - p)
            continue
        classification -= 0.25 * (1 - p) ** 2 * math.log(p)
        (l1, t1, r1, b1), (l2, t2, r2, b2) = ltrb[image, cell].tolist(), target[image, cell].tolist()
        inter = (min(l1, l2) + min(r1, r2)) * (min(t1, t2) + min(b1, b2))
        hull = (max(l1, l2) + max(r1, r2)) * (max(t1, t2) + max(b1, b2))
        union = (l1 + r1) * (t1 + b1) + (l2 + r2) * (t2 + b2) - inter
        giou = inter / union - (hull - union) / hull
        central = math.sqrt(min(l2, r2) / max(l2, r2) * min(t2, b2) / max(t2, b2))
        q = 1 / (1 + math.exp(-centerness_logits[image, cell]))
        box += 1 - giou
        weighted_box += central * (1 - giou)
        central_sum += central
        centerness -= central * math.log(q) + (1 - central) * math.log(1 - q)
    return classification, box, centerness, weighted_box, central_sum


def assert_close(losses, expected):
    assert {name: round(float(loss), 4) for name, loss in losses.items()} == pytest.approx(expected, abs=2e-4)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 2**31), st.floats(0, 1))
def test_equals_plain_loops(seed, background):
    arguments = make_batch(seed, background=background, dtype=torch.float64)
    classification, box, centerness, weighted_box, central_sum = naive_losses(*arguments)
    positives = int((arguments[3] >= 0).sum())
    expected = {
        "classification": classification / max(1, positives),
        "box": box / max(1, positives),
        "centerness": centerness / max(1, positives),
    }
    assert_close(fcos_losses(*arguments), expected)
    expected["classification"] = classification / (positives + 2)
    expected["box"] = weighted_box / max(central_sum, 1e-6)
    assert_close(fcos_losses(*arguments, normalizer="released"), expected)


def torchvision_losses(class_logits, ltrb, centerness_logits, points, stride, boxes, matched):
    """torchvision's own FCOS head on the same cells, as one class and anchors of one stride around the points."""
    head = FCOSHead(in_channels=32, num_anchors=1, num_classes=1, num_convs=1)
    anchors = torch.cat([points - stride / 2, points + stride / 2], dim=1)
    targets = [{"boxes": one, "labels": torch.zeros(len(one), dtype=torch.int64)} for one in boxes]
    outputs = {
        "cls_logits": class_logits.unsqueeze(-1),
        "bbox_regression": ltrb,
        "bbox_ctrness": centerness_logits.unsqueeze(-1),
    }
    return head.compute_loss(targets, outputs, [anchors] * len(boxes), list(matched))


def test_equals_torchvisions_fcos():
    class_logits, ltrb, centerness_logits, _, _ = make_batch(cells=9)
    stride, points = 8, torch.cartesian_prod(torch.tensor([4.0, 12, 20]), torch.tensor([4.0, 12, 20]))
    boxes = [torch.tensor([[1.0, 2, 22, 17]]), torch.tensor([[2.0, 1, 15, 19], [3.0, 3, 23, 23]])]
    matched = torch.tensor([[0, 0, -1, 0, 0, -1, 0, 0, -1], [0, 0, -1, 0, 0, 1, -1, 1, 1]])
    target = torch.zeros(2, 9, 4)
    for image, cell in (matched >= 0).nonzero().tolist():
        (x, y), (x1, y1, x2, y2) = points[cell], boxes[image][matched[image, cell]]
        target[image, cell] = torch.stack([x - x1, y - y1, x2 - x, y2 - y]) / stride
    ours = fcos_losses(class_logits, ltrb, centerness_logits, matched, target)
    theirs = torchvision_losses(class_logits, ltrb, centerness_logits, points, stride, boxes, matched)
    for name, rival in (
        ("classification", "classification"),
        ("box", "bbox_regression"),
        ("centerness", "bbox_ctrness"),
    ):
        torch.testing.assert_close(ours[name], theirs[rival], rtol=1e-5, atol=1e-6)


def test_perfect_prediction_costs_what_the_formulas_say():
    target = torch.tensor([[[2.0, 3.0, 2.0, 3.0]]])
    sure = torch.tensor([[30.0]])
    losses = fcos_losses(sure, target, sure, torch.tensor([[0]]), target)
    assert all(loss.abs() < 1e-6 for loss in losses.values())


def test_centerness_by_hand():
    assert centerness_targets(torch.tensor([1.0, 1.0, 4.0, 9.0])).item() == pytest.approx(1 / 6)
    assert centerness_targets(torch.zeros(0, 4)).shape == (0,)


@pytest.mark.parametrize("normalizer", ["positives", "released"])
@pytest.mark.parametrize("batch, cells", [(2, 5), (0, 5), (2, 0)])
def test_no_positive_gives_finite_zeros_with_a_graph(batch, cells, normalizer):
    class_logits, ltrb, centerness_logits, matched, target = make_batch(batch=batch, cells=cells, background=2.0)
    leaves = [tensor.requires_grad_() for tensor in (class_logits, ltrb, centerness_logits)]
    losses = fcos_losses(*leaves, matched, target, normalizer=normalizer)
    assert losses["box"] == 0 and losses["centerness"] == 0 and losses["classification"].isfinite()
    sum(losses.values()).backward()
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in leaves)
    assert ltrb.grad.eq(0).all() and centerness_logits.grad.eq(0).all()


@pytest.mark.parametrize("normalizer", ["positives", "released"])
def test_gradients_are_those_of_finite_differences(normalizer):
    class_logits, ltrb, centerness_logits, matched, target = make_batch(4, cells=5, dtype=torch.float64)
    leaves = [tensor.requires_grad_() for tensor in (class_logits, ltrb, centerness_logits)]
    assert torch.autograd.gradcheck(
        lambda *predicted: tuple(fcos_losses(*predicted, matched, target, normalizer=normalizer).values()), leaves
    )


def test_collapsed_boxes_keep_finite_gradients():
    class_logits, ltrb, centerness_logits, matched, target = make_batch(background=0.0)
    ltrb = torch.zeros_like(ltrb).requires_grad_()
    fcos_losses(class_logits, ltrb, centerness_logits, matched, target)["box"].backward()
    assert ltrb.grad.isfinite().all()


def test_half_precision_is_computed_in_float32():
    class_logits, ltrb, centerness_logits, matched, target = make_batch()
    half = [tensor.bfloat16() for tensor in (class_logits, ltrb, centerness_logits)]
    exact = fcos_losses(*(tensor.float() for tensor in half), matched, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = fcos_losses(*half, matched, target)
    assert all(ours[name].dtype == torch.float32 and torch.equal(ours[name], exact[name]) for name in exact)


def test_unknown_normalizer_is_named():
    with pytest.raises(UserError, match="positives or released"):
        fcos_losses(*make_batch(), normalizer="mean")


@pytest.mark.parametrize(
    "name, fault",
    [
        ("sigmoid_focal_loss", lambda genuine: lambda logits, *a, **k: genuine(-logits, *a, **k)),
        ("generalized_box_iou_loss", lambda genuine: lambda a, b: 2 - genuine(a, b)),
        ("_around_origin", lambda genuine: lambda ltrb: ltrb),
        ("centerness_targets", lambda genuine: lambda ltrb: genuine(ltrb) ** 2),
    ],
)
def test_planted_faults_are_caught(monkeypatch, name, fault):
    monkeypatch.setattr(pslib.losses.detection, name, fault(getattr(pslib.losses.detection, name)))
    with pytest.raises(AssertionError):
        test_equals_torchvisions_fcos()
