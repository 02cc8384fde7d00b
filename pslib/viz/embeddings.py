"""Embeddings on a page: t-SNE and PCA in small multiples of one style, marks that need no color vision.

A picture of this kind keeps neighbors and little else, so every panel carries numbers of the space it was made from
(:mod:`pslib.evaluation.separation`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pslib.errors import UserError, require_choice
from pslib.evaluation.separation import checked, neighbor_purity, separation
from pslib.viz.figures import PALETTE, new_figure

__all__ = ["COLORS", "MARKS", "Groups", "Panel", "by_camera", "by_group", "by_height", "by_person", "by_visible",
           "described", "numbers_figure", "panels_alt", "panels_figure", "pca", "style_of", "tsne"]  # fmt: skip

# Five colors times six marks: thirty groups can be told apart, up to five of them by color alone or mark alone.
COLORS = tuple(PALETTE[name] for name in ("blue", "orange", "black", "green", "purple"))
MARKS = ("o", "s", "^", "D", "v", "X")
STARTS = ("pca", "random")


@dataclass(frozen=True, eq=False)
class Groups:
    """What points are colored by: ``names`` of the groups, and the group ``of`` each point, (N,) int."""

    names: tuple[str, ...]
    of: np.ndarray


@dataclass(frozen=True, eq=False)
class Panel:
    """One picture: ``points`` (N, 2), the ``groups`` that decide their marks, and the line of numbers below a title."""

    points: np.ndarray
    groups: Groups
    note: str = ""


def tsne(
    features: np.ndarray, similarity: str = "euclidean", *, perplexity: float = 15.0, seed: int = 0, start: str = "pca"
) -> np.ndarray:
    """t-SNE of ``features`` (N, D) in the plane, (N, 2), by scikit-learn.

    ``start`` is where the points begin: "pca" (scikit-learn's choice; the seed then changes next to nothing) or
    "random".  Raises UserError unless ``perplexity`` is below N and the features differ.
    """
    from sklearn.manifold import TSNE

    require_choice("start", start, STARTS)
    features = _unit(features, similarity)
    if not 1 <= perplexity < len(features):
        raise UserError(f"perplexity={perplexity:g} must lie between 1 and {len(features)}, the number of points: it "
                        "is about how many neighbors each point is drawn to.")  # fmt: skip
    if start == "pca":
        start = pca(features)
        start = 1e-4 * start / start[:, 0].std()
    model = TSNE(2, perplexity=perplexity, init=start, learning_rate="auto", random_state=seed)
    return model.fit_transform(features.astype(np.float32))


def pca(features: np.ndarray, similarity: str = "euclidean") -> np.ndarray:
    """The two directions in which ``features`` (N, D) spread most, (N, 2): distances can only become shorter."""
    features = _unit(features, similarity)
    middle = features - features.mean(axis=0)
    _, spread, directions = np.linalg.svd(middle, full_matrices=False)
    if not spread[0] > 1e-9 * (1 + np.abs(features).max()):
        raise UserError("all features coincide: there is nothing to draw.")
    if len(spread) < 2:
        raise UserError(f"features {features.shape} have one direction only: a picture needs two.")
    # The sign of a direction is arbitrary: make its largest part positive, so that every machine draws the same.
    signs = np.sign(directions[:2][[0, 1], np.abs(directions[:2]).argmax(axis=1)])
    return middle @ (signs[:, None] * directions[:2]).T


def _unit(features: np.ndarray, similarity: str) -> np.ndarray:
    features, _ = checked(features, np.zeros(len(features)))
    if similarity == "euclidean":
        return features
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(lengths > 0, lengths, 1)


def by_group(values: Sequence[object], names: Mapping[object, str] | None = None) -> Groups:
    """One group for each different value, in order; ``names`` says what each is called."""
    different, of = np.unique(np.asarray(values), return_inverse=True)
    return Groups(tuple(str((names or {}).get(one, one)) for one in different.tolist()), of)


def by_person(people: np.ndarray) -> Groups:
    """Person 1, 2 ... in the order of their ids."""
    count = len(np.unique(people))
    return Groups(tuple(f"person {number}" for number in range(1, count + 1)), by_group(people).of)


def by_camera(cameras: np.ndarray) -> Groups:
    """UserError in a layout that does not say its cameras."""
    if not np.all(cameras):
        raise UserError("this layout does not say which camera took a frame: choose a model of the PRW layout.")
    return by_group(cameras, {camera: f"camera {camera}" for camera in np.unique(cameras).tolist()})


def by_height(heights: np.ndarray) -> Groups:
    """Three groups of equal size: small, middle and large boxes, in px.

    >>> by_height(np.array([20.0, 30, 40, 50, 60, 70])).names
    ('up to 37 px', '37 to 53 px', 'above 53 px')
    """
    first, second = np.quantile(heights, (1 / 3, 2 / 3))
    of = (heights > first).astype(int) + (heights > second)
    return Groups((f"up to {first:.0f} px", f"{first:.0f} to {second:.0f} px", f"above {second:.0f} px"), of)


def by_visible(visible: np.ndarray) -> Groups:
    """Whole, partly hidden, half or more hidden."""
    if not np.isfinite(visible).all():
        raise UserError("nobody has looked how much of these people is hidden: give known_of(..., visible=True).")
    return Groups(("all of her visible", "partly hidden", "hidden by half or more"),
                  (visible < 0.95).astype(int) + (visible <= 0.5))  # fmt: skip


def style_of(group: int) -> tuple[str, str]:
    """(color, mark) of a group: the first five differ in both, all thirty in one or the other.

    >>> style_of(0)[1], style_of(1)[1], style_of(5)[1], style_of(0)[0] == style_of(5)[0]
    ('o', 's', 's', True)
    """
    row, column = divmod(group, len(COLORS))
    return COLORS[column], MARKS[(row + column) % len(MARKS)]


def described(features: np.ndarray, labels: np.ndarray, points: np.ndarray, similarity: str, k: int = 5) -> str:
    """Numbers for a panel's second line: purity of the space and of the picture, within/between of the space."""
    space = separation(features, labels, similarity, k)
    return (f"purity {space.purity:.2f}, drawn {neighbor_purity(points, labels, k):.2f}, "
            f"w/b {space.within_between:.2f}")  # fmt: skip


def panels_figure(
    panels: Mapping[str, Panel], columns: int = 4, *, legend: bool = False, size: float = 13.0, width: float = 9.0
) -> Figure:
    """Small multiples: equal aspect, no ticks (the axes have no unit), each panel on a ruler of its own.

    One ``legend`` below names the groups of all panels; UserError where they have different ones.
    """
    columns = max(1, min(columns, len(panels)))
    rows = -(-len(panels) // columns)
    side = width / columns
    fig, axes = new_figure(width, rows * (side + 0.12) + 0.3 * legend, rows, columns, squeeze=False)
    for ax, (title, panel) in zip(axes.flat, panels.items(), strict=False):
        draw_points(ax, panel.points, panel.groups, size)
        ax.set_title(f"{title}\n{panel.note}".strip(), fontsize=8.5)
    for ax in axes.flat[len(panels) :]:
        ax.axis("off")
    if legend:
        names, *others = dict.fromkeys(panel.groups.names for panel in panels.values())
        if others:
            raise UserError("one legend cannot name different groups: give all panels the same, or leave it out.")
        fig.legend(handles=legend_handles(names), loc="outside lower center", ncols=min(len(names), 5), fontsize=8,
                   frameon=False)  # fmt: skip
    _fit_titles(axes.flat[: len(panels)])
    return fig


def _fit_titles(axes: Sequence[Axes]) -> None:
    """One size for the titles of all ``axes``, small enough that none is wider than its panel."""
    axes[0].figure.draw_without_rendering()  # only then is known how wide a panel is
    fill = max(ax.title.get_window_extent().width / ax.get_window_extent().width for ax in axes)
    for ax in axes:
        ax.title.set_fontsize(ax.title.get_fontsize() / max(fill, 1.0))


def panels_alt(panels: Mapping[str, Panel]) -> str:
    """Titles and numbers in words: what a picture of points can be told by."""
    return "; ".join(f"{title}: {panel.note}" if panel.note else title for title, panel in panels.items())


def draw_points(ax: Axes, points: np.ndarray, groups: Groups, size: float = 13.0) -> None:
    """Points in the marks of their groups, on axes that hold them all."""
    for group in range(len(groups.names)):
        color, mark = style_of(group)
        own = points[groups.of == group]
        ax.scatter(*own.T, s=size, c=color, marker=mark, lw=0)
    ax.set(xticks=[], yticks=[], aspect="equal", adjustable="datalim")
    ax.margins(0.06)
    for spine in ax.spines.values():
        spine.set_color("#BBBBBB")


def legend_handles(names: Sequence[str]) -> list[Line2D]:
    """One mark for each group."""
    styles = [style_of(group) for group in range(len(names))]
    return [Line2D([], [], color=color, marker=mark, ls="", ms=5, label=name)
            for name, (color, mark) in zip(names, styles, strict=True)]  # fmt: skip


def numbers_figure(values: Mapping[str, Mapping[str, float]], against: Mapping[str, float], label: str,
                   families: Mapping[str, str] | None = None) -> Figure:  # fmt: skip
    """Each number (a panel) of every model against what the model is worth; rank correlation in the title.

    ``values`` number -> {model: value}, ``against`` {model: value}; models are numbered in the order of ``against``,
    each number beside its point where it is free of others.  ``families`` {model: family} decide color and mark, and
    are named in a legend.
    """
    from scipy.stats import spearmanr

    fig, axes = new_figure(9.0, 2.7 + 0.25 * bool(families), 1, len(values), squeeze=False, sharey=True)
    models = list(against)
    names = list(dict.fromkeys(families[model] for model in models)) if families else []
    for ax, (name, column) in zip(axes.flat, values.items(), strict=True):
        x, y = np.array([column[model] for model in models]), np.array([against[model] for model in models])
        for model in models:
            color, mark = style_of(names.index(families[model]) if families else 0)
            ax.plot(column[model], against[model], mark, ms=4.5, color=color, mew=0)
        ax.set_title(f"{name}\nrank correlation {spearmanr(x, y).statistic:+.2f}", fontsize=8.5)
        ax.margins(0.12)
        ax.tick_params(labelsize=7.5)
        ax.grid(color="#E5E5E5", lw=0.5)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel(label, fontsize=8.5)
    if families:
        fig.legend(handles=legend_handles(names), loc="outside lower center", ncols=len(names), fontsize=8,
                   frameon=False)  # fmt: skip
    fig.draw_without_rendering()  # only then is known where in the picture a point lies
    for ax, column in zip(axes.flat, values.values(), strict=True):
        _number_points(ax, np.array([[column[model], against[model]] for model in models]))
    return fig


def _number_points(ax: Axes, points: np.ndarray) -> None:
    """1, 2 ... beside ``points`` (N, 2), in whichever of eight directions covers least of other points and numbers."""
    size, apart, mark = 6.5, 8.0, 6.0  # of a digit, from point to number, of a mark; in points of 1/72 inch
    turns = np.radians(np.arange(0, 360, 45))
    offsets = apart * np.column_stack([np.cos(turns), np.sin(turns)])
    places = ax.transData.transform(points) * 72 / ax.figure.dpi
    low, high = ax.get_window_extent().get_points() * 72 / ax.figure.dpi
    wide = np.array([[0.62 * size * len(str(number)), size] for number in range(1, len(points) + 1)])  # (N, 2)
    centers = places + offsets[0]
    marks = np.full_like(wide, mark)
    for row in [*range(len(points))] * 3:  # once to place each, twice more now that the others are known
        others = np.arange(len(points)) != row
        stand = np.concatenate([places[others], centers[others]])
        sides = (wide[row] + np.concatenate([marks[others], wide[others]])) / 2
        tried = places[row] + offsets  # (8, 2)
        covered = np.maximum(sides - np.abs(tried[:, None] - stand), 0).prod(axis=2).sum(axis=1)
        outside = ((tried < low) | (tried > high)).any(axis=1)
        centers[row] = tried[np.argmin(covered + 1e3 * outside)]
    for row, offset in enumerate(centers - places):
        ax.annotate(str(row + 1), points[row], offset, textcoords="offset points", fontsize=size, ha="center",
                    va="center").set_in_layout(False)  # fmt: skip
