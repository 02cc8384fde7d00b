"""Center loss and the centers' update against plain loops, finite differences and values worked by hand."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_in_device import NEEDS_GPU
from torch import nn

from pslib.bench import activation_bytes, bench_center_loss, run
from pslib.data.annotations import UNLABELLED
from pslib.errors import NotFiniteError, UserError
from pslib.losses.center import Centers, center_loss

IDENTITIES, DIM = 6, 4


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def as_labels(labels):
    return torch.tensor(labels, dtype=torch.int64)


def naive_loss(features, labels, centers, seen):
    """Eq. 1 with every number on its own; sum and how many rows count."""
    total, count = 0.0, 0
    for x, label in zip(features.tolist(), labels, strict=True):
        if 0 <= label < len(centers) and (seen is None or seen[label]):
            total += sum((a - b) ** 2 for a, b in zip(x, centers[label].tolist(), strict=True)) / 2
            count += 1
    return total, count


label_lists = st.lists(st.integers(UNLABELLED, IDENTITIES), max_size=9)
masks = st.lists(st.booleans(), min_size=IDENTITIES, max_size=IDENTITIES)


# ---- the loss ----


@settings(max_examples=60, deadline=None, derandomize=True)
@given(label_lists, st.one_of(st.none(), masks))
def test_loss_equals_plain_loops(labels, seen):
    check_loss(labels, seen)


def check_loss(labels, seen):
    features, centers = normal(len(labels), DIM, seed=1), normal(IDENTITIES, DIM, seed=2)
    mask = None if seen is None else torch.tensor(seen)
    total, count = naive_loss(features, labels, centers, seen)
    args = (features, as_labels(labels), centers, mask)
    assert center_loss(*args, reduction="sum").item() == pytest.approx(total, rel=1e-9)
    assert center_loss(*args).item() == pytest.approx(total / max(1, count), rel=1e-9)


def test_loss_by_hand():
    features = torch.tensor([[3.0, 4.0], [0.0, 0.0], [9.0, 9.0], [9.0, 9.0], [9.0, 9.0]])
    centers, seen = torch.tensor([[0.0, 0.0], [1.0, 0.0], [5.0, 5.0]]), torch.tensor([True, True, False])
    labels = torch.tensor([0, 1, UNLABELLED, 3, 2])  # unlabelled, background and a class without center stay out
    assert center_loss(features, labels, centers, seen, reduction="sum") == 12.5 + 0.5
    assert center_loss(features, labels, centers, seen) == 6.5
    assert center_loss(features, labels, centers, reduction="sum") == 12.5 + 0.5 + 16


def test_gradient_of_the_sum_is_feature_minus_center():
    check_gradient(center_loss)


def check_gradient(loss):
    """Eq. 3 for the rows that count, nothing for the others, nothing for the centers even where they ask for it."""
    features, centers = normal(6, DIM).requires_grad_(), normal(IDENTITIES, DIM, seed=2).requires_grad_()
    labels = torch.tensor([0, 5, 5, UNLABELLED, IDENTITIES, 2])
    loss(features, labels, centers, reduction="sum").backward()
    expected = features.detach() - centers.detach()[labels.clamp(0, IDENTITIES - 1)]
    expected[3:5] = 0
    torch.testing.assert_close(features.grad, expected)
    assert centers.grad is None


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_gradients_are_those_of_finite_differences(reduction):
    labels, seen = torch.tensor([0, 5, 5, UNLABELLED, IDENTITIES, 2]), torch.arange(IDENTITIES) != 2
    centers = normal(IDENTITIES, DIM, seed=2)
    function = lambda x: center_loss(x, labels, centers, seen, reduction)  # noqa: E731
    assert torch.autograd.gradcheck(function, [normal(6, DIM).requires_grad_()])


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("labels", [[], [UNLABELLED], [IDENTITIES], [UNLABELLED, IDENTITIES, UNLABELLED], [1, 1]])
def test_no_row_that_counts_is_a_zero_with_a_graph(labels, reduction):
    features, centers = normal(len(labels), DIM).requires_grad_(), Centers(IDENTITIES, DIM)
    loss = center_loss(features, as_labels(labels), centers.centers, centers.seen, reduction)
    assert loss == 0
    loss.backward()
    assert features.grad.eq(0).all()
    if 1 not in labels:
        centers.update(features, as_labels(labels))
        assert not centers.seen.any() and centers.centers.eq(0).all()


def test_one_identity_alone_has_a_center_too():
    centers = Centers(1, 2, alpha=1.0)
    centers.update(torch.tensor([[1.0, 3.0]]), torch.tensor([0]))
    assert center_loss(torch.tensor([[1.0, 5.0]]), torch.tensor([0]), centers.centers, centers.seen) == 2


@settings(max_examples=40, deadline=None, derandomize=True)
@given(label_lists, st.floats(-20, 20), st.floats(0.1, 10))
def test_moving_and_scaling_features_and_centers_together(labels, shift, scale):
    features, centers, labels = normal(len(labels), DIM), normal(IDENTITIES, DIM, seed=2), as_labels(labels)
    plain = center_loss(features, labels, centers)
    moved = center_loss(scale * features + shift, labels, scale * centers + shift)
    torch.testing.assert_close(moved, scale**2 * plain, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_computes_in_float32(dtype):
    half, labels = (200 * normal(4, 64)).to(dtype), torch.tensor([0, 1, 1, UNLABELLED])
    centers = Centers(3, 64)
    exact = center_loss(half.float(), labels, centers.centers, reduction="sum")
    assert exact > torch.finfo(torch.float16).max
    leaf = half.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = center_loss(leaf, labels, centers.centers, reduction="sum")
        centers.update(leaf, labels)
    assert loss.dtype == torch.float32 and torch.equal(loss, exact)
    loss.backward()
    assert leaf.grad.dtype == dtype and leaf.grad.isfinite().all()
    torch.testing.assert_close(centers.centers[1], half[1:3].float().mean(dim=0))


def test_wide_features_stay_wide():
    assert center_loss(normal(2, 3), torch.tensor([0, 1]), torch.zeros(2, 3)).dtype == torch.float64


@NEEDS_GPU
def test_all_stays_on_the_device():
    ours, theirs = Centers(IDENTITIES, DIM), Centers(IDENTITIES, DIM).cuda()
    features, labels = normal(5, DIM, dtype=torch.float32), torch.tensor([0, 5, 5, UNLABELLED, IDENTITIES])
    for _ in range(2):
        ours.update(features, labels)
        theirs.update(features.cuda(), labels.cuda())
    loss = center_loss(features.cuda(), labels.cuda(), theirs.centers, theirs.seen)
    assert loss.is_cuda and theirs.centers.is_cuda
    torch.testing.assert_close(theirs.centers.cpu(), ours.centers)


# ---- the update ----


def naive_update(centers, seen, features, labels, alpha, start):
    """Eq. 4, class by class, number by number; returns centers and seen."""
    centers, seen = [list(row) for row in centers.tolist()], seen.tolist()
    for j in range(len(centers)):
        own = [x for x, label in zip(features.tolist(), labels, strict=True) if label == j]
        if own:
            for d in range(len(centers[j])):
                if seen[j] or start == "zeros":
                    delta = sum(centers[j][d] - x[d] for x in own) / (1 + len(own))
                    centers[j][d] = centers[j][d] - alpha * delta
                else:
                    centers[j][d] = sum(x[d] for x in own) / len(own)
            seen[j] = True
    return torch.tensor(centers, dtype=torch.float64), torch.tensor(seen)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(label_lists, max_size=4), st.floats(0, 1), st.sampled_from(["first", "zeros"]))
def test_update_equals_plain_loops(batches, alpha, start):
    check_updates(Centers, batches, alpha, start)


def check_updates(kind, batches, alpha, start):
    centers = kind(IDENTITIES, DIM, alpha, start).double()
    for seed, labels in enumerate(batches):
        features = normal(len(labels), DIM, seed=seed)
        expected, seen = naive_update(centers.centers, centers.seen, features, labels, alpha, start)
        untouched = centers.centers.clone()
        centers.update(features, as_labels(labels))
        torch.testing.assert_close(centers.centers, expected)
        assert torch.equal(centers.seen, seen)
        others = [j for j in range(IDENTITIES) if j not in labels]
        assert torch.equal(centers.centers[others], untouched[others])


def test_update_by_hand():
    centers = Centers(3, 2, alpha=0.5)
    centers.update(torch.tensor([[0.0, 2.0], [4.0, 2.0], [8.0, 8.0]]), torch.tensor([1, 1, UNLABELLED]))
    assert centers.centers.tolist() == [[0, 0], [2, 2], [0, 0]] and centers.seen.tolist() == [False, True, False]
    # One feature of identity 1: half of alpha; three of them: three quarters.  Identity 0 comes new; 3 is background.
    centers.update(torch.tensor([[6.0, 2.0], [1.0, 0.0], [7.0, 7.0]]), torch.tensor([1, 0, 3]))
    assert centers.centers.tolist() == [[1, 0], [3, 2], [0, 0]]
    centers.update(torch.tensor([[7.0, 2.0]] * 3), torch.tensor([1, 1, 1]))
    assert centers.centers[1].tolist() == [3 + 0.5 * 3 * 4 / 4, 2]


def test_zeros_start_at_the_origin_and_count_from_the_beginning():
    centers = Centers(2, 2, alpha=1.0, start="zeros")
    assert centers.seen.all()
    centers.update(torch.tensor([[6.0, 2.0]]), torch.tensor([0]))
    assert centers.centers.tolist() == [[3, 1], [0, 0]]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.permutations(range(7)))
def test_the_order_of_a_batch_does_not_matter(order):
    labels, features = torch.tensor([0, 0, 0, 2, 5, UNLABELLED, IDENTITIES]), normal(7, DIM)
    one, other = Centers(IDENTITIES, DIM).double(), Centers(IDENTITIES, DIM).double()
    for _ in range(2):
        one.update(features, labels)
        other.update(features[order], labels[order])
    torch.testing.assert_close(one.centers, other.centers)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(label_lists, st.floats(0, 1))
def test_an_update_never_raises_the_loss(labels, alpha):
    centers, features, labels = Centers(IDENTITIES, DIM, alpha).double(), normal(len(labels), DIM), as_labels(labels)
    centers.update(normal(IDENTITIES, DIM, seed=3), torch.arange(IDENTITIES))
    before = center_loss(features, labels, centers.centers, centers.seen)
    centers.update(features, labels)
    assert center_loss(features, labels, centers.centers, centers.seen) <= before + 1e-12


def test_centers_reach_the_mean_of_a_batch_that_stays():
    centers, features, labels = Centers(1, DIM, start="zeros").double(), normal(8, DIM), torch.zeros(8).long()
    for _ in range(60):
        centers.update(features, labels)
    torch.testing.assert_close(centers.centers[0], features.mean(dim=0))


def test_update_takes_no_part_in_backward():
    centers, labels = Centers(3, DIM).double(), torch.tensor([0, 2, 2])
    centers.update(normal(3, DIM, seed=5), labels)
    features, old = normal(3, DIM).requires_grad_(), centers.centers.clone()
    loss = center_loss(features, labels, centers.centers, centers.seen, reduction="sum")
    centers.update(features, labels)  # even between loss and backward, which then uses the centers of the loss
    loss.backward()
    torch.testing.assert_close(features.grad, features.detach() - old[labels])
    assert not centers.centers.requires_grad and not list(centers.parameters())


def test_centers_save_and_load(tmp_path):
    centers, copy = Centers(IDENTITIES, DIM).double(), Centers(IDENTITIES, DIM).double()
    centers.update(normal(3, DIM), torch.tensor([0, 2, 2]))
    torch.save(centers.state_dict(), tmp_path / "centers.pt")
    copy.load_state_dict(torch.load(tmp_path / "centers.pt", weights_only=True))
    for one in (centers, copy):
        one.update(normal(4, DIM, seed=9), torch.tensor([2, 1, 1, UNLABELLED]))
    for name, buffer in centers.state_dict().items():
        assert torch.equal(buffer, copy.state_dict()[name]), name
    assert copy.seen.tolist() == [True, True, True, False, False, False]


def test_zeros_take_over_a_state_of_first():
    """Fine-tuning from a model trained without center loss loads a state in which nobody was seen."""
    model = nn.Sequential(Centers(2, 1, alpha=1.0, start="zeros"))
    model.load_state_dict(nn.Sequential(Centers(2, 1)).state_dict())
    model[0].update(torch.tensor([[6.0]]), torch.tensor([0]))
    assert model[0].seen.all() and model[0].centers.tolist() == [[3], [0]]


# ---- bad input ----


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 3e38])
@pytest.mark.parametrize("start", ["first", "zeros"])
def test_features_that_are_not_finite_write_nothing(bad, start):
    centers = Centers(3, 2, start=start)
    centers.update(torch.ones(2, 2), torch.tensor([0, 1]))
    before = {name: buffer.clone() for name, buffer in centers.state_dict().items()}
    features = torch.tensor([[5.0, 5.0], [1.0, bad], [1.0, bad]])
    with pytest.raises(NotFiniteError, match="identity 2 .* no center was changed: lower the learning rate"):
        centers.update(features, torch.tensor([0, 2, 2]))
    assert all(torch.equal(before[name], buffer) for name, buffer in centers.state_dict().items())
    centers.update(features, torch.tensor([0, UNLABELLED, 3]))  # rows that do not count may hold anything
    assert centers.centers.isfinite().all() and centers.centers[0].ne(before["centers"][0]).all()


@pytest.mark.parametrize("label", [-2, IDENTITIES + 1, 5555])
def test_a_label_beyond_the_table_is_refused(label):
    centers, features, labels = Centers(IDENTITIES, DIM), normal(2, DIM), torch.tensor([0, label])
    message = rf"from {min(0, label)} to {max(0, label)} .* table of 6 identities: use 0\.\.5, 6 for background"
    with pytest.raises(ValueError, match=message):
        center_loss(features, labels, centers.centers)
    with pytest.raises(ValueError, match=message):
        centers.update(features, labels)


@pytest.mark.parametrize("shape, rows", [((2, DIM + 1), 2), ((DIM,), DIM), ((2, DIM, 1), 2), ((3, DIM), 2)])
def test_wrong_shapes_are_refused(shape, rows):
    centers, labels = Centers(IDENTITIES, DIM), torch.zeros(rows, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"do not fit: give \(N, D\), \(N,\) and \(I, D\)"):
        center_loss(torch.zeros(shape), labels, centers.centers)
    with pytest.raises(ValueError, match=r"do not fit: give \(N, D\), \(N,\) and \(I, D\)"):
        centers.update(torch.zeros(shape), labels)


@pytest.mark.parametrize("alpha", [-0.1, 1.5, float("nan")])
def test_alpha_out_of_range_is_refused(alpha):
    with pytest.raises(UserError, match=rf"alpha={alpha} must lie in \[0, 1\]"):
        Centers(3, 2, alpha=alpha)


def test_unknown_choices_are_named():
    with pytest.raises(UserError, match="first or zeros"):
        Centers(3, 2, start="mean")
    with pytest.raises(UserError, match="mean or sum"):
        center_loss(normal(1, 2), torch.tensor([0]), normal(3, 2), reduction="average")


# ---- planted faults ----


class Planted(Centers):
    """The whole table at once, right by itself; each child gets one thing wrong."""

    def weights(self, count):
        return self.alpha / (1 + count)

    def touched(self, count):
        return count > 0

    @torch.no_grad()
    def update(self, features, labels):
        counting = (labels >= 0) & (labels < len(self.centers))
        member = nn.functional.one_hot(labels[counting], len(self.centers)).to(self.centers)
        count, total = member.sum(dim=0), member.T @ features[counting]
        moved = self.centers + self.weights(count).unsqueeze(1) * (total - count.unsqueeze(1) * self.centers)
        mean = total / count.clamp(min=1).unsqueeze(1)
        new = torch.where(self.seen.unsqueeze(1), moved, mean)
        self.centers.copy_(torch.where(self.touched(count).unsqueeze(1), new, self.centers))
        self.seen |= self.touched(count)


class WithoutOnePlus(Planted):
    def weights(self, count):
        return self.alpha / count.clamp(min=1)


class GradientOfTheSum(Planted):
    def weights(self, count):
        return torch.full_like(count, self.alpha)


class EverybodySeen(Planted):
    def touched(self, count):
        return count >= 0


class DecayOfTheOthers(Planted):
    def update(self, features, labels):
        super().update(features, labels)
        self.centers *= 0.99


BATCHES = [[0, 1, 1, UNLABELLED], [0, 1, 1, 2, IDENTITIES]]


@pytest.mark.parametrize("fault", [WithoutOnePlus, GradientOfTheSum, EverybodySeen, DecayOfTheOthers])
def test_planted_faults_in_the_update_are_caught(fault):
    check_updates(Planted, BATCHES, 0.5, "first")
    with pytest.raises(AssertionError):
        check_updates(fault, BATCHES, 0.5, "first")


def gradient_into_the_centers(features, labels, centers, reduction):
    row = (labels >= 0) & (labels < len(centers))
    return (features[row] - centers[labels[row]]).square().sum() / 2


def without_the_half(features, labels, centers, reduction):
    return 2 * center_loss(features, labels, centers, reduction=reduction)


def unlabelled_count_too(features, labels, centers, reduction):
    return center_loss(features, labels.clamp(min=0), centers, reduction=reduction)


@pytest.mark.parametrize("fault", [gradient_into_the_centers, without_the_half, unlabelled_count_too])
def test_planted_faults_in_the_loss_are_caught(fault):
    with pytest.raises(AssertionError):
        check_gradient(fault)


# ---- what it costs (``pslib bench center-loss``) ----


def small_bench():
    return bench_center_loss(identities=(500, 5_000, 50_000), dim=64, batch=16, repeats=5)


def check_cost(measured):
    first, *others = measured
    for line in others:
        assert line.step_bytes == pytest.approx(first.step_bytes, rel=0.25)  # a repeated identity saves a row
    assert first.step_bytes < 50 * 16 * 64 * 4


def test_a_step_costs_the_same_with_every_number_of_identities():
    measured = small_bench()
    check_cost(measured)
    assert [line.table_bytes for line in measured] == [4 * 64 * size for size in (500, 5_000, 50_000)]
    assert [line.flag_bytes for line in measured] == [500, 5_000, 50_000]
    # The bar (1.5 times) is for the bench itself, at its size, on a quiet machine.
    assert measured[-1].seconds < 5 * measured[0].seconds


class WholeTable(Centers):
    """Moves the same centers to the same places by way of a table of differences."""

    @torch.no_grad()
    def update(self, features, labels):
        count = torch.bincount(labels, minlength=len(self.centers)).unsqueeze(1)
        difference = torch.zeros_like(self.centers).index_add_(0, labels, features - self.centers[labels])
        self.centers += self.alpha * difference / (1 + count)


class FlagPerIdentity(Centers):
    """Right, but for one number an identity."""

    def update(self, features, labels):
        super().update(features, labels)
        torch.bincount(labels, minlength=len(self.centers))


@pytest.mark.parametrize("fault", [WholeTable, FlagPerIdentity])
def test_the_bench_sees_work_on_the_whole_table(monkeypatch, fault):
    monkeypatch.setattr("pslib.losses.center.Centers", fault)
    with pytest.raises(AssertionError):
        check_cost(small_bench())


def test_activations_counted_from_shapes_are_what_autograd_keeps():
    def network(device):
        parts = [nn.Conv2d(3, 8, 3, 2, device=device), nn.BatchNorm2d(8, device=device), nn.ReLU(inplace=True)]
        parts += [nn.Conv2d(8, 4, 1, device=device), nn.BatchNorm2d(4, device=device), nn.ReLU(inplace=True)]
        return nn.Sequential(*parts)

    counted, shape = activation_bytes(network("meta"), (2, 3, 17, 33))
    kept, real, image = {}, network("cpu"), torch.rand(2, 3, 17, 33)
    given = {tensor.data_ptr() for tensor in (image, *real.state_dict().values())}

    def note(tensor):
        if tensor.data_ptr() not in given and tensor.ndim == 4:
            kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = real(image)
        assert tuple(output.shape) == shape
        assert counted == sum(kept.values())


def test_the_bench_prints_its_table_and_the_share_of_the_centers(monkeypatch, capsys):
    measured = small_bench()
    monkeypatch.setattr("pslib.bench.bench_center_loss", lambda: measured)
    run("center-loss")
    printed = capsys.readouterr().out
    assert "      50,000" in printed and "12.8" in printed  # 50,000 x 64 floats, in MB
    assert re.search(r"centers, 5,532 x 256 +5\.7 MB", printed)
    share = float(re.search(r"the centers' share of all these: ([\d.]+) %", printed)[1])
    assert 0 < share < 1
