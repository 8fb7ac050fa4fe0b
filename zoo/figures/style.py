"""How figures look: their size, colours, lines, markers and fonts. Lines differ without colour too."""

from collections.abc import Iterable
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from zoo.core.text import plain_text
from zoo.figures.figure import NotebookFigure

WIDTH = 7.0
"""Width of a figure in inches: that of the text on a page. Fonts have the sizes below when it is printed this wide."""

FONT, SMALL = 9, 8  # points
INK, GREY, GRID = "#222222", "#B0B0B0", "#DDDDDD"

PALETTE = ("#0077BB", "#EE6677", "#117733", "#000000", "#999933", "#882255", "#CC79A7", "#332288")
"""Colours of Paul Tol and of Okabe and Ito, chosen for a contrast of 3 to white and for colour-blind readers.

References: https://personal.sron.nl/~pault (bright, vibrant, muted); https://jfly.uni-koeln.de/color.
"""

_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_LINES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)), (0, (8, 1, 1, 1, 1, 1)))
_SHIFT = 3  # of the markers from one kind of line to the next, so that lines of one colour have different markers
_MARK_EVERY = 0.25  # of the diagonal of the axes


def make_figure(height: float, width: float = WIDTH) -> Figure:
    """Returns an empty figure, in inches."""
    return NotebookFigure(figsize=(width, height), layout="constrained", facecolor="white")


def line_styles(labels: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Returns how to draw the line of each label: arguments of `Axes.plot`.

    The first 40 labels differ in their line or their marker, so that they can be told apart without colour. The first
    eight have solid lines.
    """
    styles = {}
    for i, label in enumerate(dict.fromkeys(labels)):
        kind = i // len(PALETTE)
        styles[label] = {
            "color": PALETTE[i % len(PALETTE)],
            "linestyle": _LINES[kind % len(_LINES)],
            "marker": _MARKERS[(i + _SHIFT * kind) % len(_MARKERS)],
            "markersize": 7 if _MARKERS[(i + _SHIFT * kind) % len(_MARKERS)] == "*" else 5,
            "markeredgecolor": "white",
            "markeredgewidth": 0.5,
            "linewidth": 1.5,
            # The markers of different lines are at different places, so that none hides another.
            "markevery": (_MARK_EVERY * (0.1 + 0.618 * i % 1), _MARK_EVERY),
        }
    return styles


OTHERS: dict[str, Any] = {"color": GREY, "linewidth": 0.7, "zorder": 1.5}
"""How to draw lines that only give an impression of the rest."""


def dress(axis: Axes, *, title: str | None = None, x: str | None = None, y: str | None = None) -> None:
    """Gives an axis its fonts, grid and spines, and labels, which are drawn as plain text."""
    axis.set_facecolor("white")
    axis.tick_params(which="both", labelsize=SMALL, colors=INK, length=3, width=0.6)
    axis.tick_params(which="minor", length=1.5)
    axis.xaxis.get_offset_text().set_fontsize(SMALL)
    axis.yaxis.get_offset_text().set_fontsize(SMALL)
    for name, spine in axis.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set(color=INK, linewidth=0.6)
    axis.grid(visible=True, color=GRID, linewidth=0.6)
    axis.set_axisbelow(True)
    if title is not None:
        axis.set_title(title, fontsize=FONT, color=INK, parse_math=False)
    if x is not None:
        axis.set_xlabel(x, fontsize=FONT, color=INK, parse_math=False)
    if y is not None:
        axis.set_ylabel(y, fontsize=FONT, color=INK, parse_math=False)


def add_caption(figure: Figure, *notes: str) -> None:
    """Writes notes below a figure, those that are not empty."""
    if text := "; ".join(note for note in dict.fromkeys(notes) if note):
        figure.supxlabel(_wrap(text, figure.get_figwidth()), fontsize=SMALL, color=INK, parse_math=False)


def add_title(figure: Figure, title: str) -> None:
    """Writes a title above a figure."""
    figure.suptitle(_wrap(title, figure.get_figwidth()), fontsize=FONT, color=INK, parse_math=False)


def _wrap(text: str, width: float) -> str:
    """Returns small text in lines that fit into a width, in inches."""
    lines, line_length = [""], int(15 * width)  # characters per inch
    for word in text.split(" "):
        if lines[-1] and len(lines[-1]) + len(word) >= line_length:
            lines.append(word)
        else:
            lines[-1] += f" {word}" if lines[-1] else word
    return "\n".join(lines)


def plain(text: object, length: int | None = None) -> str:
    """Returns text on one line without control characters, and without its middle if it is longer than `length`."""
    shown = plain_text(text)
    if length is None or len(shown) <= length:
        return shown
    return f"{shown[: length // 2]}\N{HORIZONTAL ELLIPSIS}{shown[len(shown) - (length - 1) // 2 :]}"
