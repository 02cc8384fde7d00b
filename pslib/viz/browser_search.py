"""One search as the browser asks it, gallery, filters and threshold, for any query and model, and what it shows."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import torch
from matplotlib.figure import Figure

from pslib.data.annotations import UNLABELLED
from pslib.data.loading import read_image
from pslib.data.redraw import placement_of, query_with, scene_of, what_ifs
from pslib.data.scenes import render
from pslib.errors import UserError, require_choice
from pslib.evaluation.detections import Detections
from pslib.evaluation.ranking import ALL, Ranking, gallery_of, hardest, rank
from pslib.evaluation.similarity import frame_maps
from pslib.viz import browser as draw
from pslib.viz.browser_query import Query, Source, embedding_of, query_in_frame
from pslib.viz.montage import Tile, sheet

__all__ = ["FACTORS", "Search", "changed_ap", "changed_query", "failure_rows", "inside_of", "what_if"]

# The changes of what_ifs, in the order of a menu; a view that is hers already is not offered for her.
FACTORS = ("as drawn", "half as tall again", "half as tall", "lower half hidden", "seen from the front",
           "seen from behind", "seen from the left", "seen from the right", "another street", "darker", "bluer light",
           "half a step on")


@dataclass(frozen=True, eq=False)
class Search:
    """Where and how to search; ``str`` says it in words."""

    source: Source
    gallery: str = ALL  # one of gallery_names
    cameras: str = "all"
    threshold: float = 0.2

    def __str__(self) -> str:
        cameras = f", {self.cameras} camera" if self.cameras != "all" else ""
        return f"gallery {self.gallery}{cameras}, threshold {self.threshold:.2f}"

    def detections(self, model: str) -> Detections:
        return self.source.galleries[model].detections

    def rank(self, query: Query, model: str, embedding: np.ndarray | None = None) -> Ranking:
        """Search ``query``, by the given embedding (D,) in place of her own if there is one."""
        among = gallery_of(self.source.data, self.gallery, query_frame=query.frame, person_id=query.person_id)
        if embedding is None:
            embedding = embedding_of(query, self.source, model)
        return rank(self.source.galleries[model], embedding, frames=self.source.data.frames, among=among,
                    person_id=query.person_id, query_frame=query.frame, cameras=self.cameras,
                    score_threshold=self.threshold)

    def hardest(self, model: str) -> list[tuple[int, int, float]]:
        """(frame, row of her annotated box, AP) of every query of the gallery's protocol, worst first."""
        data = self.source.data
        if self.gallery not in data.protocols:
            such = next(iter(data.protocols), None)
            remedy = f"the gallery of a protocol, such as {such}" if such else "people by frame or identity"
            raise UserError(f"{self.gallery} has no list of queries: choose {remedy}.")
        protocol = data.protocols[self.gallery]
        order = hardest(protocol, self.source.galleries[model], num_frames=len(data.frames),
                        score_threshold=self.threshold)
        queries = [(protocol.queries[number], ap) for number, ap in order]
        return [(query.frame, _row_of(data.frames[query.frame].boxes, query.box), ap) for query, ap in queries]

    def summary(self, query: Query, ranking: Ranking, model: str) -> str:
        """The query in words, what came of it, and the true matches outside the first ranks and why, as HTML."""
        x1, y1, x2, y2 = query.box
        head = (f"<b>{escape(query.name)}</b><br>{x2 - x1:.0f} x {y2 - y1:.0f} px, {escape(model)}, {escape(str(self))}"
                f"<br>{len(ranking)} detections in {ranking.frames} frames")
        return f'<div style="line-height:1.35">{head}{draw.outcome_html(ranking, self.source.data)}</div>'


def _row_of(boxes: np.ndarray, box: np.ndarray) -> int:
    """The annotated box that is the query's; PRW rounds differently in its two files."""
    return int(np.abs(boxes - box).sum(axis=1).argmin())


def inside_of(search: Search, query: Query, model: str, place: int = 0, width: float = 8.0) -> tuple[Figure, str]:
    """What the network sees in the query's own picture (``place`` 0) or in the frame of rank ``place``."""
    image, box, name = query.image, query.box, "the query's own picture"
    embedding = embedding_of(query, search.source, model)
    if place:
        ranking = search.rank(query, model, embedding)
        if place > len(ranking):
            raise UserError(f"there is no rank {place}, the list has {len(ranking)}: choose a lower rank.")
        row = ranking.detection[place - 1]
        found, data = search.detections(model), search.source.data
        frame = data.frames[found.frame[row]]
        image, box, name = read_image(frame.path), found.boxes[row], f"rank {place} ({ranking.verdict[place - 1]})"
    seen = frame_maps(search.source.models[model], image)
    kept = seen.box_scores >= search.threshold
    maps = {"similarity to the query": seen.similarity(embedding), "score": seen.scores, "centerness": seen.centerness}
    return draw.inside_figure(image, seen.boxes[kept], seen.box_scores[kept], maps, stride=seen.stride, box=box,
                              name=f"{name}, {model}, cells of {seen.level}", width=width)


