"""From a model and a set to detections and ground-truth embeddings: order, scaling, empty results."""

import numpy as np
import pytest
import torch
from toy_sets import toy_model, toy_split

from pslib.data.annotations import PersonSearchSet
from pslib.data.loading import read_image
from pslib.errors import UserError
from pslib.evaluation.gallery import embed_gallery


class Oracle:
    """Finds ``count`` fixed boxes an image; a given box's embedding is the mean colour inside it."""

    def __init__(self, count=2):
        self.count, self.sizes, self.devices = count, [], set()

    def detect_and_embed(self, images, boxes):
        self.sizes += [tuple(image.shape[-2:]) for image in images]
        results, embedded = [], []
        for image, people in zip(images, boxes, strict=True):
            height, width = image.shape[-2:]
            found = torch.tensor([[0.0, 0.0, width / 2, height], [width / 2, 0.0, width, height]])[: self.count]
            scores = torch.tensor([0.9, 0.8])[: self.count]
            results.append({"boxes": found, "scores": scores, "embeddings": self.embed(image, found)})
            embedded.append(self.embed(image, people))
        return results, embedded

    def embed(self, image, boxes):
        rows = [image[:, int(y1) : int(y2), int(x1) : int(x2)].float().mean((1, 2)) for x1, y1, x2, y2 in boxes]
        return torch.stack(rows) if rows else torch.zeros(0, 3)


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_rows_stand_in_order_of_frames_whatever_the_batch(batch_size):
    data = toy_split("test")
    found = embed_gallery(Oracle(), data, batch_size=batch_size)
    assert found.detections.frame.tolist() == [frame for frame in range(8) for _ in range(2)]
    assert found.person_ids.tolist() == [person for frame in data.frames for person in frame.person_ids]
    row = 0
    for number, frame in enumerate(data.frames):
        image = read_image(frame.path)
        assert found.detections.boxes[2 * number].tolist() == [0, 0, 48, 64]
        for box in frame.boxes:
            assert found.ground_truth.frame[row] == number
            assert found.ground_truth.boxes[row].tolist() == box.tolist()
            expected = Oracle().embed(image, [box])[0].numpy()
            assert np.allclose(found.ground_truth.embeddings[row], expected)
            row += 1
    assert row == len(found.ground_truth) == len(found.person_ids)


def test_queries_take_the_embedding_of_their_own_box():
    data = toy_split("test")
    found, protocol = embed_gallery(Oracle(), data), data.protocols["TestG50"]
    for query, row in zip(protocol.queries, found.of_queries(protocol), strict=True):
        expected = Oracle().embed(read_image(data.frames[query.frame].path), [query.box])[0]
        assert np.allclose(row, expected.numpy())


def test_test_size_scales_the_image_and_gives_boxes_back_in_its_own_pixels():
    oracle, data = Oracle(), toy_split("test")
    found = embed_gallery(oracle, data, test_size=(192, 100))
    assert set(oracle.sizes) == {(100, 150)}  # the shorter side decides: 100 / 64
    assert np.allclose(found.detections.boxes[1::2], [48, 0, 96, 64], atol=0.01)
    plain = embed_gallery(Oracle(), data)
    assert np.abs(found.ground_truth.embeddings - plain.ground_truth.embeddings).max() < 25


def test_nothing_found_is_an_empty_gallery():
    found = embed_gallery(Oracle(count=0), toy_split("test"))
    assert len(found.detections) == 0 and found.detections.embeddings.shape == (0, 3)
    assert len(found.ground_truth) == len(found.person_ids) > 0


def test_alignps_serves_and_its_memory_stays():
    model = toy_model(class_threshold=0.0).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = embed_gallery(model, toy_split("test"))
    assert found.detections.embeddings.shape[1] == 16
    assert np.allclose(np.linalg.norm(found.ground_truth.embeddings, axis=1), 1, atol=1e-5)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_set_without_frames_is_refused(tmp_path):
    with pytest.raises(UserError, match="no frames"):
        embed_gallery(Oracle(), PersonSearchSet("prw", "test", tmp_path, []))


def test_a_model_in_training_and_an_empty_batch_are_refused():
    model, data = toy_model().train(), toy_split("test")
    with pytest.raises(UserError, match="call model.eval"):
        embed_gallery(model, data)
    with pytest.raises(UserError, match="batch_size=0 embeds no frame"):
        embed_gallery(model.eval(), data, batch_size=0)
