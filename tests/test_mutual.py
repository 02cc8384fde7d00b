"""Mutual learning: the bound where the truth is known and where it fails, Eqs. 8 and 9 against loops and by hand."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy

from pslib.data.annotations import UNLABELLED
from pslib.errors import UserError
from pslib.losses.mutual import (
    MARGINALS,
    MutualInformationEstimator,
    branch_pairs,
    diversity,
    features_detached,
    identity_means,
    kl_consensus,
    mutual_information_bound,
)
from pslib.training.gaussians import batch_bounds, best_estimator, gaussian_pairs, train_bound


def rows(count, dim, seed=0):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def product(a, b):
    return 3 * (a * b).sum(dim=-1)


def dice(seed=0):
    return torch.Generator().manual_seed(seed)


# The estimator and the bound.


def test_estimator_is_one_hidden_layer_over_both_rows_side_by_side():
    estimator = MutualInformationEstimator(3, 2, hidden=7).double()
    a, b = rows(5, 3), rows(5, 2, 1)
    plain = torch.nn.Sequential(estimator.hidden, torch.nn.ReLU(), estimator.score)
    torch.testing.assert_close(estimator(a, b), plain(torch.cat([a, b], dim=1)).squeeze(1))
    every = estimator(a.unsqueeze(1), b)
    for i in range(5):
        for j in range(5):
            torch.testing.assert_close(every[i, j], estimator(a[i : i + 1], b[j : j + 1])[0])
    with pytest.raises(UserError, match="3 and 3 numbers do not fit an estimator made for 3 and 2"):
        estimator(a, a)


def naive_bound(estimator, a, pairs, strangers):
    """Eq. 6 with every exponential written out; ``strangers`` holds rows (i, partner)."""
    joint = sum(estimator(a[i], row).item() for i, row in enumerate(pairs)) / len(a)
    return joint - math.log(sum(math.exp(estimator(a[i], row).item()) for i, row in strangers) / len(strangers))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(2, 8), st.integers(0, 99))
def test_bound_equals_plain_loops(count, seed):
    a, b, other = rows(count, 3, seed), rows(count, 3, seed + 1), rows(count, 3, seed + 2)
    given_rows = mutual_information_bound(product, a, b, shuffled=other)
    assert given_rows.item() == pytest.approx(naive_bound(product, a, b, list(enumerate(other))))
    every = [(i, b[j]) for i in range(count) for j in range(count) if i != j]
    assert mutual_information_bound(product, a, b, marginal="all-pairs").item() == pytest.approx(
        naive_bound(product, a, b, every)
    )


def partners_of(marginal, count, seed):
    """Which row of b each row of a met."""
    met = []

    def spy(a, b):
        met.append(b.squeeze(-1).long())
        return (a * b).sum(dim=-1)

    index = torch.arange(count, dtype=torch.float64).unsqueeze(1)
    mutual_information_bound(spy, index, index, generator=dice(seed), marginal=marginal)
    return next((found for found in met if found.tolist() != list(range(count))), met[0])


def test_in_a_permutation_everybody_is_met_once_and_nobody_meets_herself():
    seen = torch.zeros(5, 5)
    for seed in range(400):
        partners = partners_of("permutation", 5, seed)
        assert partners.sort().values.tolist() == [0, 1, 2, 3, 4]
        seen[torch.arange(5), partners] += 1
    assert seen.diagonal().eq(0).all()
    others = seen[~torch.eye(5, dtype=torch.bool)]
    assert (others - 100).abs().max() < 40  # 400 draws among 4 others: 100 each, standard deviation 9


def test_with_replacement_people_meet_themselves_as_often_as_anybody():
    seen = torch.zeros(5, 5)
    for seed in range(500):
        seen[torch.arange(5), partners_of("replacement", 5, seed)] += 1
    assert (seen - 100).abs().max() < 40


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(2, 9), st.integers(0, 99), st.floats(0.1, 20))
def test_unshuffled_strangers_leave_nothing_of_the_bound(count, seed, scale):
    a, b = rows(count, 3, seed), rows(count, 3, seed + 1)
    assert mutual_information_bound(lambda a, b: scale * product(a, b), a, b, shuffled=b) <= 1e-9


def test_own_rows_among_the_strangers_pull_the_bound_down():
    """Two nats, batches of 32, the best T: with one own row in 32 draws, on average, a good part of them is gone."""
    read = {
        marginal: batch_bounds(best_estimator(2.0), 2.0, 32, 200, marginal=marginal, generator=dice()).mean()
        for marginal in MARGINALS
    }
    assert read["permutation"] > 2.0 and read["all-pairs"] > 1.8
    assert read["replacement"] < read["permutation"] - 0.25
    planted = []
    for seed in range(100):
        a, b = gaussian_pairs(2.0, 32, generator=dice(seed))
        strangers = b.roll(1, dims=0)
        strangers[7] = b[7]
        planted.append(mutual_information_bound(best_estimator(2.0), a, b, shuffled=strangers).item())
    assert np.mean(planted) < read["permutation"] - 0.25


@pytest.mark.parametrize("marginal", MARGINALS)
def test_gradients_are_those_of_finite_differences(marginal):
    estimator, a, b = MutualInformationEstimator(3, 2, hidden=5).double(), rows(4, 3), rows(4, 2, 1)
    inputs = [a.requires_grad_(), b.requires_grad_(), estimator.hidden.weight]

    def bound(a, b, weight):
        return mutual_information_bound(estimator, a, b, generator=dice(), marginal=marginal)

    assert torch.autograd.gradcheck(bound, inputs)


def test_bound_stays_finite_where_exp_does_not():
    a = rows(6, 3).float().requires_grad_()
    bound = mutual_information_bound(lambda a, b: 1e4 * product(a, b), a, a.detach(), generator=dice())
    bound.backward()
    assert bound.isfinite() and a.grad.isfinite().all()


def test_bound_is_the_same_for_the_same_draws_and_wrong_arguments_are_answered():
    a, b = rows(6, 3), rows(6, 3, 1)
    torch.manual_seed(3)
    first = mutual_information_bound(product, a, b)
    torch.manual_seed(3)
    assert mutual_information_bound(product, a, b) == first
    with pytest.raises(UserError, match="nearest: permutation"):
        mutual_information_bound(product, a, b, marginal="permutations")
    with pytest.raises(ValueError, match=r"\(5, 3\)"):
        mutual_information_bound(product, a, b[:5])
    with pytest.raises(ValueError, match=r"shuffled of shape \(5, 3\)"):
        mutual_information_bound(product, a, b, shuffled=b[:5])


@pytest.mark.parametrize(("marginal", "batch_size"), [("permutation", 128), ("replacement", 128), ("all-pairs", 32)])
@pytest.mark.parametrize("nats", [1.0, 2.0])
def test_trained_bound_finds_one_and_two_nats_on_fresh_samples(nats, marginal, batch_size):
    run = train_bound(nats, batch_size, marginal=marginal, steps=300, look_every=300, fresh_pairs=50_000)
    assert run.fresh[-1] == pytest.approx(nats, abs=0.2)


def test_independent_branches_share_nothing():
    run = train_bound(0.0, 128, steps=150, look_every=150)
    assert abs(run.fresh[-1]) < 0.05


def test_far_above_log_batch_the_number_means_nothing():
    """Batches of 32 (log 32 = 3.5): what they say is no bound, and what a large sample certifies is far too low."""
    low, high, higher = (train_bound(nats, 32, steps=300, look_every=300) for nats in (1.0, 8.0, 10.0))
    assert high.fresh[-1] < 6.5  # nobody showed T what it misses
    assert high.small.std() > 2.5 * low.small.std()
    assert high.small.max() > 8.0 + 2.0  # a "lower bound" above the truth
    assert abs(higher.small.mean() - high.small.mean()) < 1.0  # two nats more, and hardly any difference


def test_small_batches_overstate_what_they_cannot_certify():
    run = train_bound(4.0, 16, steps=300, look_every=300)
    assert run.small.mean() > 4.0 + 1.0 and run.fresh[-1] < 4.0 - 0.5


def test_the_best_estimator_fails_on_small_batches_too():
    small = batch_bounds(best_estimator(8.0), 8.0, 64, 100, generator=dice())
    large = batch_bounds(best_estimator(8.0), 8.0, 50_000, 9, generator=dice())
    assert np.median(large) == pytest.approx(8.0, abs=0.7)
    assert small.std() > 10 and np.median(small) > 2 * 8.0


# Which branch learns when.


def test_two_steps_of_three_leave_the_learning_to_the_estimator():
    # The trainer seeds the global generator with one number a step, each one more than the last.
    answers = [features_detached(generator=dice(700_000_000 + step)) for step in range(3000)]
    assert np.mean(answers) == pytest.approx(2 / 3, abs=0.03)
    follows = np.mean([later for now, later in zip(answers[:-1], answers[1:], strict=True) if now])
    assert follows == pytest.approx(2 / 3, abs=0.04)  # a step's answer tells nothing of the next one's
    for step in range(5):
        torch.manual_seed(700_000_000 + step)
        assert features_detached() == answers[step]


def test_share_is_kept_at_its_ends_and_in_between():
    assert {features_detached(1.0, dice(seed)) for seed in range(50)} == {True}
    assert {features_detached(0.0, dice(seed)) for seed in range(50)} == {False}
    assert np.mean([features_detached(0.2, dice(seed)) for seed in range(1000)]) == pytest.approx(0.2, abs=0.05)
    for share in (-0.1, 1.5, float("nan")):
        with pytest.raises(UserError, match=f"share={share}"):
            features_detached(share)


# One mean an identity, and who is in both branches.


def naive_means(features, labels):
    found = {}
    for identity in sorted(set(labels.tolist()) - {UNLABELLED}):
        mean = sum(row for row, label in zip(features, labels.tolist(), strict=True) if label == identity)
        found[identity] = mean / mean.norm()
    return found


some_labels = st.lists(st.integers(UNLABELLED, 4), max_size=9)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(some_labels, some_labels)
def test_means_and_pairs_equal_plain_loops(labels_a, labels_b):
    labels_a, labels_b = (torch.tensor(labels, dtype=torch.int64) for labels in (labels_a, labels_b))
    features_a, features_b = rows(len(labels_a), 3), rows(len(labels_b), 2, 1)
    naive_a, naive_b = naive_means(features_a, labels_a), naive_means(features_b, labels_b)
    identities, means = identity_means(features_a, labels_a)
    assert identities.tolist() == list(naive_a) and means.shape == (len(naive_a), 3)
    for mean, expected in zip(means, naive_a.values(), strict=True):
        torch.testing.assert_close(mean, expected)
    both = [identity for identity in naive_a if identity in naive_b]
    pairs = branch_pairs(features_a, labels_a, features_b, labels_b)
    assert [tuple(found.shape) for found in pairs] == [(len(both), 3), (len(both), 2)]
    for found, naive in zip(pairs, (naive_a, naive_b), strict=True):
        for row, identity in zip(found, both, strict=True):
            torch.testing.assert_close(row, naive[identity])


def test_broken_rows_of_people_without_label_do_no_harm():
    features, labels = rows(4, 3), torch.tensor([2, UNLABELLED, 0, 2])
    features[1] = float("nan")
    features.requires_grad_()
    _, means = identity_means(features, labels)
    means.sum().backward()
    assert means.isfinite().all() and features.grad.isfinite().all() and features.grad[1].eq(0).all()


def test_opposed_features_of_a_person_have_no_mean_and_a_gradient_with_a_bound():
    for angle in (math.pi, math.pi - 1e-6):  # exactly opposed, and nearly
        features = torch.tensor([[1.0, 0.0], [math.cos(angle), math.sin(angle)]], requires_grad=True)
        _, means = identity_means(features, torch.tensor([0, 0]))
        means.sum().backward()
        assert means.norm() < 1 and features.grad.abs().max() <= 1e3
    _, means = identity_means(torch.tensor([[1.0, 0.0], [-0.99, 0.0]]), torch.tensor([0, 0]))
    torch.testing.assert_close(means, torch.tensor([[1.0, 0.0]]))  # short, but of a direction


def test_labels_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"labels of shape \(3,\)"):
        identity_means(rows(4, 2), torch.tensor([0, 1, 2]))


# Consensus, Eq. 8.


def random_logits(seed, count=4, identities=3, queue=2, scale=3.0):
    return scale * rows(count, identities + queue, seed)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 10_000), st.integers(0, 3), st.integers(0, 3), st.floats(0, 8))
def test_consensus_equals_loops_and_two_libraries(seed, queue_a, queue_b, scale):
    a, b = random_logits(seed, queue=queue_a, scale=scale), random_logits(seed + 1, queue=queue_b, scale=scale)
    loss = kl_consensus(a, b, identities=3).item()
    p, q = a[:, :3].softmax(dim=1), b[:, :3].softmax(dim=1)
    assert loss == pytest.approx(np.mean([entropy(one, other) for one, other in zip(p, q, strict=True)]), abs=1e-9)
    assert loss == pytest.approx(F.kl_div(q.log(), p, reduction="batchmean").item(), abs=1e-9)
    assert loss >= -1e-12
    literal = 0.0
    for row_a, row_b in zip(a.tolist(), b.tolist(), strict=True):
        total_a, total_b = (sum(math.exp(value) for value in row) for row in (row_a, row_b))
        for i in range(3):
            p_a, p_b = math.exp(row_a[i]) / total_a, math.exp(row_b[i]) / total_b
            literal += p_a * math.log(p_a / p_b) / len(a)
    assert kl_consensus(a, b, identities=3, literal=True).item() == pytest.approx(literal, abs=1e-9)
    assert literal >= -1 / math.e


def test_consensus_is_zero_only_where_the_posteriors_agree():
    a = random_logits(0)
    shifted = a + 5.0
    shifted[:, 3:] = 40.0  # the queue's share is no identity's
    assert kl_consensus(a, shifted, identities=3).item() == pytest.approx(0, abs=1e-12)
    for column in range(3):
        other = a.clone()
        other[:, column] += 0.1
        assert kl_consensus(a, other, identities=3) > 1e-6


def test_as_printed_agreement_on_the_identities_can_cost_less_than_nothing():
    """Both branches hold the two identities for equally likely, but A gives its queue half and R gives it nothing."""
    a, b = torch.tensor([[0.0, 0.0, math.log(2.0)]]), torch.tensor([[0.0, 0.0, -60.0]])
    printed = kl_consensus(a, b, identities=2, literal=True)
    assert printed.item() == pytest.approx(0.5 * math.log(0.5), rel=1e-6)  # -0.35, below the 0 of perfect agreement
    assert kl_consensus(a, b, identities=2).item() == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("literal", [False, True])
def test_consensus_teaches_the_branches_it_is_told_to(literal):
    a, b = random_logits(0).requires_grad_(), random_logits(1).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: kl_consensus(a, b, 3, literal), [a, b])
    full = torch.autograd.grad(kl_consensus(a, b, 3, literal), [a, b])
    only_a = torch.autograd.grad(kl_consensus(a, b, 3, literal, "a"), [a, b], allow_unused=True)
    only_b = torch.autograd.grad(kl_consensus(a, b, 3, literal, "b"), [a, b], allow_unused=True)
    torch.testing.assert_close(only_a[0], full[0])
    torch.testing.assert_close(only_b[1], full[1])
    assert only_a[1] is None and only_b[0] is None
    assert full[0].abs().max() > 0.01 and full[1].abs().max() > 0.01


def test_consensus_answers_what_does_not_fit():
    with pytest.raises(UserError, match="nearest: both"):
        kl_consensus(random_logits(0), random_logits(1), 3, gradient="bot")
    with pytest.raises(ValueError, match=r"logits_b of shape \(3, 5\)"):
        kl_consensus(random_logits(0), random_logits(1)[:3], 3)
    with pytest.raises(ValueError, match=r"6 or more"):
        kl_consensus(random_logits(0), random_logits(1), 6)


# Diversity, Eq. 9.


def test_diversity_by_hand():
    a = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]])
    b = torch.tensor([[5.0, 0.0], [0.0, -1.0], [4.0, 3.0]])
    assert diversity(a, b).item() == pytest.approx((1 - 1 + 24 / 25) / 3)
    assert diversity(7 * a, b / 3).item() == pytest.approx(diversity(a, b).item(), rel=1e-6)


def test_diversity_turns_embeddings_apart_and_changes_no_length():
    a, b = rows(4, 3).requires_grad_(), rows(4, 3, 1).requires_grad_()
    assert torch.autograd.gradcheck(diversity, [a, b])
    for own, gradient in zip((a, b), torch.autograd.grad(diversity(a, b), [a, b]), strict=True):
        torch.testing.assert_close((own * gradient).sum(dim=1), torch.zeros(4, dtype=torch.float64))
    with torch.no_grad():
        gradient = torch.autograd.functional.jacobian(lambda x: diversity(x, b), a)
        assert diversity(a - 0.1 * gradient, b) < diversity(a, b)


def test_diversity_needs_embeddings_of_one_size():
    with pytest.raises(UserError, match="3 and 2 numbers"):
        diversity(rows(4, 3), rows(4, 2))


# Nobody in common, and half precision.


@pytest.mark.parametrize(
    ("labels_a", "labels_b"),
    [([], []), ([0, 1], []), ([UNLABELLED] * 3, [UNLABELLED]), ([0, 1, UNLABELLED], [2, UNLABELLED, 3])],
)
def test_nobody_in_common_is_a_zero_with_a_graph(labels_a, labels_b):
    features = [rows(len(labels), 4, seed).float().requires_grad_() for seed, labels in enumerate((labels_a, labels_b))]
    labels = [torch.tensor(one, dtype=torch.int64) for one in (labels_a, labels_b)]
    a, b = branch_pairs(features[0], labels[0], features[1], labels[1])
    assert a.shape == b.shape == (0, 4)
    estimator, table = MutualInformationEstimator(4, 4, hidden=3), rows(7, 4, 9).float()
    losses = [mutual_information_bound(estimator, a, b, marginal=marginal) for marginal in MARGINALS]
    losses += [kl_consensus(a @ table.T, b @ table.T, 5, literal) for literal in (False, True)]
    losses += [diversity(a, b)]
    for loss in losses:
        assert loss == 0
        gradients = torch.autograd.grad(loss, features, retain_graph=True)
        assert all(gradient.eq(0).all() for gradient in gradients)
    losses[0].backward()
    assert estimator.hidden.weight.grad.eq(0).all()


def test_one_person_in_common_is_no_bound_yet_but_a_consensus_and_a_cosine():
    a, b = rows(1, 4).float().requires_grad_(), rows(1, 4, 1).float().requires_grad_()
    bound = mutual_information_bound(MutualInformationEstimator(4, 4), a, b)
    bound.backward()
    assert bound == 0 and a.grad.eq(0).all()
    assert kl_consensus(a, b, 4) > 0 and diversity(a, b) != 0


def test_autocast_computes_in_float32():
    estimator, a, b = MutualInformationEstimator(4, 4), rows(6, 4).float(), rows(6, 4, 1).float()
    labels = torch.tensor([0, 0, 1, 2, UNLABELLED, 2])

    def everything(a, b):
        return [
            mutual_information_bound(estimator, a, b, generator=dice()),
            kl_consensus(a, b, 3),
            diversity(a, b),
            *branch_pairs(a, labels, b, labels),
        ]

    exact = everything(a, b)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for found, expected in zip(everything(a, b), exact, strict=True):
            assert torch.equal(found, expected)
        for found, expected in zip(everything(a.bfloat16(), b.bfloat16()), exact, strict=True):
            assert found.dtype == torch.float32
            torch.testing.assert_close(found, expected, atol=0.05, rtol=0.05)
