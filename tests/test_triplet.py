"""The triplet loss against plain loops, finite differences and values worked by hand."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pslib.losses.triplet
from pslib.data.annotations import UNLABELLED
from pslib.errors import UserError
from pslib.losses.triplet import triplet_loss


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def naive_triplet(embeddings, labels, table, margin, mining):
    members = [(x, y) for x, y in zip(embeddings.tolist(), labels.tolist(), strict=True) if y != UNLABELLED]
    identities = {y for _, y in members}
    if len(identities) < 2:
        return 0.0
    if table is not None:
        members += [(table[y].tolist(), y) for y in sorted(identities) if any(table[y].tolist())]
    hardest, total = [], 0.0
    for a, (x, label) in enumerate(members):
        others = [(math.dist(x, z), same == label, b == a) for b, (z, same) in enumerate(members)]
        positives = [d for d, same, itself in others if same and not itself]
        negatives = [d for d, same, _ in others if not same]
        hardest.append(max(0.0, margin + max([0.0, *positives]) - min(negatives)))
        total += sum(max(0.0, margin + p - n) for p, n in itertools.product(positives, negatives))
    return sum(hardest) / len(hardest) if mining == "hard" else total


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(UNLABELLED, 3), max_size=10),
    st.sampled_from(["none", "full", "partly empty"]),
    st.floats(0, 2),
    st.sampled_from(["hard", "all"]),
)
def test_equals_plain_loops(labels, table, margin, mining):
    check_loss(labels, table, margin, mining)


def check_loss(labels, table, margin, mining):
    embeddings, rows = normal(len(labels), 3, seed=1), normal(4, 3, seed=2)
    if table == "partly empty":
        rows[::2] = 0
    rows = None if table == "none" else rows
    labels = torch.tensor(labels, dtype=torch.int64)
    ours = triplet_loss(embeddings, labels, rows, margin, mining)
    assert ours.item() == pytest.approx(naive_triplet(embeddings, labels, rows, margin, mining), rel=1e-9, abs=1e-9)


def test_by_hand_on_a_line():
    embeddings = torch.tensor([[0.0], [1.0], [3.0], [3.5]])
    labels = torch.tensor([0, 0, 1, 1])
    # Anchors: 1 - 3, 1 - 2, 0.5 - 2, 0.5 - 2.5, each plus the margin of 1.5.
    assert triplet_loss(embeddings, labels, margin=1.5).item() == pytest.approx((0 + 0.5 + 0 + 0) / 4)
    # Each anchor's one positive against its two negatives.
    assert triplet_loss(embeddings, labels, margin=1.5, mining="all").item() == pytest.approx(0.5 + 0.0 + 0.0 + 0.0)
    # The row of identity 0 at 2.5: hardest positive 2.5, 1.5 and 2.5; hardest negative 3, 2 and 0.5, and now 0.5, 1.
    table = torch.tensor([[2.5], [0.0]])
    with_table = triplet_loss(embeddings, labels, table, margin=0.3).item()
    assert with_table == pytest.approx((0 + 0 + 2.3 + 0.3 + 0) / 5)


@pytest.mark.parametrize("mining", ["hard", "all"])
@pytest.mark.parametrize("labels", [[], [0], [2, 2, 2], [UNLABELLED] * 3, [UNLABELLED, 1]])
def test_fewer_than_two_identities_is_a_zero_with_a_graph(labels, mining):
    embeddings = normal(len(labels), 4).requires_grad_()
    loss = triplet_loss(embeddings, torch.tensor(labels, dtype=torch.int64), normal(3, 4), mining=mining)
    loss.backward()
    assert loss == 0 and embeddings.grad.eq(0).all()


@pytest.mark.parametrize("mining", ["hard", "all"])
def test_gradients_are_those_of_finite_differences(mining):
    embeddings, table = normal(7, 3).requires_grad_(), normal(4, 3, seed=5).requires_grad_()
    labels = torch.tensor([0, 0, 1, UNLABELLED, 1, 3, 0])
    assert torch.autograd.gradcheck(lambda x: triplet_loss(x, labels, table.detach(), 0.7, mining), [embeddings])
    triplet_loss(embeddings, labels, table, 0.7, mining).backward()
    assert table.grad is None, "the table is memory, not a parameter"
    assert embeddings.grad[3].eq(0).all()


@pytest.mark.parametrize("mining", ["hard", "all"])
def test_equal_embeddings_keep_finite_gradients(mining):
    embeddings = torch.ones(4, 3, requires_grad=True)
    loss = triplet_loss(embeddings, torch.tensor([0, 0, 1, 1]), mining=mining)
    loss.backward()
    assert loss.item() == pytest.approx(0.3 if mining == "hard" else 8 * 0.3) and embeddings.grad.isfinite().all()


def test_far_apart_people_cost_nothing():
    embeddings = torch.tensor([[0.0, 0.0], [0.1, 0.0], [9.0, 9.0]])
    for mining in ("hard", "all"):
        assert triplet_loss(embeddings, torch.tensor([4, 4, 1]), mining=mining) == 0


def test_autocast_and_half_precision_compute_in_float32():
    embeddings, labels = normal(6, 8).bfloat16(), torch.tensor([0, 0, 1, 1, 2, 2])
    exact = triplet_loss(embeddings.float(), labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = triplet_loss(embeddings, labels)
    assert ours.dtype == torch.float32 and torch.equal(ours, exact)


def test_unknown_mining_is_named():
    with pytest.raises(UserError, match="hard or all"):
        triplet_loss(normal(2, 2), torch.tensor([0, 1]), mining="semi")


@pytest.mark.parametrize("name, mining", [("_hardest", "hard"), ("_all_triplets", "all")])
def test_planted_faults_are_caught(monkeypatch, name, mining):
    genuine = getattr(pslib.losses.triplet, name)
    for fault in (
        lambda distance, same, margin: genuine(distance, ~same, margin),
        lambda distance, same, margin: genuine(-distance, same, margin),
        lambda distance, same, margin: genuine(distance, same, -margin),
        lambda distance, same, margin: genuine(distance**2, same, margin),
    ):
        monkeypatch.setattr(pslib.losses.triplet, name, fault)
        with pytest.raises(AssertionError):
            check_loss([0, 1, 0, UNLABELLED, 2, 1], "full", 0.3, mining)
