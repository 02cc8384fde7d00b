"""Numbers of two branches: a turned copy, independent spaces, a shifted one; each number moves where it should."""

import numpy as np
import pytest

from pslib.errors import UserError
from pslib.evaluation.branches import branch_numbers, turned


def people_and_rows(noise=0.2, dim=6, seed=0):
    """Twelve people of six boxes, each around a direction of her own."""
    rng = np.random.default_rng(seed)
    people = np.repeat(np.arange(12) + 40, 6)
    rows = rng.normal(size=(12, dim))[people - 40] + noise * rng.normal(size=(72, dim))
    return people, rows / np.linalg.norm(rows, axis=1, keepdims=True), rng


def test_a_turned_copy_shares_everything_and_its_cosine_does_not_say_so():
    people, rows, rng = people_and_rows()
    other = rows @ np.linalg.qr(rng.normal(size=(6, 6)))[0]
    found = branch_numbers(rows, other, people)
    assert found.cosine_turned == pytest.approx(1.0)
    assert abs(found.cosine) < 0.5
    assert found.purity_dense == pytest.approx(found.purity_roi) == pytest.approx(found.purity_both)


def test_equal_branches_cannot_be_told_apart():
    people, rows, _ = people_and_rows()
    found = branch_numbers(rows, 3 * rows, people)  # lengths play no part
    assert found.cosine == pytest.approx(1.0) and found.probe <= 0.55


def test_a_shift_is_found_by_the_probe_and_changes_no_purity_much():
    people, rows, _ = people_and_rows()
    shifted = rows.copy()
    shifted[:, 0] += 3.0
    found = branch_numbers(rows, shifted, people)
    assert found.probe > 0.85 and found.own_branch > 0.9


def test_branches_of_unrelated_people_share_no_turn():
    people, rows, _ = people_and_rows(dim=30)
    _, strangers, _ = people_and_rows(dim=30, seed=1)
    found = branch_numbers(rows, strangers, people)
    assert abs(found.cosine_turned) < 0.35 < branch_numbers(rows, -rows, people).cosine_turned


def test_turn_is_found_by_the_named_rows_alone():
    _, rows, rng = people_and_rows()
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    spoiled = rows @ turn
    spoiled[36:] = rng.normal(size=(36, 6))
    np.testing.assert_allclose(turned(rows, spoiled, np.arange(72) < 36)[:36], rows[:36], atol=1e-9)


def test_text_names_probe_and_purities():
    people, rows, _ = people_and_rows()
    assert str(branch_numbers(rows, rows, people)).startswith("branch probe ")


@pytest.mark.parametrize("which", [0, 1])
def test_an_embedding_without_direction_is_named(which):
    people, rows, _ = people_and_rows()
    pair = [rows.copy(), rows.copy()]
    pair[which][5] = 0
    with pytest.raises(UserError, match="feature 5 has length zero"):
        branch_numbers(*pair, people)


def test_different_sizes_are_refused():
    people, rows, _ = people_and_rows()
    with pytest.raises(UserError, match=r"\(72, 6\) and \(72, 5\)"):
        branch_numbers(rows, rows[:, :5], people)
