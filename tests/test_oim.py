"""OIM loss and memory against plain loops, finite differences and values worked by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import pslib.losses.oim
from pslib.data.annotations import UNLABELLED
from pslib.errors import UserError
from pslib.losses.oim import OIMMemory, oim_loss


def unit_rows(count, dim, seed=0, dtype=torch.float32):
    rows = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return F.normalize(rows)


def filled_memory(identities=6, queue=4, dim=5, dtype=torch.float64):
    memory = OIMMemory(identities, queue, dim).to(dtype)
    memory.table.copy_(unit_rows(identities, dim, 1, dtype))
    memory.queue.copy_(unit_rows(queue, dim, 2, dtype))
    return memory


def naive_oim(embeddings, labels, memory, temperature, queue_temperature, gamma):
    """Loss of every row, straight from the formula with every exponential written out."""
    costs = []
    for x, label in zip(embeddings.tolist(), labels.tolist(), strict=True):
        dot = lambda row: sum(a * b for a, b in zip(x, row, strict=True))  # noqa: B023, E731
        table = [math.exp(dot(row) / temperature) for row in memory.table.tolist()]
        queue = [math.exp(dot(row) / queue_temperature) for row in memory.queue.tolist()]
        p = table[label] / (sum(table) + sum(queue))
        costs.append(0.0 if label == UNLABELLED else -((1 - p) ** gamma) * math.log(p))
    return costs


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(UNLABELLED, 5), min_size=1, max_size=9),
    st.floats(0.05, 1.0),
    st.floats(0.05, 1.0),
    st.sampled_from([0.0, 1.0, 2.0, 3.5]),
)
def test_loss_equals_plain_loops(labels, temperature, queue_temperature, gamma):
    check_loss(labels, temperature, queue_temperature, gamma)


def check_loss(labels, temperature, queue_temperature, gamma):
    memory, embeddings = filled_memory(), unit_rows(len(labels), 5, 3, torch.float64)
    loss, per_sample = oim_loss(
        embeddings, torch.tensor(labels), memory, temperature, queue_temperature, focal_gamma=gamma
    )
    naive = naive_oim(embeddings, torch.tensor(labels), memory, temperature, queue_temperature, gamma)
    assert per_sample.tolist() == pytest.approx(naive, rel=1e-9, abs=1e-12)
    labelled = sum(label != UNLABELLED for label in labels)
    assert loss.item() == pytest.approx(sum(naive) / max(1, labelled), rel=1e-9, abs=1e-12)
    all_rows, _ = oim_loss(
        embeddings, torch.tensor(labels), memory, temperature, queue_temperature, gamma, average="positives"
    )
    assert all_rows.item() == pytest.approx(sum(naive) / len(labels), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_first_loss_is_the_focal_loss_of_log_table_plus_queue(gamma):
    memory = OIMMemory(600, 500, 16)
    loss, _ = oim_loss(unit_rows(20, 16), torch.arange(20), memory, focal_gamma=gamma)
    assert loss.item() == pytest.approx((1 - 1 / 1100) ** gamma * math.log(1100), rel=1e-5)


def test_masked_empty_rows_leave_the_softmax_but_for_the_own_one():
    memory = OIMMemory(4, 3, 2)
    memory.update(torch.eye(2), torch.tensor([0, UNLABELLED]))
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    _, per_sample = oim_loss(x, torch.tensor([0, 2]), memory, temperature=1.0, focal_gamma=0.0, mask_empty=True)
    # Row 0 is known, row 2 is empty and stays for its own sample only; one queue row is known, at a right angle.
    assert per_sample.tolist() == pytest.approx([math.log(math.e + 1) - 1, math.log(math.e + 1 + 1)], rel=1e-6)
    _, released = oim_loss(x, torch.tensor([0, 2]), memory, temperature=1.0, focal_gamma=0.0)
    assert released.tolist() == pytest.approx([math.log(math.e + 6) - 1, math.log(math.e + 6)], rel=1e-6)


def test_gradients_are_those_of_finite_differences():
    embeddings = unit_rows(5, 5, 4, torch.float64).requires_grad_()
    labels, memory = torch.tensor([0, 3, UNLABELLED, 3, 5]), filled_memory()
    for gamma in (0.0, 2.0):
        assert torch.autograd.gradcheck(lambda x, g=gamma: oim_loss(x, labels, memory, focal_gamma=g), [embeddings])


@pytest.mark.parametrize("average", ["labelled", "positives"])
@pytest.mark.parametrize("labels", [[], [UNLABELLED], [UNLABELLED] * 3])
def test_nobody_labelled_is_a_zero_with_a_graph(labels, average):
    embeddings = unit_rows(len(labels), 5).requires_grad_()
    for memory in (OIMMemory(6, 4, 5), OIMMemory(6, 0, 5), filled_memory(dtype=torch.float32)):
        loss, per_sample = oim_loss(embeddings, torch.tensor(labels, dtype=torch.int64), memory, average=average)
        assert loss == 0 and per_sample.shape == (len(labels),)
        loss.backward()
        assert embeddings.grad.eq(0).all()


def test_extreme_temperatures_stay_finite():
    memory = filled_memory(dtype=torch.float32)
    embeddings = memory.table[:3].clone().requires_grad_()
    loss, _ = oim_loss(embeddings, torch.tensor([0, 1, 5]), memory, temperature=1e-4)
    loss.backward()
    assert loss.isfinite() and embeddings.grad.isfinite().all()


def test_autocast_computes_in_float32():
    memory, x, labels = filled_memory(dtype=torch.float32), unit_rows(4, 5), torch.tensor([0, 1, 2, UNLABELLED])
    exact, _ = oim_loss(x, labels, memory)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(oim_loss(x, labels, memory)[0], exact)


def naive_update(memory, embeddings, labels):
    """One embedding after another, as the words say; returns table, queue, pointer."""
    table, queue, pointer = memory.table.clone(), memory.queue.clone(), int(memory.pointer)
    for x, label in zip(embeddings, labels.tolist(), strict=True):
        if label != UNLABELLED:
            table[label] = memory.momentum * table[label] + (1 - memory.momentum) * x
            if memory.normalize_table:
                table[label] = table[label] / table[label].norm().clamp(min=1e-12)
        elif len(queue):
            queue[pointer, : memory.queue_channels] = x[: memory.queue_channels]
            pointer = (pointer + 1) % len(queue)
    return table, queue, pointer


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(st.lists(st.integers(UNLABELLED, 3), max_size=14), max_size=3),
    st.integers(0, 5),
    st.floats(0, 0.99),
    st.booleans(),
    st.sampled_from([None, 3, 64]),
)
def test_update_equals_one_after_another(batches, queue_size, momentum, normalize, channels):
    check_updates(batches, queue_size, momentum, normalize, channels)


def check_updates(batches, queue_size, momentum, normalize, channels):
    memory = OIMMemory(4, queue_size, 5, momentum, normalize, channels).double()
    for seed, labels in enumerate(batches):
        embeddings, labels = unit_rows(len(labels), 5, seed, torch.float64), torch.tensor(labels, dtype=torch.int64)
        table, queue, pointer = naive_update(memory, embeddings, labels)
        memory.update(embeddings, labels)
        torch.testing.assert_close(memory.table, table)
        torch.testing.assert_close(memory.queue, queue)
        assert int(memory.pointer) == pointer


def test_update_by_hand():
    memory = OIMMemory(2, 2, 2, momentum=0.5, normalize_table=False)
    memory.update(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]), torch.tensor([1, 1, UNLABELLED]))
    assert memory.table.tolist() == [[0.0, 0.0], [0.25, 0.5]]
    torch.testing.assert_close(memory.queue, torch.tensor([[0.6, 0.8], [0.0, 0.0]]))
    assert int(memory.pointer) == 1


def test_normalised_rows_have_length_one():
    memory = OIMMemory(3, 2, 8)
    memory.update(unit_rows(12, 8), torch.tensor([0, 1, 2] * 4))
    torch.testing.assert_close(memory.table.norm(dim=1), torch.ones(3))


def test_queue_channels_reproduce_the_released_slip():
    memory = OIMMemory(3, 4, 256, queue_channels=64)
    memory.update(unit_rows(4, 256), torch.full((4,), UNLABELLED))
    assert memory.queue[:, :64].ne(0).all() and memory.queue[:, 64:].eq(0).all()


def test_update_takes_no_part_in_backward():
    memory, embeddings = OIMMemory(3, 2, 4), unit_rows(3, 4).requires_grad_()
    labels = torch.tensor([0, 1, UNLABELLED])
    loss, _ = oim_loss(embeddings, labels, memory)
    before = {name: buffer.clone() for name, buffer in memory.state_dict().items()}
    loss.backward()
    assert all(torch.equal(before[name], buffer) for name, buffer in memory.state_dict().items())
    memory.update(embeddings, labels)
    assert not memory.table.requires_grad and memory.table.ne(before["table"]).any()
    assert not list(memory.parameters())


def test_updating_before_backward_is_refused_by_autograd():
    memory, embeddings, labels = OIMMemory(3, 2, 4), unit_rows(2, 4).requires_grad_(), torch.tensor([0, 1])
    loss, _ = oim_loss(embeddings, labels, memory)
    memory.update(embeddings, labels)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_memory_saves_and_loads(tmp_path):
    memory, copy = OIMMemory(3, 4, 5), OIMMemory(3, 4, 5)
    memory.update(unit_rows(6, 5), torch.tensor([0, UNLABELLED, 2, UNLABELLED, UNLABELLED, 0]))
    torch.save(memory.state_dict(), tmp_path / "memory.pt")
    copy.load_state_dict(torch.load(tmp_path / "memory.pt", weights_only=True))
    for one in (memory, copy):
        one.update(unit_rows(3, 5, 9), torch.tensor([UNLABELLED, UNLABELLED, 1]))
    for name, buffer in memory.state_dict().items():
        assert torch.equal(buffer, copy.state_dict()[name]), name
    assert int(copy.pointer) == 1


@pytest.mark.parametrize("label", [-2, 6, 9])
def test_a_label_past_the_table_is_refused(label):
    """It would name a queue slot, as PRW's identities 483 and 932 did elsewhere."""
    memory, x, labels = filled_memory(dtype=torch.float32), unit_rows(1, 5), torch.tensor([label])
    with pytest.raises(ValueError, match="table of 6 identities"):
        oim_loss(x, labels, memory)
    with pytest.raises(ValueError, match="table of 6 identities"):
        memory.update(x, labels)


