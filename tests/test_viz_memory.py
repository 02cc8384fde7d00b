"""Pictures of OIM's memory and of TOIM's triplets: what they draw is what the losses compute."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pslib.losses.oim import OIMMemory, oim_loss
from pslib.viz import memory as pictures


def unit(*degrees: float) -> torch.Tensor:
    angles = torch.deg2rad(torch.tensor(degrees))
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def texts(fig) -> list[str]:
    return [text.get_text() for ax in fig.axes for text in ax.texts]


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_pull_is_the_gradient_of_the_loss(temperature):
    memory = OIMMemory(num_identities=3, queue_size=2, dim=5)
    generator = torch.Generator().manual_seed(0)
    memory.table.copy_(F.normalize(torch.randn(3, 5, generator=generator)))
    memory.queue.copy_(F.normalize(torch.randn(2, 5, generator=generator)))
    embedding = F.normalize(torch.randn(5, generator=generator), dim=0).requires_grad_()
    loss, _ = oim_loss(embedding[None], torch.tensor([1]), memory, temperature, focal_gamma=0.0)
    loss.backward()
    p, direction = pictures.pull(embedding.detach(), 1, torch.cat([memory.table, memory.queue]), temperature)
    torch.testing.assert_close(direction, -embedding.grad)
    torch.testing.assert_close(-p[1].log(), loss.detach())


def test_circle_shows_every_probability_and_names_rows_and_slots():
    temperatures = (0.1, 1.0)
    table, queue = unit(60, -25, 170), unit(100, 250)
    fig = pictures.circle_figure(unit(20)[0], 0, table, queue, temperatures)
    assert [ax.get_title().splitlines()[0] for ax in fig.axes[:2]] == ["temperature 0.1", "temperature 1"]
    for bottom, temperature in zip(fig.axes[2:], temperatures, strict=True):
        p, _ = pictures.pull(unit(20)[0], 0, torch.cat([table, queue]), temperature)
        np.testing.assert_allclose([bar.get_height() for bar in bottom.patches], p, atol=1e-6)
    assert {"v1", "v2", "v3", "u1", "u2"} <= set(texts(fig))


def test_momentum_figure_draws_every_step_of_both():
    walk = unit(0, 10, 20).numpy(), unit(80, 60, 50).numpy()
    fig = pictures.momentum_figure({"momentum 0.5": walk, "momentum 0": walk})
    assert [ax.get_title() for ax in fig.axes] == ["momentum 0.5", "momentum 0"]
    drawn = [np.asarray(points.get_offsets()) for points in fig.axes[0].collections]
    np.testing.assert_allclose(drawn[0], walk[0])
    np.testing.assert_allclose(drawn[1], walk[1])


def snapshot(rng: np.random.Generator, queue: int = 50) -> pictures.Snapshot:
    grid = rng.uniform(-1, 1, (6, 5))
    return pictures.Snapshot(grid, (1, 3, 2), rng.uniform(0, 1, 20), rng.uniform(-1, 1, 90), np.zeros(queue))


def test_snapshots_have_shares_that_add_up_to_a_hundred():
    rng = np.random.default_rng(0)
    fig = pictures.snapshots_figure({"step 0": snapshot(rng), "step 9": snapshot(rng, queue=0)})
    first, second = fig.axes[2:4]
    assert [line.get_label() for line in first.lines] == ["other rows", "queue", "own row"]
    assert [line.get_label() for line in second.lines] == ["other rows", "own row"]  # no queue, no curve
    for line in first.lines:
        assert np.sum(line.get_ydata()) == pytest.approx(100)
    assert fig.axes[0].get_xticklabels()[0].get_text() == "rows 1 to 3"


def test_every_person_has_her_boxes_parted_and_framed_at_her_own_row():
    (top, _, _) = pictures.snapshots_figure({"step 0": snapshot(np.random.default_rng(0))}).axes
    frames = [(*patch.get_xy(), patch.get_width(), patch.get_height()) for patch in top.patches]
    assert frames == [(-0.5, -0.5, 1, 1), (0.5, 0.5, 1, 3), (1.5, 3.5, 1, 2)]
    assert [line.get_ydata()[0] for line in top.lines[:3]] == [-0.5, 0.5, 3.5]
    assert dict(zip(top.get_yticks().tolist(), [word.get_text() for word in top.get_yticklabels()], strict=True)) == {
        0: "1", 2: "2", 4.5: "3"}  # fmt: skip


def test_sweep_draws_every_seed_and_marks_the_chosen_setting():
    panels = {"temperature": {"0.1": [3.0, 5.0], "1": [1.0]}, "queue": {"0": [2.0]}}
    fig = pictures.sweep_figure(panels, {"temperature": "0.1", "queue": "128"}, "mAP")
    left, right = fig.axes
    assert np.asarray(left.lines[0].get_ydata()).tolist() == [4.0, 1.0]
    assert np.asarray(left.lines[1].get_ydata()).tolist() == [3.0, 5.0]
    assert left.lines[-1].get_xdata()[0] == 0 and len(right.lines) == 2  # nothing chosen on the right


def test_members_are_ordered_by_person_and_the_hardest_are_marked():
    generator = torch.Generator().manual_seed(1)
    members = F.normalize(torch.randn(7, 4, generator=generator))
    owner = torch.tensor([1, 0, 0, 1, 1, 0, 1])
    is_row = torch.tensor([False, False, False, False, False, True, True])
    distance = torch.cdist(members, members)
    boxes = torch.tensor([[2.0, 2.0, 12.0, 30.0], [20.0, 4.0, 30.0, 28.0]])
    cells = [torch.tensor([[6.0, 14.0], [6.0, 18.0]]), torch.tensor([[26.0, 14.0], [26.0, 18.0], [22.0, 14.0]])]
    image = np.full((32, 48, 3), 90, np.uint8)
    left, right, _ = pictures.members_figure(image, boxes, cells, 4, distance, owner, is_row).axes
    assert len([patch for patch in left.patches if patch.get_fill()]) == 5
    names = [label.get_text() for label in right.get_yticklabels()]
    assert names == ["", "", "row 0", "", "", "", "row 1"]
    order = [1, 2, 5, 0, 3, 4, 6]
    farthest, nearest = (np.asarray(line.get_xdata(), int) for line in right.lines[:2])
    for place, anchor in enumerate(order):
        same = owner[order] == owner[anchor]
        assert int(distance[anchor][order].masked_fill(~same, -1).argmax()) == farthest[place]
        assert int(distance[anchor][order].masked_fill(same, 9).argmin()) == nearest[place]
