"""The net on digits: what it hands back, that it learns, and numbers that can be counted by hand."""

import numpy as np
import pytest
import torch

from pslib.errors import UserError
from pslib.training.digits import DigitsNet, load_digit_images, retrieval_map, train_digits, within_between


@pytest.fixture(scope="module")
def short():
    return train_digits(0.1, epochs=2, feature_dim=3)


def test_split_is_fixed_and_holds_every_digit():
    digits = load_digit_images()
    assert len(digits.labels) == 1297 and len(digits.held_out_labels) == 500
    assert 0 <= digits.pixels.min() and digits.pixels.max() == 1
    assert digits.held_out_labels.bincount().min() >= 45


def test_run_has_every_moment(short):
    assert short.activations.shape == (500, 64)
    shown = short.features[-1] - short.activations @ short.feature_weights[-1].T  # the bias alone is left
    np.testing.assert_allclose(shown, np.broadcast_to(shown[0], shown.shape), atol=1e-4)
    assert short.features.shape == (3, 500, 3) and short.train_features.shape == (3, 1297, 3)
    assert short.labels.shape == (500,) and short.train_labels.shape == (1297,)
    assert short.centers.shape == (3, 10, 3) and short.accuracy.shape == (3,)
    assert short.feature_weights.shape == (3, 3, 64) and short.hidden_power.shape == (3, 64)
    assert short.class_weights.shape == (3, 10, 3)
    assert short.softmax_loss.shape == short.center_loss.shape == (2,)
    np.testing.assert_allclose(short.norms, np.linalg.norm(short.features, axis=2).mean(axis=1))


def test_same_seed_same_numbers_and_the_global_generator_is_left_alone(short):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    again = train_digits(0.1, epochs=2, feature_dim=3)
    np.testing.assert_array_equal(again.features, short.features)
    assert torch.equal(torch.rand(3), expected)
    assert not np.array_equal(train_digits(0.1, epochs=2, feature_dim=3, seed=1).features, short.features)


def test_net_learns_and_center_loss_pulls_classes_together():
    plain, pulled = train_digits(0.0, epochs=12), train_digits(0.1, epochs=12)
    assert plain.accuracy[-1] > 0.8 and pulled.accuracy[-1] > 0.8
    ratios = [within_between(run.features[-1], run.labels) for run in (plain, pulled)]
    assert ratios[1] < ratios[0]


def test_dropout_side_matters_only_where_features_are_dropped():
    options = dict(dropout=0.5, feature_dim=4, epochs=1)
    hidden = [train_digits(0.1, attach=side, where="hidden", **options) for side in ("before", "after")]
    np.testing.assert_array_equal(hidden[0].features, hidden[1].features)
    feature = [train_digits(0.1, attach=side, where="feature", **options) for side in ("before", "after")]
    assert not np.array_equal(feature[0].features, feature[1].features)
    none = train_digits(0.1, where=(), **options), train_digits(0.1, feature_dim=4, epochs=1)
    np.testing.assert_array_equal(none[0].features, none[1].features)


def test_net_drops_in_training_only_and_normalizes():
    digits = load_digit_images()
    net = DigitsNet(feature_dim=8, dropout=0.5, where=("feature",))
    before, after = net.features(digits.pixels[:200])
    dropped = after == 0
    assert 0.45 < dropped.float().mean() < 0.55
    torch.testing.assert_close(after[~dropped], 2 * before[~dropped])  # nn.Dropout rescales what it keeps
    before, after = net.eval().features(digits.pixels[:200])
    assert torch.equal(before, after)
    before, after = DigitsNet(feature_dim=8, normalize=True).features(digits.pixels[:5])
    torch.testing.assert_close(after.norm(dim=1), torch.ones(5))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lam": -0.1}, "lam=-0.1"),
        ({"lam": float("nan")}, "lam=nan"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"attach": "behind"}, "nearest: before"),
        ({"where": ("hiden",)}, "nearest: hidden"),
        ({"epochs": 0}, "epochs=0"),
        ({"feature_dim": 0}, "feature_dim=0"),
    ],
)
def test_mistakes_are_answered_in_one_sentence(options, words):
    with pytest.raises(UserError, match=words):
        train_digits(**options)


def test_within_between_by_hand_and_under_shrinking():
    features = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 10.0], [2.0, 10.0]])
    labels = np.array([4, 4, 7, 7])
    assert within_between(features, labels) == pytest.approx(1 / 25)
    assert within_between(1e-3 * features, labels) == pytest.approx(1 / 25)
    assert within_between(features, np.array([0, 1, 0, 1])) == pytest.approx(25.0)
    assert np.isinf(within_between(np.array([[0.0], [2.0], [0.0], [2.0]]), np.array([0, 0, 1, 1])))
    assert np.isnan(within_between(np.zeros((4, 2)), labels))
    with pytest.raises(UserError, match="two classes"):
        within_between(features, np.zeros(4))
    with pytest.raises(UserError, match=r"\(3,\)"):
        within_between(features, np.zeros(3))


def test_retrieval_is_scikit_learns_average_precision():
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(0)
    features, labels = rng.integers(0, 3, (40, 3)).astype(float), rng.integers(0, 4, 40)  # many ties
    precisions = []
    for query in range(40):
        rest = np.arange(40) != query
        distances = np.square(features[rest] - features[query]).sum(axis=1)
        precisions.append(average_precision_score(labels[rest] == labels[query], -distances))
    assert retrieval_map(features, labels) == pytest.approx(100 * np.mean(precisions))


def test_expected_cost_of_dropping_trains_alike_without_its_noise():
    options = dict(dropout=0.5, feature_dim=8, where="feature", epochs=6)
    norms = {side: train_digits(0.3, attach=side, **options).norms[-1] for side in ("before", "after", "expected")}
    assert norms["expected"] == pytest.approx(norms["after"], rel=0.15)
    assert norms["before"] > 1.4 * norms["after"]


def test_center_loss_counts_from_its_epoch_on():
    late, never = train_digits(1.0, epochs=3, center_from=2), train_digits(0.0, epochs=3)
    np.testing.assert_array_equal(late.features[:3], never.features[:3])
    assert not np.array_equal(late.features[3], never.features[3])


def test_retrieval_by_hand():
    features, labels = np.array([[0.0], [1.0], [2.0], [10.0]]), np.array([0, 1, 0, 1])
    # ranks of the right image: 2 of (1, 2, 10); 3 of (0 = 2, 10); 2 of (1, 0, 10); 2 of (2, 1, 0)
    assert retrieval_map(features, labels) == pytest.approx(100 * (1 / 2 + 1 / 3 + 1 / 2 + 1 / 2) / 4)
    spread = np.array([[1.0, 0.0], [100.0, 1.0], [0.0, 2.0], [0.1, 90.0]])
    assert retrieval_map(spread, np.array([0, 0, 1, 1]), "cosine") == 100
    assert retrieval_map(spread, np.array([0, 0, 1, 1])) < 100
    collapsed = retrieval_map(np.zeros((6, 2)), np.array([0, 0, 1, 1, 2, 2]))
    assert collapsed == pytest.approx(20)  # one of the five others is right, wherever the tie puts it
    with pytest.raises(UserError, match="similarity"):
        retrieval_map(features, labels, "manhattan")