def test_wrong_arguments_are_named():
    with pytest.raises(UserError, match="labelled or positives"):
        oim_loss(unit_rows(1, 5), torch.tensor([0]), filled_memory(dtype=torch.float32), average="all")
    for wrong in ({"momentum": 1.0}, {"momentum": -0.1}, {"queue_size": -1}):
        with pytest.raises(UserError, match="make no memory"):
            OIMMemory(**{"num_identities": 3, "queue_size": 2, "dim": 4} | wrong)


def shifted_pointer(memory, embeddings):
    memory.pointer.add_(1).remainder_(max(1, len(memory.queue)))
    GENUINE_QUEUE(memory, embeddings)


def all_at_once(memory, embeddings, labels):
    rows = memory.momentum * memory.table[labels] + (1 - memory.momentum) * embeddings
    memory.table[labels] = F.normalize(rows) if memory.normalize_table else rows


GENUINE_QUEUE = OIMMemory._update_queue


@pytest.mark.parametrize("name, fault", [("_update_queue", shifted_pointer), ("_update_table", all_at_once)])
def test_planted_faults_in_the_memory_are_caught(monkeypatch, name, fault):
    monkeypatch.setattr(OIMMemory, name, fault)
    with pytest.raises(AssertionError):
        check_updates([[0, UNLABELLED, 0, 1], [1, UNLABELLED]], 3, 0.5, True, None)


def test_planted_sign_fault_in_the_loss_is_caught(monkeypatch):
    genuine = torch.cat
    monkeypatch.setattr(pslib.losses.oim.torch, "cat", lambda parts, dim=0: -genuine(parts, dim=dim))
    with pytest.raises(AssertionError):
        check_loss([0, 3, UNLABELLED], 0.1, 0.2, 2.0)