def changed_query(search: Search, query: Query, factor: str) -> Query:
    """The query drawn again with one factor of :data:`FACTORS` changed and nothing else.

    Raises UserError where she cannot be: not annotated, not of a drawn set, seen so already, out of sight afterwards.
    """
    if query.frame < 0 or query.row < 0:
        raise UserError("only an annotated person of a drawn set can be drawn again: choose boxes = annotated, or "
                        "click somebody else.")
    data = search.source.data
    scene = scene_of(data, query.frame)
    changes = what_ifs(scene, placement_of(render(scene), np.array(query.box)))
    if require_choice("change", factor, FACTORS) not in changes:
        raise UserError(f"{query.name} is as she would be after the change {factor!r}: choose another change.")
    drawn = query_with(data, query.frame, query.row, **changes[factor])
    image = torch.from_numpy(drawn.image).permute(2, 0, 1).contiguous()
    return Query(image, drawn.box, query.frame, -1, query.person_id, f"{query.name}, {factor}")


def changed_ap(search: Search, queries: Sequence[Query], models: Sequence[str], factor: str) -> np.ndarray:
    """Average precision (N, M) of N queries under M models, each drawn again with one factor changed.

    nan where a query cannot be changed so: seen from there already, or nothing of her left.
    """
    values = np.full((len(queries), len(models)), np.nan)
    for number, query in enumerate(queries):
        try:
            changed = changed_query(search, query, factor)
        except UserError:
            continue
        values[number] = [search.rank(changed, model).ap for model in models]
    return values


def what_if(search: Search, query: Query, model: str, factor: str, count: int = 4) -> tuple[Figure, str]:
    """The query and her first ranks, above as she is, below with one factor changed."""
    rows, told = [], []
    for name, one in (("as she is", query), (factor, changed_query(search, query, factor))):
        ranking = search.rank(one, model)
        tiles = draw.ranking_tiles(ranking, search.detections(model), search.source.data, count)
        x1, y1, x2, y2 = one.box
        rows.append((f"{name}: {draw.outcome_text(ranking)}",
                     [draw.query_tile(one.image, one.box, name, f"{x2 - x1:.0f} x {y2 - y1:.0f} px"), *tiles]))
        told.append(draw.ranking_text(ranking, name, count))
    return sheet(rows, columns=count + 1, wrap=False), f"query: {query.name}, {model}, {search}. " + " ".join(told)


def failure_rows(
    search: Search, worst_for: str, models: Sequence[str], *, count: int = 4
) -> list[tuple[str, list[Tile]]]:
    """The ``count`` hardest people of one model as rows of a sheet: the query, then the first rank of every model.

    One query a person: two queries of one person fail together and show one failure twice.
    """
    data, rows, seen = search.source.data, [], set()
    for frame, row, _ in search.hardest(worst_for):
        person = int(data.frames[frame].person_ids[row])
        if person in seen or person == UNLABELLED:
            continue
        seen.add(person)
        rows.append((frame, row))
        if len(rows) == count:
            break
    return [_failure(search, models, *one) for one in rows]


def _failure(search: Search, models: Sequence[str], frame: int, row: int) -> tuple[str, list[Tile]]:
    query = query_in_frame(search.source.data, frame, search.source.data.frames[frame].boxes[row].tolist(), row)
    x1, y1, x2, y2 = query.box
    tiles = [draw.query_tile(query.image, query.box, query.name, f"{x2 - x1:.0f} x {y2 - y1:.0f} px")]
    scores = []
    for model in models:
        ranking = search.rank(query, model)
        scores.append(f"{model} {ranking.ap:.2f}")
        for tile in draw.ranking_tiles(ranking, search.detections(model), search.source.data, 1):
            first, similarity = tile.lines[0].split(", ")
            tiles.append(Tile(tile.crop, tile.box, tile.verdict, (f"{model}: {first}", similarity, *tile.lines[1:])))
    return f"average precision: {', '.join(scores)}", tiles
