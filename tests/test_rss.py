"""Random sampling softmax against plain loops, the full softmax, finite differences and the statistics of its draws."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2
from stand_in_device import NEEDS_GPU

import pslib.losses.rss as rss
from pslib.data.annotations import UNLABELLED
from pslib.errors import UserError
from pslib.losses.rss import random_sampling_softmax, sample_classes


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn_logits(rows, identities, seed=0, dtype=torch.float64):
    return 3 * torch.randn(rows, identities + 1, generator=seeded(seed), dtype=dtype)


def naive_rss(logits, labels, sampled):
    """Loss of every row over its sampled classes, every exponential written out; labelled rows take them in turn."""
    turns, costs = iter(sampled), []
    for z, label in zip(logits.tolist(), labels, strict=True):
        if label == UNLABELLED:
            costs.append(0.0)
        else:
            costs.append(math.log(sum(math.exp(z[j]) for j in next(turns))) - z[label])
    return costs


# ---- value ----


@st.composite
def batches(draw):
    """Number of identities, samples, labels."""
    identities = draw(st.integers(1, 60))
    samples = draw(st.one_of(st.none(), st.integers(2, identities + 3)))
    return identities, samples, draw(st.lists(st.integers(UNLABELLED, identities), max_size=9))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(batches(), st.integers(0, 5))
def test_loss_equals_plain_loops(batch, seed):
    check_loss(*batch, seed)


def check_loss(identities, samples, labels, seed):
    logits, tensor = drawn_logits(len(labels), identities, seed), torch.tensor(labels, dtype=torch.int64)
    labelled = [label for label in labels if label != UNLABELLED]
    if samples is None or samples >= identities + 1:
        sampled = [range(identities + 1)] * len(labelled)
    else:
        sampled = sample_classes(tensor[tensor >= 0], identities, samples, seeded(seed)).tolist()
        check_sampled(sampled, labelled, identities, samples)
    naive = naive_rss(logits, labels, sampled)
    loss, per_row = random_sampling_softmax(logits, tensor, samples, seeded(seed))
    assert per_row.tolist() == pytest.approx(naive, rel=1e-9, abs=1e-12)
    assert loss.item() == pytest.approx(sum(naive) / max(1, len(labelled)), rel=1e-9, abs=1e-12)
    rows, _ = random_sampling_softmax(logits, tensor, samples, seeded(seed), average="rows")
    assert rows.item() == pytest.approx(sum(naive) / max(1, len(labels)), rel=1e-9, abs=1e-12)


def check_sampled(sampled, labels, identities, samples):
    """The true class first, background among them, all different, all classes that exist."""
    for classes, label in zip(sampled, labels, strict=True):
        assert classes[0] == label
        assert identities in classes
        assert len(classes) == len(set(classes)) == samples
        assert set(classes) <= set(range(identities + 1))


@pytest.mark.parametrize("extra", [None, 0, 1, 1000])
def test_enough_samples_are_the_full_softmax(extra):
    logits, labels = drawn_logits(6, 9), torch.tensor([0, 9, 4, 4, 8, UNLABELLED])
    samples = None if extra is None else 10 + extra
    loss, per_row = random_sampling_softmax(logits, labels, samples)
    torch.testing.assert_close(loss, F.cross_entropy(logits, labels, ignore_index=UNLABELLED))
    torch.testing.assert_close(per_row, F.cross_entropy(logits, labels, ignore_index=UNLABELLED, reduction="none"))


def test_loss_by_hand():
    # Two samples: the true class and background, nothing to draw.  A background row takes one identity at random.
    logits = torch.tensor([[2.0, 7.0, 7.0, 0.0], [1.0, 1.0, 1.0, 3.0], [9.0, 9.0, 9.0, 9.0]])
    loss, per_row = random_sampling_softmax(logits, torch.tensor([0, 3, UNLABELLED]), samples=2)
    both = math.log1p(math.exp(-2))
    assert per_row.tolist() == pytest.approx([both, both, 0], rel=1e-6)
    assert loss.item() == pytest.approx(both, rel=1e-6)
    rows, _ = random_sampling_softmax(logits, torch.tensor([0, 3, UNLABELLED]), samples=2, average="rows")
    assert rows.item() == pytest.approx(2 / 3 * both, rel=1e-6)


@pytest.mark.parametrize("samples", [2, 5, 40, None])
@pytest.mark.parametrize("shift", [-50.0, 3.0, 1e4])
def test_adding_a_constant_to_a_row_changes_nothing(samples, shift):
    logits, labels = drawn_logits(5, 40), torch.tensor([0, 39, 40, 7, UNLABELLED])
    shifts = shift * torch.arange(1, 6, dtype=torch.float64).unsqueeze(1)
    _, plain = random_sampling_softmax(logits, labels, samples, seeded())
    _, shifted = random_sampling_softmax(logits + shifts, labels, samples, seeded())
    torch.testing.assert_close(shifted, plain, rtol=1e-7, atol=1e-9)


def test_sampling_costs_less_than_the_full_softmax_and_grows_to_it():
    logits, labels = drawn_logits(200, 100), torch.arange(200) % 101
    losses = [random_sampling_softmax(logits, labels, s, seeded())[0].item() for s in (2, 10, 50, 100, None)]
    assert losses == sorted(losses)


# ---- what is drawn ----


@pytest.mark.parametrize(
    "identities, samples, label",
    [(9, 5, 3), (9, 5, 0), (9, 5, 9), (9, 9, 8), (200, 20, 77), (200, 20, 0), (200, 20, 199), (200, 20, 200)],
)
def test_the_others_are_uniform(identities, samples, label):
    check_uniform(identities, samples, label)


def check_uniform(identities, samples, label, rows=4000):
    sampled = sample_classes(torch.full((rows,), label), identities, samples, seeded(7))
    check_sampled(sampled.tolist()[:50], [label] * 50, identities, samples)
    counts = torch.bincount(sampled.flatten(), minlength=identities + 1).double()
    assert counts[label] == counts[identities] == rows
    others = counts[[j for j in range(identities) if j != label]]
    share = (samples - (1 if label == identities else 2)) / len(others)
    # Without replacement a count varies less than a binomial one, and the counts' sum is fixed.
    variance = rows * share * (1 - share) * len(others) / (len(others) - 1)
    statistic = ((others - rows * share) ** 2).sum().item() / variance
    assert chi2.ppf(1e-4, len(others) - 1) < statistic < chi2.ppf(1 - 1e-4, len(others) - 1)


@pytest.mark.parametrize("identities, samples", [(6, 4), (60, 6)])
def test_pairs_of_others_are_uniform(identities, samples):
    """Uniform one by one is not enough: neighbours drawn together would be, too."""
    rows = 20000
    sampled = sample_classes(torch.zeros(rows, dtype=torch.int64), identities, samples, seeded(3))[:, 2:]
    hits = F.one_hot(sampled, identities + 1).sum(dim=1).double()
    together = (hits.T @ hits)[1:identities, 1:identities]
    pool, k = identities - 1, samples - 2
    expected = rows * k * (k - 1) / (pool * (pool - 1))
    pairs = together[torch.triu_indices(pool, pool, 1).unbind()]
    assert pairs.mean().item() == pytest.approx(expected, rel=1e-12)
    assert (pairs - expected).abs().max() < 6 * expected**0.5


def test_rows_are_drawn_anew_and_a_seed_repeats_them():
    labels = torch.full((50,), 3)
    one, same, other = (sample_classes(labels, 500, 30, seeded(s)) for s in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert len({tuple(sorted(row)) for row in one.tolist()}) == 50
    torch.manual_seed(4)
    first = random_sampling_softmax(drawn_logits(50, 500), labels, 30)[0]
    torch.manual_seed(4)
    assert torch.equal(random_sampling_softmax(drawn_logits(50, 500), labels, 30)[0], first)


def test_rows_of_too_many_repeats_are_drawn_again(monkeypatch):
    genuine, calls = torch.randint, []

    def often_equal(high, size, **others):
        calls.append(size)
        # The first draw of the others is all one number.
        return torch.zeros(size, dtype=torch.int64) if len(calls) == 2 else genuine(high, size, **others)

    monkeypatch.setattr(rss.torch, "randint", often_equal)
    labels = torch.tensor([1, 100, 5])
    check_sampled(sample_classes(labels, 100, 10).tolist(), labels.tolist(), 100, 10)
    assert len(calls) == 3


def test_what_is_drawn_does_not_grow_with_the_identities(monkeypatch):
    genuine, drawn = torch.randint, []

    def counted(high, size, **others):
        drawn.append(math.prod(size))
        return genuine(high, size, **others)

    monkeypatch.setattr(rss.torch, "randint", counted)
    monkeypatch.setattr(rss.torch, "rand", lambda *size, **others: pytest.fail("a key for every identity"))
    sizes = []
    for identities in (5_532, 10_000_000):
        drawn.clear()
        sample_classes(torch.arange(128), identities, 100, seeded())
        sizes.append(sum(drawn))
    assert sizes[0] == sizes[1] < 128 * 100 * 3


# ---- gradients, precision, empty batches ----


@pytest.mark.parametrize("samples", [2, 4, 12, None])
@pytest.mark.parametrize("average", ["labelled", "rows"])
def test_gradients_are_those_of_finite_differences(samples, average):
    logits, labels = drawn_logits(5, 30).requires_grad_(), torch.tensor([0, 30, UNLABELLED, 3, 29])
    function = lambda z: random_sampling_softmax(z, labels, samples, seeded(), average)  # noqa: E731
    assert torch.autograd.gradcheck(function, [logits])


def test_gradient_reaches_the_sampled_logits_only():
    logits, labels = drawn_logits(3, 50).requires_grad_(), torch.tensor([7, 50, UNLABELLED])
    sampled = sample_classes(labels[:2], 50, 6, seeded(5))
    random_sampling_softmax(logits, labels, 6, seeded(5), "rows")[0].backward()
    reached = torch.zeros(3, 51, dtype=torch.bool)
    reached[:2].scatter_(1, sampled, True)
    assert torch.equal(logits.grad.ne(0), reached)
    picked = logits.detach()[:2].gather(1, sampled).softmax(dim=1)
    picked[:, 0] -= 1
    torch.testing.assert_close(logits.grad[:2].gather(1, sampled), picked / 3)


@pytest.mark.parametrize("average", ["labelled", "rows"])
@pytest.mark.parametrize("samples", [2, 5, None])
@pytest.mark.parametrize("labels", [[], [UNLABELLED], [UNLABELLED] * 3])
def test_nobody_labelled_is_a_zero_with_a_graph(labels, samples, average):
    logits = drawn_logits(len(labels), 40).requires_grad_()
    loss, per_row = random_sampling_softmax(logits, torch.tensor(labels, dtype=torch.int64), samples, average=average)
    assert loss == 0 and per_row.tolist() == [0] * len(labels)
    loss.backward()
    assert logits.grad.eq(0).all()


@pytest.mark.parametrize("samples", [2, 5, None])
def test_a_single_row_and_a_single_identity(samples):
    logits = torch.tensor([[1.0, 0.0]], requires_grad=True)
    for label in (0, 1):
        loss, _ = random_sampling_softmax(logits, torch.tensor([label]), samples)
        assert loss.item() == pytest.approx(math.log1p(math.exp(-1)) + label, rel=1e-6)


@pytest.mark.parametrize("samples", [3, None])
def test_what_nobody_labelled_says_cannot_spoil_the_others(samples):
    logits, labels = drawn_logits(3, 20), torch.tensor([2, UNLABELLED, 20])
    logits[1] = torch.nan
    logits.requires_grad_()
    loss, _ = random_sampling_softmax(logits, labels, samples)
    loss.backward()
    assert loss.isfinite() and logits.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("samples", [8, None])
def test_half_precision_computes_in_float32(dtype, samples):
    half, labels = (2e3 * drawn_logits(4, 50)).to(dtype), torch.tensor([0, 50, UNLABELLED, 17])
    exact, _ = random_sampling_softmax(half.float(), labels, samples, seeded())
    leaf = half.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, per_row = random_sampling_softmax(leaf, labels, samples, seeded())
    assert loss.dtype == per_row.dtype == torch.float32 and torch.equal(loss, exact)
    loss.backward()
    assert leaf.grad.dtype == dtype and leaf.grad.isfinite().all()


@NEEDS_GPU
def test_results_stay_on_the_device_of_the_logits():
    logits, labels = drawn_logits(4, 500).cuda(), torch.tensor([0, 500, UNLABELLED, 17]).cuda()
    for generator in (None, seeded(), torch.Generator("cuda").manual_seed(0)):
        loss, per_row = random_sampling_softmax(logits, labels, 50, generator)
        assert loss.is_cuda and per_row.is_cuda
    full, _ = random_sampling_softmax(logits, labels, None)
    torch.testing.assert_close(full.cpu(), random_sampling_softmax(logits.cpu(), labels.cpu(), None)[0])


# ---- bad input ----


@pytest.mark.parametrize("label", [-2, 11, 5555])
@pytest.mark.parametrize("samples", [4, None])
def test_a_label_that_is_no_class_is_refused(label, samples):
    with pytest.raises(
        ValueError, match=rf"from {min(0, label)} to {max(0, label)} .* 10 identities .* 0\.\.9, 10 for"
    ):
        random_sampling_softmax(drawn_logits(2, 10), torch.tensor([0, label]), samples)


@pytest.mark.parametrize("samples", [1, 0, -3])
def test_too_few_samples_are_refused(samples):
    with pytest.raises(UserError, match=f"samples={samples} leaves no room .* 2 or more"):
        random_sampling_softmax(drawn_logits(1, 10), torch.tensor([0]), samples)


@pytest.mark.parametrize("shape, rows", [((4,), 4), ((2, 3, 4), 2), ((2, 1), 2), ((2, 0), 2), ((2, 5), 3)])
def test_wrong_shapes_are_refused(shape, rows):
    with pytest.raises(ValueError, match=r"do not fit: give \(N, I \+ 1\)"):
        random_sampling_softmax(torch.zeros(shape), torch.zeros(rows, dtype=torch.int64), 2)


def test_an_unknown_average_is_named():
    with pytest.raises(UserError, match="labelled or rows"):
        random_sampling_softmax(drawn_logits(1, 10), torch.tensor([0]), 4, average="positives")


# ---- planted faults ----


def with_replacement(rows, count, pool, generator, device):
    return torch.randint(pool, (rows, count), generator=generator, device=device)


def one_draw_for_all(rows, count, pool, generator, device):
    return torch.randperm(pool, generator=generator)[:count].expand(rows, -1)


def the_first_ones(rows, count, pool, generator, device):
    return torch.arange(count).expand(rows, -1)


def neighbours(rows, count, pool, generator, device):
    return (torch.randint(pool, (rows, 1), generator=generator) + torch.arange(count)) % pool


@pytest.mark.parametrize("fault", [with_replacement, one_draw_for_all, the_first_ones])
def test_planted_faults_in_the_draw_are_caught(monkeypatch, fault):
    monkeypatch.setattr(rss, "_draw", fault)
    with pytest.raises(AssertionError):
        check_uniform(200, 20, 77)


def test_drawing_neighbours_together_is_caught(monkeypatch):
    monkeypatch.setattr(rss, "_draw", neighbours)
    with pytest.raises(AssertionError):
        test_pairs_of_others_are_uniform(60, 6)


def test_planted_fault_a_background_row_without_a_stand_in_is_caught(monkeypatch):
    monkeypatch.setattr(rss.torch, "randint", lambda high, size, **others: torch.zeros(size, dtype=torch.int64))
    with pytest.raises(AssertionError):
        check_uniform(9, 5, 9)


def test_planted_sign_fault_in_the_loss_is_caught(monkeypatch):
    genuine = torch.Tensor.log_softmax
    monkeypatch.setattr(torch.Tensor, "log_softmax", lambda z, dim: genuine(-z, dim=dim))
    with pytest.raises(AssertionError):
        check_loss(30, 5, [0, 30, UNLABELLED], 0)
