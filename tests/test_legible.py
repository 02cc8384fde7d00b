"""Faults planted in a figure are found; what can be read is left alone; a page with a fault is not made."""

import numpy as np
import pytest

from pslib.viz.curves import matrix_figure
from pslib.viz.figures import new_figure, show
from pslib.viz.legible import illegible


def figure(**options):
    fig, ax = new_figure(4, 2.5, **options)
    ax.plot([0, 1], [0, 1], label="a line")
    ax.set(title="two numbers", xlabel="steps", ylabel="mAP")
    ax.legend()
    return fig, ax


def test_a_figure_as_it_should_be():
    """Free words that overlap, and those that are clipped away, are a drawing's own business."""
    assert illegible(figure()[0]) == []
    fig, ax = figure()
    for _ in range(2):
        ax.text(0.5, 0.5, "beside a point")
    ax.text(90, 0.5, "far away", clip_on=True)
    ax.set_xlim(0.0, 1.0)
    ax.text(0.5, 0.2, " ", fontsize=1)
    assert illegible(fig) == []


@pytest.mark.parametrize("plant, said", [
    (lambda fig, ax: ax.text(0.1, 1.6, "above it all").set_in_layout(False), "'above it all' is cut at the edge"),
    (lambda fig, ax: ax.set_title("x" * 90), "is cut at the edge"),
    (lambda fig, ax: ax.tick_params(labelsize=4), "is of 4.0 points"),
    (lambda fig, ax: ax.text(0.5, 0.5, "tiny", fontsize=5), "'tiny' is of 5.0 points"),
    (lambda fig, ax: ax.set_xticks([0, 0.03], ["first", "second"]), "'first' and 'second' lie over each other"),
    (lambda fig, ax: ax.set_xlabel("steps of the whole training", labelpad=-10), "' lie over each other"),
    (lambda fig, ax: fig.text(0.5, 0.94, "a caption"), "lie over each other"),
], ids=["annotation", "title", "ticks", "small", "crowded ticks", "label", "caption"])  # fmt: skip
def test_planted_faults(plant, said):
    fig, ax = figure()
    plant(fig, ax)
    found = illegible(fig)
    assert found and any(said in one for one in found), found


def test_what_is_not_drawn_is_no_fault():
    """Ticks beyond the limits, an axis that is off, axes that are hidden."""
    fig, (ax, off, hidden) = new_figure(6, 2, 1, 3)
    ax.plot([0, 1], [0, 1])
    ax.set_xticks([0.0, 1.0, 1.01], ["0", "1", "beyond the limit"])
    ax.set_xlim(0, 1)
    off.set_xticks([0, 0.01], ["under", "and over"])
    off.set_xlabel("a label that nobody gets to see, and so it may be long")
    off.axis("off")
    hidden.set_title("as long as you please " * 5)
    hidden.set_visible(False)
    assert illegible(fig) == []


def test_places_are_those_of_the_picture_that_is_written():
    """A layout with axes of equal unit is not at rest after one drawing."""
    fig, ax = new_figure(4.0, 2.7)
    ax.plot([0, 2, 0], [0, 2, 2], "o", label="features")
    ax.set(aspect="equal")
    fig.legend(loc="outside right upper")
    assert illegible(fig) == []


def test_what_was_judged_is_what_is_written():
    """Matrices with wide titles, whose layout would push the label of the left axis out with every further drawing."""
    values, names = np.array([[68.0, 53, 45], [68, 64, 48], [68, 52, 51]]), ["P3 (far)", "P4 (middle)", "P5 (near)"]
    panels = {"baseline: mAP, each box from its own level": values, "AlignPS: mAP, every box from P3": values + 20}
    fig = matrix_figure(panels, names, "query's level", "gallery's level", np.full((3, 3), 923))
    assert illegible(fig) == []
    judged = fig.axes[0].yaxis.label.get_window_extent().x0
    for _ in range(3):
        fig.draw_without_rendering()
    assert fig.axes[0].yaxis.label.get_window_extent().x0 == judged > 0


def test_the_size_is_that_of_the_page():
    fig, ax = figure()
    ax.title.set_fontsize(8)
    assert not any("two numbers" in one for one in illegible(fig, scale=0.9))
    assert any("'two numbers' is of 4.8 points" in one for one in illegible(fig, scale=0.6))


def test_no_page_is_made_of_it(monkeypatch):
    """Whoever tries things out sees her figure all the same."""
    fig, ax = figure()
    ax.set_title("x" * 90)
    monkeypatch.delenv("PSLIB_PLAIN", raising=False)
    show(fig, "a line")
    monkeypatch.setenv("PSLIB_PLAIN", "1")
    with pytest.raises(ValueError, match="the figure 'a line' cannot be read: '.x+.... is cut at the edge"):
        show(fig, "a line")
    show(figure()[0], "two numbers")
