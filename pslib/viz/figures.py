"""Figures that say what they show: every picture carries alt text, a caption and safe colours.

``show(fig, alt=..., caption=...)`` is the only way a notebook shows a figure: the picture becomes
``<figure><img alt=...><figcaption>`` with its bytes inside, so it needs no kernel, is read aloud by a screen
reader, and its alt text is what the browser tests check.
"""

import base64
import html
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pslib import progress
from pslib.viz.legible import illegible, settle

__all__ = ["OTHER", "PALETTE", "RIGHT", "SECOND", "WRONG", "draw_boxes", "figure_html", "image_grid", "name_columns",
           "new_figure", "plain", "show", "to_array"]

# Okabe and Ito's palette: told apart with every common kind of colour vision.
PALETTE = {
    "orange": "#E69F00",
    "sky": "#56B4E9",
    "green": "#009E73",
    "yellow": "#F0E442",
    "blue": "#0072B2",
    "vermillion": "#D55E00",
    "purple": "#CC79A7",
    "black": "#000000",
}

# Right and wrong differ by colour AND line AND mark AND word: (colour, line style, mark, word).
RIGHT = (PALETTE["green"], "solid", "✓", "same person")
WRONG = (PALETTE["vermillion"], "dashed", "✗", "other person")
# A second box on the right person, in a frame where she was found already: counted as wrong, but nobody else.
SECOND = (PALETTE["purple"], "dashdot", "✗", "second box")
OTHER = (PALETTE["blue"], "dotted", "", "")

VERDICTS = {True: RIGHT, False: WRONG, "second": SECOND, None: ("#888888", "solid", "", "")}

DPI = 100
LARGE_PNG = 50_000  # bytes, above which a drawing is packed as WebP
MAX_WIDTH_INCHES = 9.0


def new_figure(width: float = 7.0, height: float = 3.0, rows: int = 1, columns: int = 1, **options: Any):
    """A figure and its axes array outside pyplot's global state, ``width`` x ``height`` inches.

    >>> fig, ax = new_figure(4, 2)
    >>> _ = ax.plot([0, 1], [0, 1])
    """
    fig = Figure(figsize=(min(width, MAX_WIDTH_INCHES), height), dpi=DPI, layout="constrained")
    return fig, fig.subplots(rows, columns, **options)


