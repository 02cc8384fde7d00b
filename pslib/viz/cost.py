"""Pictures of what a model costs: operations of its parts, and ratios beside the paper's."""

import re
from collections.abc import Mapping
from itertools import cycle

from matplotlib.figure import Figure

from pslib.viz.figures import PALETTE, new_figure

__all__ = ["parts_figure", "parts_of", "ratios_figure", "ratios_text"]

Measured = float | tuple[float, float, float]  # or a middle with a low and a high end


def parts_of(by_module: Mapping[str, int], depth: int = 3) -> dict[str, int]:
    """FLOPs of the parts that together make up a model, in the order they run, from counts of nested modules.

    ``by_module`` names a module by its path (``"Model.neck.lateral.0"``); parts deeper than ``depth`` names are held in
    the part above them.  What a module does beside its parts stands as the module's own.

    >>> parts_of({"M": 10, "M.neck": 4, "M.neck.a": 3, "M.head": 5})
    {'neck': 1, 'neck.a': 3, 'head': 5, 'M': 1}
    """
    # Lists are no layers of their own: each lateral and output convolution stands beside the others.
    short = {
        re.sub(r"\.(lateral|output)\.", r".\1 ", name.replace(".body", "")): count for name, count in by_module.items()
    }
    kept = {name: count for name, count in short.items() if name.count(".") < depth}
    parts = {}
    for name, count in kept.items():
        below = [other for other in kept if other.startswith(f"{name}.")]
        direct = [other for other in below if not any(other.startswith(f"{one}.") for one in below)]
        own = count - sum(kept[other] for other in direct)
        if own > 0:
            parts[name] = own
    roots = [name for name in parts if "." not in name]
    named = {name.split(".", 1)[1]: count for name, count in parts.items() if "." in name}
    return named | {name: parts[name] for name in roots}


def parts_figure(panels: Mapping[str, Mapping[str, int]], floor: float = 0.005) -> Figure:
    """Bars of the FLOPs of the parts of one model a panel; parts below ``floor`` of their model are left out.

    >>> parts_figure({"toy": {"neck": 3_000_000_000, "head": 1_000_000_000}}).axes[0].get_title()
    'toy: 4 GFLOPs'
    """
    shown = {
        title: {name: count for name, count in parts.items() if count >= floor * sum(parts.values())}
        for title, parts in panels.items()
    }
    longest = max(len(parts) for parts in shown.values())
    fig, axes = new_figure(9.0, 0.9 + 0.24 * longest, 1, len(panels), squeeze=False)
    for ax, (title, parts) in zip(axes.flat, shown.items(), strict=True):
        total = sum(panels[title].values())
        bars = ax.barh(range(len(parts)), [count / 1e9 for count in parts.values()], color=PALETTE["sky"])
        ax.bar_label(bars, [f"{100 * count / total:.0f} %" for count in parts.values()], fontsize=7.5, padding=2)
        ax.set_yticks(range(len(parts)), list(parts), fontsize=7.5)
        ax.invert_yaxis()
        ax.margins(x=0.18)
        ax.set_xlabel("GFLOPs", fontsize=8)
        ax.set_title(f"{title}: {total / 1e9:.3g} GFLOPs", fontsize=9)
        ax.tick_params(axis="x", labelsize=8)
        ax.spines[["top", "right"]].set_visible(False)
    return fig


def ratios_figure(columns: Mapping[str, Mapping[str, Measured]]) -> Figure:
    """Ratio of each model to AlignPS (a dashed line at 1), a mark for each of ``columns`` that has the model.

    A ratio is a number, or (middle, low, high), which is drawn with a line from low to high.

    >>> len(ratios_figure({"paper": {"NAE": 1.4}, "ours": {"NAE": (1.2, 1.1, 1.5), "OIM": 1.3}}).axes[0].get_yticks())
    2
    """
    styles = cycle(zip(("vermillion", "blue", "green", "black", "purple", "orange", "sky"), "so^Dv<p", strict=True))
    names = list(dict.fromkeys(name for values in columns.values() for name in values))
    step = 0.64 / max(1, len(columns) - 1)  # one below the other, so that no interval hides another
    fig, ax = new_figure(7.0, 0.9 + 0.42 * len(names))
    for number, ((label, values), (color, mark)) in enumerate(zip(columns.items(), styles, strict=False)):
        shift = step * (number - (len(columns) - 1) / 2)
        places = [names.index(name) + shift for name in values]
        for place, value in zip(places, values.values(), strict=True):
            if isinstance(value, tuple):
                ax.plot(value[1:], [place, place], color=PALETTE[color], lw=1.4)
        middles = [value[0] if isinstance(value, tuple) else value for value in values.values()]
        ax.plot(middles, places, mark, color=PALETTE[color], ms=5.5, label=label, mfc="white", mew=1.6, ls="none")
    ax.axvline(1, color="#777777", ls=(0, (4, 3)), lw=0.9)
    ax.set_yticks(range(len(names)), names, fontsize=8.5)
    ax.set_ylim(len(names) - 0.5, -0.5)
    for edge in range(1, len(names)):
        ax.axhline(edge - 0.5, color="#dddddd", lw=0.6, zorder=0)
    ax.set_xlabel("time, AlignPS = 1", fontsize=8.5)
    ax.tick_params(axis="x", labelsize=8)
    ax.tick_params(axis="y", length=0)
    ax.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    ax.spines[["top", "right"]].set_visible(False)
    return fig


def ratios_text(columns: Mapping[str, Mapping[str, Measured]]) -> str:
    """The same in words, for alt text.

    >>> ratios_text({"paper": {"NAE": 1.36}, "ours": {"NAE": (1.2, 1.1, 1.5)}})
    'paper: NAE 1.36; ours: NAE 1.20 [1.10, 1.50]'
    """

    def word(value: Measured) -> str:
        return "{:.2f} [{:.2f}, {:.2f}]".format(*value) if isinstance(value, tuple) else f"{value:.2f}"

    return "; ".join(
        f"{label}: " + ", ".join(f"{name} {word(value)}" for name, value in values.items())
        for label, values in columns.items()
        if values
    )
