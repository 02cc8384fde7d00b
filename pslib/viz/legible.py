"""Can the words in a figure be read?  Faults that an eye finds at once, in a figure that somebody looks at.

A label that is cut at the edge, two that lie over each other, one too small: a page with such a figure is not
published, and does not pass the tests (:func:`pslib.viz.figures.show` asks).
"""

from itertools import combinations

from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

__all__ = ["SLACK", "SMALLEST", "illegible", "settle"]

SMALLEST = 5.5  # points of 1/72 inch, in the size in which a page shows the figure
SLACK = 2.0  # px that may be cut or covered: the frame around a text is a little larger than its letters


def settle(fig: Figure) -> None:
    """Lay ``fig`` out and leave it so: what is judged is then what is written, however often it is drawn.

    Only the second time does a layout know what the first has made of axes with equal units, and with every further
    drawing it would move them on.
    """
    for _ in range(2):
        fig.draw_without_rendering()
    fig.set_layout_engine("none")


def illegible(fig: Figure, scale: float = 1.0) -> list[str]:
    """What cannot be read in ``fig``, a sentence each; settles it, as only then places are known.

    Every text must lie within the figure, and be of :data:`SMALLEST` size or more where a page shows it at ``scale``.
    Titles, labels of axes and ticks, and legends must not cover each other.  Words that a drawing puts where it wants
    them (``ax.text``, ``ax.annotate``) may: numbers beside points that nearly coincide do.

    >>> from pslib.viz.figures import new_figure
    >>> fig, (left, right) = new_figure(4, 2, 1, 2)
    >>> _ = left.set_title("much wider than a panel"), right.set_title("no less wide than that one")
    >>> illegible(fig)[-1]
    "'much wider than a panel' and 'no less wide than that one' lie over each other"
    """
    settle(fig)
    texts = [(text, text.get_window_extent()) for text in _shown(fig)]
    edge = Bbox([[-SLACK, -SLACK], [fig.bbox.width + SLACK, fig.bbox.height + SLACK]])
    said = []
    for text, box in texts:
        size = text.get_fontsize() * scale
        if size < SMALLEST:
            said.append(f"{_quoted(text)} is of {size:.1f} points, and nobody reads less than {SMALLEST}")
        if not (edge.contains(box.x0, box.y0) and edge.contains(box.x1, box.y1)):
            said.append(f"{_quoted(text)} is cut at the edge")
    free = {id(text) for ax in fig.axes for text in ax.texts}
    # Around words that stand askew is a frame with much room in it.
    placed = [(text, box) for text, box in texts if id(text) not in free and text.get_rotation() % 90 == 0]
    for (first, one), (second, other) in combinations(placed, 2):
        covered = Bbox.intersection(one, other)
        if covered is not None and min(covered.width, covered.height) > SLACK:
            said.append(f"{_quoted(first)} and {_quoted(second)} lie over each other")
    return said


def _shown(fig: Figure) -> list[Text]:
    """The texts that are drawn: visible, with words in them, not of a tick beyond its axis, not clipped away."""
    away = {id(text) for ax in fig.axes if not ax.get_visible() for text in ax.findobj(Text)}
    for ax in fig.axes:
        for axis in (ax.xaxis, ax.yaxis):
            if not ax.axison:
                away |= {id(text) for text in axis.findobj(Text)}
                continue
            ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
            gone = [tick for tick in ticks if not _within(tick.get_loc(), axis.get_view_interval())]
            away |= {id(label) for tick in gone for label in (tick.label1, tick.label2)}
        clipped = (text for text in ax.texts if text.get_clip_on() and not ax.bbox.overlaps(text.get_window_extent()))
        away |= {id(text) for text in clipped}
    found = fig.findobj(Text)
    return [text for text in found if text.get_visible() and text.get_text().strip() and id(text) not in away]


def _within(value: float, interval: tuple[float, float]) -> bool:
    low, high = sorted(interval)
    slack = 1e-6 * (high - low)
    return low - slack <= value <= high + slack


def _quoted(text: Text) -> str:
    words = " ".join(text.get_text().split())
    return f"'{words if len(words) <= 40 else words[:37] + '...'}'"
