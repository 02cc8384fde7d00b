"""Cells of all levels in one row, decoding, suppression, the cell a box is read from: against naive loops."""

import pytest
import torch
import torchvision
from toy_sets import toy_batch, toy_model

from pslib.models.alignps import DenseOutput
from pslib.models.batching import batch_images
from pslib.models.fcos import decode_ltrb, level_points

CUTS = {"P3": 24.0, "P4": 40.0}  # the upper end of each level


@pytest.fixture(params=[("P3",), ("P3", "P4", "P5"), ("P4", "P5")], ids="+".join)
def scene(request):
    """A model with these levels in evaluation mode, a batch of two sizes, and the dense output."""
    model = toy_model(levels=request.param).eval()
    images, targets = toy_batch(people=3)
    images[1] = images[1][:, :50, :70]
    batch = batch_images(images, 16)
    with torch.no_grad():
        return model, images, targets, batch, model.dense(batch)


def test_rows_are_the_cells_of_the_levels_one_after_the_other(scene):
    model, _, _, batch, dense = scene
    with torch.no_grad():
        features = model.neck(model.backbone(batch.tensors))
        strides = [{"P3": 4, "P4": 8, "P5": 16}[level] for level in model.config.levels]
        features = [model._centre(x, batch.valid(s)) for x, s in zip(features, strides, strict=True)]
        heads = model.head(features)
    row = 0
    for level, stride, feature, head in zip(model.config.levels, strides, features, heads, strict=True):
        finest = level == model.config.levels[0]
        below = {"P3": 0.0, "P4": 24.0, "P5": 40.0}[level]
        coarsest = level == model.config.levels[-1]
        for y in range(64 // stride):
            for x in range(96 // stride):
                assert dense.points[row].tolist() == [x * stride + stride / 2, y * stride + stride / 2]
                assert dense.strides[row] == stride
                lower, upper = dense.ranges[row].tolist()
                assert lower == (0.0 if finest else below)
                assert upper == (float("inf") if coarsest else CUTS[level])
                assert torch.equal(dense.embeddings[:, row], feature[:, :, y, x])
                assert torch.equal(dense.ltrb[:, row], head.ltrb[:, :, y, x])
                assert torch.equal(dense.class_logits[:, row], head.class_logits[:, 0, y, x])
                assert torch.equal(dense.centerness_logits[:, row], head.centerness_logits[:, 0, y, x])
                row += 1
    assert row == len(dense.points)


def test_decoding_by_hand():
    points = level_points(3, 4, 8)
    ltrb = torch.rand(2, 12, 4, generator=torch.Generator().manual_seed(0)) * 4
    boxes = decode_ltrb(points, ltrb, torch.full((12,), 8.0))
    for image in range(2):
        for row in range(12):
            x, y = 8 * (row % 4) + 4, 8 * (row // 4) + 4
            left, top, right, bottom = (8 * ltrb[image, row]).tolist()
            assert boxes[image, row].tolist() == pytest.approx([x - left, y - top, x + right, y + bottom], abs=1e-5)


def test_mean_subtraction_is_over_image_cells_and_not_over_padding():
    model = toy_model()
    images = [torch.zeros(3, 50, 70), torch.zeros(3, 64, 96)]
    batch = batch_images(images, 16)
    for stride in (4, 8, 16):
        maps = torch.randn(2, 16, 64 // stride, 96 // stride, generator=torch.Generator().manual_seed(stride))
        centred = model._centre(maps, batch.valid(stride))
        for image, (height, width) in enumerate([(50, 70), (64, 96)]):
            cells = [
                maps[image, :, y, x]
                for y in range(64 // stride)
                for x in range(96 // stride)
                if y * stride < height and x * stride < width
            ]
            mean = sum(cells) / len(cells)
            assert torch.allclose(centred[image], maps[image] - mean[:, None, None], atol=1e-5)
    # What stands in the padding has no say.
    valid = batch.valid(4)
    maps = torch.randn(2, 16, 16, 24, generator=torch.Generator().manual_seed(9))
    noisy = torch.where(valid.bool(), maps, torch.full_like(maps, 1e3))
    inside = valid.bool().expand_as(maps)
    assert torch.allclose(model._centre(maps, valid)[inside], model._centre(noisy, valid)[inside], atol=1e-4)
    assert model._centre(maps, torch.zeros_like(valid)).isfinite().all()


def test_a_map_without_edges_is_embedded_alike_alone_and_padded():
    # 1x1 everywhere, so no convolution sees the border: what remains is the mean, and it must not see it either.
    class Dots(torch.nn.Module):
        strides, channels = (4, 8, 16), (3, 3, 3)

        def forward(self, images):
            return [torch.nn.functional.avg_pool2d(images, stride) for stride in self.strides]

    model = toy_model(lateral="conv", topdown="sum", output="conv", levels=("P3",)).eval()
    model.backbone = Dots()
    model.neck.lateral = torch.nn.ModuleList(torch.nn.Conv2d(3, 16, 1, bias=False) for _ in range(3))
    model.neck.output = torch.nn.ModuleDict({"P3": torch.nn.Conv2d(16, 16, 1, bias=False)})
    images, _ = toy_batch()
    small = images[0][:, :48, :64]
    with torch.no_grad():
        alone = model.dense(batch_images([small], 16)).embeddings[0].reshape(12, 16, -1)
        padded = model.dense(batch_images([small, images[1]], 16)).embeddings[0].reshape(16, 24, -1)
    assert torch.allclose(alone, padded[:12, :16], atol=1e-5)


def planted(generator, model, batch) -> DenseOutput:
    """Random but lively predictions for all cells: many overlapping boxes, some off the image."""
    with torch.no_grad():
        dense = model.dense(batch)
    count = len(dense.points)
    return DenseOutput(
        class_logits=torch.randn(2, count, generator=generator) * 2 - 2,
        centerness_logits=torch.randn(2, count, generator=generator),
        ltrb=torch.rand(2, count, 4, generator=generator) * 6,
        embeddings=torch.randn(2, count, 16, generator=generator),
        points=dense.points,
        strides=dense.strides,
        ranges=dense.ranges,
    )


def test_detections_are_torchvisions_nms_of_clipped_boxes_above_the_threshold(scene):
    model, images, _, batch, _ = scene
    dense = planted(torch.Generator().manual_seed(1), model, batch)
    found = model.detect(dense, batch.sizes)
    for image, result in enumerate(found):
        height, width = images[image].shape[-2:]
        boxes, scores, rows = [], [], []
        for row in range(len(dense.points)):
            person = dense.class_logits[image, row].sigmoid()
            if person > 0.05:
                x, y = dense.points[row]
                left, top, right, bottom = dense.ltrb[image, row] * dense.strides[row]
                box = [x - left, y - top, x + right, y + bottom]
                limits = [width, height, width, height]
                boxes.append([min(max(float(v), 0.0), float(end)) for v, end in zip(box, limits, strict=True)])
                scores.append(person * dense.centerness_logits[image, row].sigmoid())
                rows.append(row)
        boxes, scores = torch.tensor(boxes), torch.stack(scores)
        keep = torchvision.ops.nms(boxes, scores, 0.5)[:100]
        assert torch.allclose(result["boxes"], boxes[keep], atol=1e-4)
        assert torch.allclose(result["scores"], scores[keep])
        expected = torch.nn.functional.normalize(dense.embeddings[image, torch.tensor(rows)[keep]], dim=1)
        assert torch.allclose(result["embeddings"], expected, atol=1e-6)


def test_nobody_found_is_an_empty_result(scene):
    model, images, targets, _, _ = scene
    torch.nn.init.constant_(model.head.classify.bias, -50.0)
    for result in model(images):
        assert result["boxes"].shape == (0, 4) and result["scores"].shape == (0,)
        assert result["embeddings"].shape == (0, 16)
    found, embedded = model.detect_and_embed(images, [torch.zeros(0, 4), targets[1]["boxes"]])
    assert embedded[0].shape == (0, 16) and embedded[1].shape == (3, 16) and len(found) == 2


def naive_cell(dense: DenseOutput, image: int, box: list[float]) -> int:
    """The documented cell: centre-sampled on its level with the highest class x centerness, else the nearest one."""
    best, nearest = (-1.0, -1), (float("inf"), -1)
    middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    reach = max(box[2] - box[0], box[3] - box[1]) / 2
    for row in range(len(dense.points)):
        x, y = dense.points[row].tolist()
        stride, (lower, upper) = float(dense.strides[row]), dense.ranges[row].tolist()
        sides = [x - box[0], y - box[1], box[2] - x, box[3] - y]
        central = max(abs(x - middle[0]), abs(y - middle[1])) < 1.5 * stride
        if central and min(sides) > 0 and lower < max(sides) <= upper:
            score = float(dense.class_logits[image, row].sigmoid() * dense.centerness_logits[image, row].sigmoid())
            best = max(best, (score, row), key=lambda pair: pair[0])
        if lower < reach <= upper or (reach == lower == 0):
            distance = (x - middle[0]) ** 2 + (y - middle[1]) ** 2
            nearest = min(nearest, (distance, row), key=lambda pair: pair[0])
    return best[1] if best[1] >= 0 else nearest[1]


def test_a_given_box_is_read_at_the_documented_cell(scene, monkeypatch):
    model, images, targets, batch, _ = scene
    dense = planted(torch.Generator().manual_seed(2), model, batch)
    monkeypatch.setattr(model, "dense", lambda batch: dense)
    tiny = [[40.2, 20.2, 40.9, 21.0], [30.0, 30.0, 30.0, 30.0], [7.9, 1.0, 8.0, 49.0], [0.0, 0.0, 3.0, 1.0]]
    large = [[0.0, 0.0, 96.0, 64.0], [20.0, 0.0, 60.0, 48.0], [1.0, 2.0, 81.0, 50.0]]
    boxes = [torch.cat([target["boxes"], torch.tensor(tiny + large)]) for target in targets]
    _, embedded = model.detect_and_embed(images, boxes)
    for image in range(2):
        cells = [naive_cell(dense, image, box.tolist()) for box in boxes[image]]
        expected = torch.nn.functional.normalize(dense.embeddings[image, torch.tensor(cells)], dim=1)
        assert torch.allclose(embedded[image], expected, atol=1e-6)


def test_evaluation_with_a_batch_norm_uses_its_running_statistics():
    model = toy_model(embedding_norm="batch").train()
    images, targets = toy_batch()
    model(images, targets)
    model.eval()
    rows = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
    norm = model.embedding_norm
    expected = (rows - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
    expected = torch.nn.functional.normalize(expected, dim=1)
    assert torch.allclose(model.normalize(rows), expected, atol=1e-5)
    assert torch.allclose(model.normalize(rows[:1]), expected[:1], atol=1e-5)
