"""``pslib search``: find a person of one picture in a folder of pictures, and write the matches as one page.

The page is a single HTML file with its pictures inside: it needs no network, no kernel and no script.
"""

import html
import json
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from pslib.data.annotations import Frame, PersonSearchSet
from pslib.data.layouts import write_bytes
from pslib.data.loading import read_image
from pslib.data.transforms import TestTransform
from pslib.errors import UserError
from pslib.evaluation.cache import cached_gallery
from pslib.evaluation.detections import Detections
from pslib.evaluation.ranking import Ranking, rank
from pslib.models.alignps import AlignPS
from pslib.progress import progress
from pslib.training.checkpoints import load_model, load_weights
from pslib.viz.browser_input import box_in_image, data_uri, open_picture, parse_box
from pslib.viz.montage import crop_in_context

__all__ = ["Folder", "embed_box", "open_folder", "result_page", "search_folder"]

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
_BATCH_PIXELS = 1_000_000  # what is embedded at once: photographs one by one, small frames by the handful
_CROP = (192, 225)  # px, height and width of a match on the page

_STYLE = """
body { font: 16px/1.45 system-ui, sans-serif; color: #111; background: #fff; max-width: 76rem; margin: 1rem auto;
  padding: 0 1rem }
ol { list-style: none; padding: 0; display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(225px, 1fr)) }
figure { margin: 0 } img { max-width: 100%; display: block } figcaption { overflow-wrap: anywhere }
"""


@dataclass(frozen=True)
class Folder:
    """The pictures of a folder: a set without annotations, what was skipped and why, how many other files lie there."""

    data: PersonSearchSet
    skipped: list[str]
    others: int
    largest: int  # pixels of the largest picture


def open_folder(folder: Path) -> Folder:
    """All pictures below ``folder``, sorted by name; each is decoded once, since only that shows a truncated one.

    Raises UserError if the folder is missing or has no readable picture.
    """
    if not folder.is_dir():
        raise UserError(f"the gallery {folder} is no folder: give the folder that holds the pictures to search.")
    # Hidden folders hold thumbnails and what was thrown away: they are left alone as hidden files are.
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not _hidden(path.relative_to(folder)))
    pictures = [path for path in files if path.suffix.lower() in SUFFIXES]
    if not pictures:
        raise UserError(f"{folder} holds no picture ({', '.join(SUFFIXES)}): give another folder with --gallery.")
    frames, skipped, largest = [], [], 0
    for path in progress(pictures, "read"):
        try:
            height, width = open_picture(path).shape[:2]
        except UserError as error:
            skipped.append(f"{path.relative_to(folder)}: {str(error).removeprefix(str(path)).strip()}")
            continue
        largest = max(largest, height * width)
        name = path.relative_to(folder).as_posix()
        frames.append(Frame(name, path, np.empty((0, 4), np.float32), np.empty(0, np.int64)))
    if not frames:
        first = skipped[0].rstrip(".")
        raise UserError(f"none of the {len(pictures)} pictures in {folder} can be read (first: {first}).")
    data = PersonSearchSet("own images", "gallery", folder, frames)
    return Folder(data, skipped, len(files) - len(pictures), largest)


def _hidden(inside: Path) -> bool:
    return any(part.startswith(".") for part in inside.parts)


@torch.no_grad()
def embed_box(
    model: AlignPS, image: np.ndarray, box: list[float], test_size: tuple[int, int] | None = None
) -> np.ndarray:
    """The embedding (D,) of ``box`` (xyxy px) in ``image`` (H, W, 3) uint8, on the model's own device."""
    device = next(model.parameters()).device
    pixels, factor = TestTransform(test_size)(torch.tensor(image).permute(2, 0, 1).contiguous())
    boxes = torch.tensor([box], dtype=torch.float32, device=device) * factor
    _, (rows,) = model.detect_and_embed([pixels.to(device)], [boxes])
    return rows[0].float().cpu().numpy()


