"""Second stages and head: what is cut out of the map, dropout where it belongs, VGG's weights carried over."""

import pytest
import torch
import torchvision
from torch import nn

from pslib.errors import UserError
from pslib.models.reid_heads import FullyConnected, LinearHead, average_stage, roi_layer
from pslib.models.two_stage import TwoStage, TwoStageConfig


def ramp(height, width):
    """A map (1, 2, height, width) that holds the column and the row of every cell."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([columns, rows])[None].float()


def test_pooling_takes_the_maximum_of_the_cells_in_each_part():
    # A box of 4 x 2 cells of 8 px, cut into 2 x 2: torchvision rounds to cells, and the last cell belongs to the box.
    out = roi_layer("pool", 2, 8)(ramp(6, 10), [torch.tensor([[16.0, 8.0, 40.0, 16.0]])])
    assert out.shape == (1, 2, 2, 2)
    assert out[0, 0].tolist() == [[3.0, 5.0], [3.0, 5.0]] and out[0, 1].tolist() == [[1.0, 1.0], [2.0, 2.0]]


def test_alignment_reads_between_the_cells():
    # Cell i has its centre at 8 i + 4 px: over 16..48 px the columns 2..5 average to 2.5 and 4.5 in the two halves.
    out = roi_layer("align", 2, 8)(ramp(6, 10), [torch.tensor([[16.0, 8.0, 48.0, 40.0]])])
    assert torch.allclose(out[0, 0], torch.tensor([[2.5, 4.5]] * 2), atol=1e-5)
    assert torch.allclose(out[0, 1], torch.tensor([[1.5], [3.5]]).expand(2, 2), atol=1e-5)


@pytest.mark.parametrize("kind", ["pool", "align"])
def test_regions_come_image_by_image(kind):
    maps = torch.cat([torch.full((1, 1, 4, 4), float(image)) for image in range(3)])
    boxes = [torch.tensor([0.0, 0.0, 20.0, 20.0]).expand(count, 4) for count in (2, 0, 1)]
    assert roi_layer(kind, 7, 8)(maps, boxes).mean(dim=(1, 2, 3)).tolist() == pytest.approx([0, 0, 2])
    assert roi_layer(kind, 7, 8)(maps, [torch.zeros(0, 4)] * 3).shape == (0, 1, 7, 7)


def test_the_residual_stage_ends_in_a_mean_over_the_cells():
    stage = nn.Conv2d(3, 5, 3, stride=2, padding=1)
    rois = torch.rand(4, 3, 7, 7)
    assert torch.allclose(average_stage(stage, rois), stage(rois).flatten(2).mean(2), atol=1e-6)


def test_fully_connected_layers_drop_after_both():
    torch.manual_seed(0)
    layers = FullyConnected(4, 3, 200, dropout=0.5)
    rois = torch.rand(8, 4, 3, 3)
    plain = layers.eval()(rois)
    expected = layers.fc7(layers.fc6(rois.flatten(1)).relu()).relu()
    assert torch.allclose(plain, expected)
    layers.train()
    dropped = (layers(rois) == 0).float().mean()
    assert dropped > (plain == 0).float().mean() + 0.2
    # With fc7 passing on what it gets, exactly the units that both dropouts keep are left, at four times their size.
    with torch.no_grad():
        layers.fc7.weight.copy_(torch.eye(200))
    hidden = layers.fc6(rois.flatten(1)).relu()
    left = layers(rois)
    assert torch.allclose(left[left > 0], 4 * hidden[left > 0])
    assert (left[hidden > 0] > 0).float().mean() == pytest.approx(0.25, abs=0.05)


def test_the_signal_keeps_its_size_through_the_fully_connected_layers():
    torch.manual_seed(0)
    out = FullyConnected(64, 7, 256, dropout=0.0)(torch.randn(64, 64, 7, 7))
    assert 0.5 < out.square().mean() < 2


def test_vggs_weights_are_carried_over_or_refused():
    classifier = nn.Sequential(nn.Linear(36, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 8), nn.ReLU())
    layers = FullyConnected(4, 3, 8, dropout=0.0)
    layers.load_classifier(classifier)
    rois = torch.rand(2, 4, 3, 3)
    assert torch.equal(layers(rois), classifier.eval()(rois.flatten(1)))
    with pytest.raises(UserError, match="fc_width"):
        FullyConnected(4, 3, 9, dropout=0.0).load_classifier(classifier)


def test_vgg16_hands_its_whole_classifier_to_the_second_stage(monkeypatch):
    torch.manual_seed(0)
    features = torchvision.models.vgg16(weights=None, init_weights=False, num_classes=1).features
    classifier = nn.Sequential(nn.Linear(512, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 8))
    donor = nn.Module()
    donor.features, donor.classifier = features, classifier
    asked = []
    monkeypatch.setattr(torchvision.models, "get_model", lambda name, weights: asked.append((name, weights)) or donor)
    config = TwoStageConfig(backbone="vgg16", backbone_weights="IMAGENET1K_V1", fc_width=8, roi_size=1)
    model = TwoStage(config, 3)
    assert set(asked) == {("vgg16", "IMAGENET1K_V1")}
    assert torch.equal(model.fully_connected.fc6.weight, classifier[0].weight)
    assert torch.equal(model.fully_connected.fc7.bias, classifier[3].bias)
    assert torch.equal(model.backbone.body[0].weight, features[0].weight)


def test_the_linear_head_reads_one_vector_three_times():
    torch.manual_seed(0)
    vectors = torch.randn(5, 12)
    head = LinearHead(12, 6, person=True)
    output = head(vectors)
    assert (
        torch.equal(output.features, head.feat(vectors))
        and output.dropped is output.features
        or torch.equal(output.dropped, output.features)
    )
    assert output.deltas.shape == (5, 4) and output.person_logits.shape == (5, 2)
    assert output.deltas.abs().max() < 0.05  # starts from the proposals' own boxes
    assert LinearHead(12, 6)(vectors).person_logits is None
    empty = head(torch.zeros(0, 12))
    assert empty.features.shape == (0, 6) and empty.features.sum().requires_grad


def test_dropout_of_the_feature_leaves_features_and_evaluation_alone():
    torch.manual_seed(0)
    head = LinearHead(12, 400, feature_relu=True, dropout=0.25)
    vectors = torch.randn(5, 12)
    output = head(vectors)
    assert (output.features >= 0).all()
    kept = output.dropped > 0
    assert torch.allclose(output.dropped[kept], output.features[kept] / 0.75)
    share = (output.features[~kept] > 0).sum() / (output.features > 0).sum()
    assert share.item() == pytest.approx(0.25, abs=0.04)
    assert torch.equal(head.eval()(vectors).dropped, output.features)
