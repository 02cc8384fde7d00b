"""What the query browser shows, as pure functions: each takes a ranking and returns a figure and its alt text.

The alt texts state query, ranks and verdicts: they are what a screen reader reads and what the browser tests check.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from pslib.data.annotations import PersonSearchSet
from pslib.data.loading import read_image
from pslib.evaluation.detections import Detections
from pslib.evaluation.ranking import Ranking
from pslib.viz.figures import PALETTE, draw_boxes, new_figure, to_array
from pslib.viz.montage import STYLES, Tile, crop_in_context, sheet

__all__ = ["ap_figure", "comparison_figure", "failures_figure", "gallery_figure", "inside_figure", "outcome_html",
           "outcome_text", "query_tile", "ranking_text", "ranking_tiles"]


def query_tile(image: Any, box: Sequence[float], *lines: str) -> Tile:
    """The query in its surroundings; ``box`` (4,) xyxy px of ``image``."""
    return Tile(*crop_in_context(image, box), "query", lines)


def ranking_tiles(ranking: Ranking, detections: Detections, data: PersonSearchSet, count: int = 10) -> list[Tile]:
    """One tile for each of the first ``count`` ranks: rank, similarity, score, frame and camera."""
    tiles = []
    for place in range(min(count, len(ranking.detection))):
        row = ranking.detection[place]
        frame = data.frames[detections.frame[row]]
        camera = f", camera {frame.camera}" if frame.camera else ""
        crop, box = crop_in_context(read_image(frame.path), detections.boxes[row])
        lines = (f"rank {place + 1}, {ranking.closeness(place)}",
                 f"score {detections.scores[row]:.2f}{camera}", frame.name)
        tiles.append(Tile(crop, box, ranking.verdict[place], lines))
    return tiles


def ranking_text(ranking: Ranking, query: str, count: int = 10) -> str:
    """Query, ranks and verdicts in one sentence, for alt texts."""
    verdicts = ranking.verdict[:count]
    ranks = f"ranks 1 to {len(verdicts)}: {', '.join(verdicts)}" if verdicts else "nothing is ranked"
    return f"{query}; {ranks}; {outcome_text(ranking)}."


def outcome_text(ranking: Ranking) -> str:
    """What came of a search: average precision and how many true matches are not listed, or why neither can be told."""
    if ranking.ap is None:
        return ranking.note
    outside = f"{len(ranking.missed)} of {ranking.positives} true matches outside the first {ranking.shown}"
    return f"average precision {ranking.ap:.2f}, {outside}"


def gallery_figure(ranking: Ranking, detections: Detections, data: PersonSearchSet, *, query: str,
                   count: int = 10) -> tuple[Figure, str]:
    """The ranked gallery: the first ``count`` crops in context, five a row, each with verdict, rank, score and frame.

    ``query`` says in words who is searched.
    """
    tiles = ranking_tiles(ranking, detections, data, count)
    return sheet([("", tiles)]), ranking_text(ranking, query, count)


def comparison_figure(rankings: Mapping[str, Ranking], detections: Mapping[str, Detections], data: PersonSearchSet, *,
                      query: str, count: int = 5) -> tuple[Figure, str]:
    """The same query under several models, one row of ``count`` crops each, headed by name and average precision."""
    rows, told = [], []
    for name, ranking in rankings.items():
        rows.append((f"{name}: {outcome_text(ranking)}", ranking_tiles(ranking, detections[name], data, count)))
        told.append(ranking_text(ranking, name, count))
    return sheet(rows, columns=count, wrap=False), f"{query}, by {len(rows)} models. " + " ".join(told)


def ap_figure(ranking: Ranking, length: int) -> tuple[Figure, str]:
    """Average precision as the list grows; a line marks its first ``length`` ranks, circles are right matches."""
    fig, ax = new_figure(4.0, 1.7)
    growing = np.asarray(ranking.running_ap, float)
    if not len(growing):
        ax.text(0.5, 0.5, "no right match can be counted", ha="center", fontsize=8)
        ax.axis("off")
        return fig, f"No curve: {outcome_text(ranking)}."
    length = int(np.clip(length, 1, len(growing)))
    right = np.array([place for place, verdict in enumerate(ranking.verdict) if verdict == "right"], int)
    shown = slice(0, min(len(growing), max(20, length, int(right[-1]) + 3 if len(right) else 0)))
    ranks = np.arange(1, len(growing) + 1)
    ax.step(ranks[shown], growing[shown], where="post", color=PALETTE["blue"])
    ax.plot(right + 1, growing[right], "o", color=STYLES["right"][0], markersize=5)
    ax.axvline(length, color=PALETTE["vermillion"], linestyle="--", linewidth=1.2)
    now = growing[length - 1]
    ax.set(xlabel="length of the list", ylabel="average precision", ylim=(0, 1.05), xlim=(0.5, ranks[shown][-1] + 0.5))
    ax.set_title(f"after {length} ranks: {now:.2f} of {growing[-1]:.2f}", fontsize=9)
    hits = int((right < length).sum())
    return fig, (f"Average precision after {length} ranks {now:.2f}, after the whole list {growing[-1]:.2f}; "
                 f"{hits} right matches within these ranks.")


def inside_figure(image: Any, boxes: np.ndarray, scores: np.ndarray, maps: Mapping[str, np.ndarray], *, stride: int,
                  box: Sequence[float] | None = None, name: str = "the frame",
                  width: float = 8.0) -> tuple[Figure, str]:
    """A picture as the network sees it: detections with their scores, and one panel for each of ``maps``.

    ``boxes`` (N, 4) xyxy px and ``scores`` (N,); ``maps`` are (h, w) by title, one value a cell of ``stride`` px,
    cosines where the title says similarity and 0..1 elsewhere; ``box`` is the person asked for, in every panel, and
    ``width`` the figure's in inches.
    """
    picture = to_array(image)
    high, wide = picture.shape[:2]
    rows, letters = -(-(1 + len(maps)) // 2), 9 if width >= 7 else 8
    fig, axes = new_figure(width, rows * (0.4375 * width * high / wide + 0.35), rows, 2, squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    axes[0, 0].imshow(picture)
    axes[0, 0].set_title(f"{len(boxes)} detections and their scores", fontsize=letters)
    draw_boxes(axes[0, 0], boxes, [f"{score:.2f}" for score in scores], color=STYLES["wrong"][0], linestyle="dashed")
    told = []
    for ax, (title, values) in zip(axes.flat[1:], maps.items(), strict=False):
        cosine = "similarity" in title
        covered = (-0.5, values.shape[1] * stride - 0.5, values.shape[0] * stride - 0.5, -0.5)
        ax.imshow(picture, alpha=0.35)
        drawn = ax.imshow(values, extent=covered, alpha=0.7, cmap="RdBu_r" if cosine else "cividis",
                          vmin=-1 if cosine else 0, vmax=1, interpolation="nearest")
        row, column = np.unravel_index(int(np.argmax(values)), values.shape)
        x, y = (column + 0.5) * stride, (row + 0.5) * stride
        ax.plot([x], [y], "x", color="black", markersize=7, markeredgewidth=2)
        ax.set(xlim=(-0.5, wide - 0.5), ylim=(high - 0.5, -0.5))
        ax.set_title(f"{title}: largest {values.max():.2f} at the cross", fontsize=letters)
        fig.colorbar(drawn, ax=ax, shrink=0.8, ticks=(-1, 0, 1) if cosine else (0, 0.5, 1))
        inside = box is not None and box[0] <= x <= box[2] and box[1] <= y <= box[3]
        where = "" if box is None else ", inside the box" if inside else ", outside the box"
        told.append(f"{title}: largest {values.max():.2f} at x={x:.0f}, y={y:.0f}{where}")
    for ax in axes.flat[: 1 + len(maps)]:
        draw_boxes(ax, [box] if box is not None else [], color=STYLES["query"][0])
    best = f", best score {max(scores):.2f}" if len(scores) else ""
    return fig, f"{name}: {len(boxes)} detections{best}. {'; '.join(told)}."


def failures_figure(rows: Sequence[tuple[str, Sequence[Tile]]]) -> tuple[Figure, str]:
    """Difficult queries one below the other, each with what the models put first; rows as :func:`sheet` takes them."""
    told = [f"{tiles[0].lines[0]}, {heading}: " + ", ".join(f"{tile.lines[0]} {tile.verdict}" for tile in tiles[1:])
            for heading, tiles in rows]
    return sheet(rows, columns=max((len(tiles) for _, tiles in rows), default=1)), "; ".join(told) + "."


def outcome_html(ranking: Ranking, data: PersonSearchSet) -> str:
    """What came of a search, and each true match outside the first ranks with its frame and the reason, as HTML."""
    lines = "".join(f"<li>{escape(data.frames[one.frame].name)}: {escape(one.reason)}</li>" for one in ranking.missed)
    heading = f"<b>True matches outside the first {ranking.shown}</b>"
    listed = f"{heading}<ul style='margin:0'>{lines}</ul>" if lines else ""
    return f"<p style='margin:2px 0'>{escape(outcome_text(ranking))}.</p>{listed}"