def search_folder(options: Namespace) -> None:
    """Do what ``pslib search`` was asked for: read, embed behind a progress bar, rank, write the page, say where.

    ``options``: ``query`` and ``gallery`` paths, ``box`` "x,y,w,h", ``weights``, ``out``, ``top``, ``min_score``.
    """
    if options.out.is_dir() or not options.out.absolute().parent.is_dir():
        raise UserError(f"the page cannot be written to {options.out}: give a file in a folder that exists with --out.")
    if options.top < 1:
        raise UserError(f"--top {options.top} shows no match: give 1 or more.")
    image = open_picture(options.query)
    box = box_in_image(parse_box(options.box), image.shape[:2])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_model(options.weights).to(device)
    size = json.loads(load_weights(options.weights)[1].get("test_size", "null"))
    test_size = tuple(size) if size else None
    folder = open_folder(options.gallery)
    for line in folder.skipped:
        print(f"skipped {line}")
    found = cached_gallery(
        model, folder.data, name="own-images", device=device, test_size=test_size,
        batch_size=int(np.clip(_BATCH_PIXELS // folder.largest, 1, 8)),
    )  # fmt: skip
    frames = folder.data.frames
    # The query's own picture, where it lies in the folder, is the one match that says nothing.
    own = next((index for index, one in enumerate(frames) if one.path.samefile(options.query)), -1)
    if own == 0 == len(frames) - 1:
        raise UserError(f"{options.gallery} holds only the query's own picture: give a folder with others to search.")
    ranking = rank(found, embed_box(model, image, box, test_size), frames=frames, query_frame=own,
                   score_threshold=options.min_score)  # fmt: skip
    if not len(ranking):
        raise UserError(f"nobody was detected in {_count(ranking.frames, 'picture')} of {options.gallery} with a score "
                        f"of {options.min_score:g} or more: lower --min-score, or search other pictures.")  # fmt: skip
    page = result_page(
        ranking, found.detections, folder, image, box, query_name=options.query.name,
        weights_name=options.weights.name, top=options.top, min_score=options.min_score, own=own,
    )  # fmt: skip
    write_bytes(options.out, page.encode(errors="replace"))  # names of files need not be text
    best = frames[found.detections.frame[ranking.detection[0]]].name
    print(f"searched {_count(ranking.frames, 'picture')}, {_count(len(ranking), 'detection')}, skipped "
          f"{_count(len(folder.skipped), 'unreadable file')}; nearest ({ranking.closeness(0)}): {best}")
    print(f"page: {options.out}")


def result_page(
    ranking: Ranking, detections: Detections, folder: Folder, image: np.ndarray, box: list[float], *, query_name: str,
    weights_name: str, top: int, min_score: float, own: int = -1,
) -> str:  # fmt: skip
    """The page as HTML: the query, what was searched and what was not, and the first ``top`` matches in context.

    ``box`` (4,) xyxy px of ``image`` (H, W, 3); ``own`` the number of the query's own picture, -1 if it is not there.
    """
    frames = folder.data.frames
    shown = min(top, len(ranking))
    asked = f"The person searched for: box x={box[0]:.0f}, y={box[1]:.0f}, w={box[2] - box[0]:.0f}, " \
            f"h={box[3] - box[1]:.0f} in {query_name}"  # fmt: skip
    empty = ranking.frames - len(np.unique(detections.frame[ranking.detection]))
    told = [f"Searched {_count(ranking.frames, 'picture')} with {weights_name}: {_count(len(ranking), 'detection')} "
            f"with a score of {min_score:g} or more, the {shown} most similar below, best first."]  # fmt: skip
    told += [f"In {_count(empty, 'picture')} nobody was detected."] * bool(empty)
    told += [f"{frames[own].name}, the query's own picture, was left out."] * (own >= 0)
    told += [f"Left alone, being no pictures: {_count(folder.others, 'other file')}."] * bool(folder.others)
    told += [f"Skipped, listed at the end: {_count(len(folder.skipped), 'unreadable file')}."] * bool(folder.skipped)
    near = "high similarity" if ranking.compared == "cosine" else "short distance"
    told += [f"A {near} says that two people look alike to the network, not that they are the same person: "
             "nobody labelled these pictures, so no match is marked right or wrong."]  # fmt: skip
    matches = []
    for place in range(shown):
        row = ranking.detection[place]
        frame = frames[detections.frame[row]]
        words = f"{ranking.closeness(place)}, score {detections.scores[row]:.2f}"
        crop = _in_context(read_image(frame.path), detections.boxes[row])
        caption = f"<b>rank {place + 1}</b>, {words}<br>{html.escape(frame.name)}"
        matches.append(f"<li>{_figure(crop, f'Rank {place + 1}: {words}, not labelled, {frame.name}', caption)}</li>")
    skipped = ""
    if folder.skipped:
        listed = "".join(f"<li>{html.escape(line)}</li>" for line in folder.skipped)
        skipped = f"<h2>Skipped: {_count(len(folder.skipped), 'unreadable file')}</h2><ul>{listed}</ul>"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        # The browser itself keeps the page from fetching anything.
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; "
        "style-src 'unsafe-inline'\"><meta name=\"viewport\" content=\"width=device-width\">"
        f"<title>Person search: {html.escape(query_name)}</title><style>{_STYLE}</style></head><body>\n"
        f"<h1>Person search</h1>{_figure(_in_context(image, box), asked, html.escape(asked))}\n"
        + "".join(f"<p>{html.escape(line)}</p>\n" for line in told)
        + f"<h2>Matches</h2><ol>{''.join(matches)}</ol>\n{skipped}</body></html>\n"
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _in_context(image: object, box: np.ndarray | list[float]) -> np.ndarray:
    """A crop around ``box`` with the box drawn in it: white under black shows on any clothes."""
    crop, inside = crop_in_context(image, box, shape=_CROP)
    picture = Image.fromarray(crop)
    pen = ImageDraw.Draw(picture)
    high, wide = crop.shape[:2]
    x1, y1, x2, y2 = (float(side) for side in np.clip(inside, 0, (wide - 1, high - 1, wide - 1, high - 1)))
    for color, width in (("white", 4), ("black", 2)):
        pen.rectangle((x1, y1, max(x1, x2), max(y1, y2)), outline=color, width=width)
    return np.asarray(picture)


def _figure(crop: np.ndarray, alt: str, caption: str) -> str:
    return (f'<figure><img alt="{html.escape(alt, quote=True)}" width="{crop.shape[1]}" height="{crop.shape[0]}" '
            f'src="{data_uri(crop)}"><figcaption>{caption}</figcaption></figure>')  # fmt: skip