def plain(ax: Axes, lines: str = "y") -> None:
    """No box around the plot, small tick labels, light lines at the ticks of one axis (``lines``)."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8)
    ax.grid(axis=lines, color="#DDDDDD", lw=0.6)


def name_columns(axes: np.ndarray, count: int, label: str) -> None:
    """``label`` below the lowest of the first ``count`` panels in every column of ``axes`` (rows, columns).

    >>> fig, axes = new_figure(4, 4, 2, 2)
    >>> name_columns(axes, 3, "step")
    >>> [ax.get_xlabel() for ax in axes.flat]
    ['', 'step', 'step', '']
    """
    for ax in axes.flat[max(0, count - axes.shape[1]) : count]:
        ax.set_xlabel(label, fontsize=8.5)


def to_array(image: Any) -> np.ndarray:
    """Any picture as uint8 (H, W, 3): an array or tensor, channels first or last, uint8 or floats in 0..1.

    >>> to_array(np.ones((3, 4, 5), np.float32)).shape
    (4, 5, 3)
    """
    if hasattr(image, "detach"):
        image = image.detach().cpu().numpy()
    image = np.asarray(image)
    if image.ndim != 3 or 3 not in (image.shape[0], image.shape[2]):
        raise ValueError(f"an image is (H, W, 3) or (3, H, W), got shape {image.shape}")
    if image.shape[2] != 3:
        image = image.transpose(1, 2, 0)  # (3, H, W) -> (H, W, 3)
    if image.dtype != np.uint8:
        image = (image.clip(0, 1) * 255).round().astype(np.uint8)
    return image


def draw_boxes(
    ax: Axes,
    boxes: Any,
    labels: Sequence[str] | None = None,
    *,
    right: Sequence[bool | str | None] | None = None,
    color: str | None = None,
    linestyle: str | None = None,
    linewidth: float = 1.8,
    fontsize: float = 7,
    below: Sequence[bool] | None = None,
) -> None:
    """Draw ``boxes`` (N, 4) xyxy on ``ax``, with one text each, above its box or ``below`` it.

    ``right`` holds True (same person), False (other person), "second" (a second box on the right person) or None for
    each box, and then decides colour, line and mark; otherwise all boxes have ``color`` and are solid.
    """
    from matplotlib.patches import Rectangle

    boxes = np.asarray(boxes, dtype=float).reshape(-1, 4)
    neither = (color or OTHER[0], linestyle or ("solid" if right is None else OTHER[1]), "", "")
    for index, (x1, y1, x2, y2) in enumerate(boxes):
        verdict = right[index] if right is not None else None
        style = {True: RIGHT, False: WRONG, "second": SECOND, None: neither}[verdict]
        ax.add_patch(
            Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, edgecolor=style[0], linestyle=style[1],
                      linewidth=linewidth)
        )
        text = " ".join(part for part in (style[2], labels[index] if labels is not None else "") if part)
        if text:
            under = below is not None and below[index]
            last = bool(ax.images) and x1 > 0.88 * max(ax.get_xlim())  # no room to the right
            ax.text(x2 if last else x1, y2 + 1.5 if under else y1 - 1.5, text, fontsize=fontsize, color="white",
                    ha="right" if last else "left", va="top" if under else "bottom", clip_on=True,
                    bbox={"facecolor": style[0], "edgecolor": "none", "pad": 1.0})


def image_grid(
    images: Sequence[Any],
    titles: Sequence[str] | None = None,
    *,
    right: Sequence[bool | str | None] | None = None,
    columns: int = 5,
    width: float = 8.0,
    title: str | None = None,
) -> Figure:
    """Pictures side by side; ``right`` frames each as in :func:`draw_boxes`.

    >>> fig = image_grid([np.zeros((8, 4, 3), np.uint8)] * 3, ["query", "rank 1", "rank 2"], right=[None, True, False])
    >>> [ax.get_title() for ax in fig.axes]
    ['query', '✓ rank 1\\nsame person', '✗ rank 2\\nother person']
    """
    arrays = [to_array(image) for image in images]
    columns = max(1, min(columns, len(arrays)))
    rows = max(1, -(-len(arrays) // columns))
    tallest = max((array.shape[0] / array.shape[1] for array in arrays), default=1.0)
    fig, axes = new_figure(width, rows * (width / columns * tallest + 0.45), rows, columns, squeeze=False)
    for index, ax in enumerate(axes.flat):
        ax.set_xticks([])
        ax.set_yticks([])
        if index >= len(arrays):
            ax.axis("off")
            continue
        verdict = right[index] if right is not None else None
        color, line, mark, word = VERDICTS[verdict]
        ax.imshow(arrays[index])
        for spine in ax.spines.values():
            spine.set(edgecolor=color, linestyle=line, linewidth=3 if verdict is not None else 1)
        text = titles[index] if titles is not None else ""
        ax.set_title((f"{mark} {text}\n{word}" if mark else text).strip(), fontsize=8, color=color if mark else "black")
    if title:
        fig.suptitle(title, fontsize=10)
    return fig


def figure_html(fig: Figure, alt: str, caption: str | None = None, *, quality: int | None = None) -> str:
    """The figure as ``<figure>`` with the picture inside; closes ``fig``.

    ``quality`` (1..95) writes JPEG, right for photographs; without it figures that hold colour pictures
    are JPEG 80 and all others PNG with 64 colours (lines and text need no more), WebP without loss where that is large.
    """
    if not alt.strip():
        raise ValueError("every figure needs alt text: say in one sentence what it shows")
    if quality is None and any(image.get_array().ndim == 3 for ax in fig.axes for image in ax.images):
        quality = 80
    mime, payload = _encode(fig, quality)
    import matplotlib.pyplot as plt

    plt.close(fig)
    source = f"data:{mime};base64,{base64.b64encode(payload).decode()}"
    below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return (
        f'<figure class="pslib-figure" style="margin:0"><img class="pslib" alt="{html.escape(alt, quote=True)}" '
        f'style="max-width:100%" src="{source}">{below}</figure>'
    )


def show(fig: Figure, alt: str, caption: str | None = None, *, quality: int | None = None) -> None:
    """Show ``fig`` in the notebook with alt text (what a reader who cannot see it needs to know) and a caption.

    Where pages are made for others (``PSLIB_PLAIN=1``) words that cannot be read raise ValueError; whoever tries things
    out is shown her figure all the same.
    """
    from IPython.display import display

    if progress.plain() and (faults := illegible(fig, min(1.0, MAX_WIDTH_INCHES / fig.get_figwidth()))):
        raise ValueError(f"the figure '{alt}' cannot be read: {'; '.join(faults)}")
    text = f"[figure: {alt}]"
    display({"text/html": figure_html(fig, alt, caption, quality=quality), "text/plain": text}, raw=True)


def _encode(fig: Figure, quality: int | None) -> tuple[str, bytes]:
    """(mime type, bytes) of the drawn figure: JPEG of that quality, or PNG or WebP reduced to a palette."""
    from PIL import Image

    settle(fig)
    drawn = io.BytesIO()
    width, height = fig.get_size_inches()
    fig.savefig(drawn, format="png", dpi=min(DPI, DPI * MAX_WIDTH_INCHES / width), facecolor="white")
    picture = Image.open(drawn).convert("RGB")
    packed = io.BytesIO()
    if quality is not None:
        picture.save(packed, format="JPEG", quality=quality, optimize=True)
        return "image/jpeg", packed.getvalue()
    # An octree keeps a colour that few pixels have (a mark, a legend); median cut mixes it with its neighbours.
    palette = picture.quantize(64, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    palette.save(packed, format="PNG", optimize=True)
    if packed.tell() <= LARGE_PNG:
        return "image/png", packed.getvalue()
    smaller = io.BytesIO()  # by a quarter, for the same pixels
    palette.convert("RGB").save(smaller, format="WEBP", lossless=True, method=6)
    return "image/webp", smaller.getvalue()
