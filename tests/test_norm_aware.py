"""The norm-aware head against its formula written out, and batches too small for batch normalisation."""

import pytest
import torch
from torch.nn import functional as F

from pslib.errors import UserError
from pslib.models.norm_aware import FewRowsNorm, NormAwareHead


def head(channels=(5, 7), dim=8, **switches):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return NormAwareHead(channels, dim, **switches)


def vectors(rows, channels=(5, 7), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, width, generator=generator) for width in channels]


def whitened(columns):
    """Each column with mean 0 and variance 1, as batch normalisation takes them."""
    return (columns - columns.mean(0)) / (columns.var(0, unbiased=False) + 1e-5).sqrt()


def check_formula(model, inputs):
    out = model(inputs)
    raw = torch.cat([
        whitened(rows @ linear.weight.T + linear.bias) * norm.weight + norm.bias
        for rows, (linear, norm) in zip(inputs, model.projectors, strict=True)
    ], dim=1)  # fmt: skip
    for row in range(len(raw)):
        length = float(sum(value**2 for value in raw[row].tolist())) ** 0.5
        assert out.norms[row].item() == pytest.approx(length, rel=1e-4)
        assert torch.allclose(out.embeddings[row], raw[row] / length, atol=1e-5)
    logits = whitened(raw.norm(dim=1)) * model.rescaler.weight + model.rescaler.bias
    assert torch.allclose(out.logits, logits, atol=1e-4)
    assert torch.allclose(out.scores, 1 / (1 + (-out.logits).exp()))


def test_the_head_is_its_formula():
    model = head().train()
    with torch.no_grad():
        for _, norm in model.projectors:
            norm.weight.uniform_(0.5, 2.0)
            norm.bias.uniform_(-1.0, 1.0)
        model.rescaler.weight.fill_(3.0)
        model.rescaler.bias.fill_(-0.5)
    check_formula(model, vectors(9))


class OneNorm(NormAwareHead):
    """Planted: every part is made unit length for itself."""

    def forward(self, inputs):
        out = super().forward(inputs)
        halves = out.embeddings.chunk(2, dim=1)
        return type(out)(torch.cat([F.normalize(half) for half in halves], 1) / 2**0.5, out.logits, out.norms)


class LogitOfDirection(NormAwareHead):
    """Planted: the score reads the embedding's first number instead of its length."""

    def forward(self, inputs):
        out = super().forward(inputs)
        return type(out)(out.embeddings, out.embeddings[:, 0], out.norms)


@pytest.mark.parametrize("cls", [OneNorm, LogitOfDirection])
def test_planted_faults_are_caught(cls):
    torch.manual_seed(0)
    with pytest.raises(AssertionError):
        check_formula(cls((5, 7), 8).train(), vectors(9))


@pytest.mark.parametrize(("channels", "dim", "sizes"), [((5, 7), 8, [4, 4]), ((5, 7, 3), 8, [3, 3, 2]), ((6,), 5, [5])])
def test_dimensions_are_split_evenly(channels, dim, sizes):
    model = head(channels, dim)
    assert [linear.out_features for linear, _ in model.projectors] == sizes
    out = model.train()(vectors(6, channels))
    assert out.embeddings.shape == (6, dim) and out.logits.shape == out.norms.shape == (6,)
    assert torch.allclose(out.embeddings.norm(dim=1), torch.ones(6), atol=1e-5)


@pytest.mark.parametrize("rows", [0, 1])
@pytest.mark.parametrize("training", [True, False])
def test_fewer_rows_than_a_variance_needs_are_normed_by_the_running_one(rows, training):
    model = head()
    model.train()(vectors(32))
    model.train(training)
    before = {name: value.clone() for name, value in model.named_buffers()}
    inputs = [part.requires_grad_() for part in vectors(rows, seed=1)]
    out = model(inputs)
    assert out.embeddings.shape == (rows, 8) and out.logits.shape == (rows,)
    (out.embeddings.sum() + out.logits.sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    model.eval()
    again = model(inputs)
    assert torch.allclose(out.embeddings, again.embeddings) and torch.allclose(out.logits, again.logits)


def test_many_rows_are_normed_as_by_torch():
    rows = vectors(16)[0]
    torch.manual_seed(1)
    own, plain = FewRowsNorm(5).train(), torch.nn.BatchNorm1d(5).train()
    assert torch.equal(own(rows), plain(rows)) and torch.equal(own.running_var, plain.running_var)


def test_an_embedding_does_not_depend_on_the_size_of_the_factors_but_on_their_ratio():
    model = head().train()
    inputs = vectors(12)
    plain = model(inputs).embeddings
    with torch.no_grad():
        for _, norm in model.projectors:
            norm.weight.mul_(0.01)
    assert torch.allclose(model(inputs).embeddings, plain, atol=1e-5)


def test_the_released_start_is_an_argument():
    released = head(dim=400, gamma_std=0.01, weight_std=0.01)
    gammas = torch.cat([norm.weight for _, norm in released.projectors]).detach()
    weights = torch.cat([linear.weight.flatten() for linear, _ in released.projectors]).detach()
    assert gammas.std().item() == pytest.approx(0.01, rel=0.15) and (gammas < 0).any()
    assert weights.std().item() == pytest.approx(0.01, rel=0.1)
    assert all((norm.weight == 1).all() for _, norm in head().projectors)
    assert (released.rescaler.weight == 1).all()


def test_a_small_start_lets_the_score_learn_sooner():
    generator = torch.Generator().manual_seed(0)
    person = torch.arange(64) % 2 == 0
    rows = torch.randn(64, 12, generator=generator) + 2 * (person.float()[:, None] - 0.5)
    costs = {}
    for gamma in (None, 0.01):
        model = head((12,), 16, gamma_std=gamma).train()
        optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
        for _ in range(40):
            cost = F.binary_cross_entropy_with_logits(model([rows]).logits, person.float())
            optimizer.zero_grad()
            cost.backward()
            optimizer.step()
        costs[gamma] = cost.item()
    assert costs[0.01] < 0.8 * costs[None]


def test_half_precision_is_left_at_the_door():
    model = head().train()
    with torch.autocast("cpu", torch.bfloat16):
        out = model([part.bfloat16() for part in vectors(6)])
    assert out.embeddings.dtype == out.logits.dtype == torch.float32


def test_an_embedding_too_short_for_its_inputs_is_a_sentence():
    for channels, dim in (((5, 7), 1), ((), 4)):
        with pytest.raises(UserError):
            head(channels, dim)
