"""Names of lines: at their ends where there is room, else in a legend."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.offsetbox import AnnotationBbox, DrawingArea, HPacker, TextArea
from matplotlib.transforms import ScaledTranslation

from zoo.figures.style import INK, SMALL, plain

_LINE_HEIGHT = 1.35 * SMALL  # points
_SAMPLE = 18  # points: the length of the piece of a line beside its name
_GAP = 12  # points between the axes and the names, for the lines that lead there
_WIDEST = 1.7  # inches
_LONGEST = 44  # characters of a name in a legend


def name_lines(figure: Figure, axes: Sequence[Axes], lines: Sequence[Mapping[str, Line2D]]) -> None:
    """Names lines at their right ends, or in a legend above the axes if there is too little room.

    Call it last: names are placed for the present size and limits of the axes.

    Args:
        figure: The figure.
        axes: The axes that have names.
        lines: For each of them, its lines by name.
    """
    if engine := figure.get_layout_engine():
        engine.execute(figure)  # the axes get the height that they have when they are drawn
    unit = 72 / figure.dpi
    heights = [unit * axis.get_window_extent().height for axis in axes]
    if not all(len(each) * _LINE_HEIGHT <= height for each, height in zip(lines, heights, strict=True)):
        add_legend(figure, {name: line for each in lines for name, line in each.items()})
        return
    boxes = [_name_at_end(axis, each, height) for axis, each, height in zip(axes, lines, heights, strict=True)]
    placed = [box for each in boxes for box in each]
    if placed and max(box.offsetbox.get_window_extent().width for box in placed) > _WIDEST * figure.dpi:
        for box in placed:
            box.remove()
        add_legend(figure, {name: line for each in lines for name, line in each.items()})


def add_legend(figure: Figure, handles: Mapping[str, Any]) -> None:
    """Adds a legend above the axes. The figure grows by the height of the legend."""
    if not handles:
        return
    names = [plain(name, _LONGEST) for name in handles]
    width = 0.065 * max(map(len, names)) + 0.6  # inches
    ncols = max(1, min(len(names), int(figure.get_figwidth() / width)))
    legend = figure.legend(
        handles.values(),
        names,
        loc="outside upper center",
        ncols=ncols,
        frameon=False,
        fontsize=SMALL,
        labelcolor=INK,
        handlelength=2.6,
        labelspacing=0.3,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)  # a name may contain dollar signs
    figure.set_figheight(figure.get_figheight() + 0.15 * -(-len(names) // ncols) + 0.1)


def spread(wanted: Sequence[float], distance: float, high: float) -> np.ndarray:
    """Returns positions close to those wanted, at least `distance` apart, and half of it from 0 and `high`.

    Minimises the squared distances to the sorted positions wanted: an isotonic regression, by pooling neighbours.

    Args:
        wanted: Positions in increasing order.
        distance: The smallest distance between two of them.
        high: The largest position. There must be room for all.
    """
    blocks: list[list[float]] = []  # mean and number of positions that are pushed together
    for i, position in enumerate(wanted):
        blocks.append([position - i * distance, 1])
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            (mean, count), (last, number) = blocks[-2], blocks.pop()
            blocks[-1] = [(mean * count + last * number) / (count + number), count + number]
    shifted = np.concatenate([np.full(int(count), mean) for mean, count in blocks]) if blocks else np.zeros(0)
    room = high - len(shifted) * distance
    return np.clip(shifted, distance / 2, distance / 2 + max(room, 0)) + distance * np.arange(len(shifted))


def _name_at_end(axis: Axes, lines: Mapping[str, Line2D], height: float) -> list[AnnotationBbox]:
    """Names the lines of an axis, which is `height` points high. Names keep the order of the ends of the lines."""
    ends = {name: _end(axis, line) for name, line in lines.items()}
    fraction = {name: 0.0 if end is None else _fraction(axis, end[1]) for name, end in ends.items()}
    names = sorted(lines, key=lambda name: fraction[name])
    positions = spread([height * fraction[name] for name in names], _LINE_HEIGHT, height) / height
    boxes = []
    for name, position in zip(names, positions, strict=True):
        line, end = lines[name], ends[name]
        sample = DrawingArea(_SAMPLE, SMALL, 0, 0)
        piece = Line2D([0, _SAMPLE / 2, _SAMPLE], [SMALL / 2] * 3, markevery=[1])
        for what in ("color", "linestyle", "linewidth", "marker", "markersize", "markeredgecolor", "markeredgewidth"):
            getattr(piece, f"set_{what}")(getattr(line, f"get_{what}")())
        sample.add_artist(piece)
        text = TextArea(plain(name), textprops={"fontsize": SMALL, "color": INK, "parse_math": False})
        box = AnnotationBbox(
            HPacker(children=[sample, text], align="center", pad=0, sep=4),
            xy=(1, position) if end is None else end,
            xycoords=axis.transAxes if end is None else "data",
            xybox=(1, position),
            boxcoords=axis.transAxes + ScaledTranslation(_GAP / 72, 0, axis.figure.dpi_scale_trans),
            box_alignment=(0, 0.5),
            frameon=False,
            pad=0,
            annotation_clip=False,
            arrowprops=None
            if end is None
            else {"arrowstyle": "-", "color": line.get_color(), "linewidth": 0.7, "shrinkA": 0, "shrinkB": 0}
            | {"relpos": (0, 0.5)},
        )
        boxes.append(box)
        axis.add_artist(box)
    return boxes


def _end(axis: Axes, line: Line2D) -> tuple[float, float] | None:
    """Returns the last point of a line that is finite, within the limits of the axis; `None` if there is none."""
    points = np.stack([np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)], axis=1)
    points = points[np.isfinite(points).all(axis=1)]
    if not len(points):
        return None
    x, y = points[-1]
    (left, right), (bottom, top) = sorted(axis.get_xlim()), sorted(axis.get_ylim())
    return float(np.clip(x, left, right)), float(np.clip(y, bottom, top))


def _fraction(axis: Axes, y: float) -> float:
    """Returns where a value lies between the bottom (0) and the top (1) of an axis."""
    _, at = axis.transLimits.transform(axis.transScale.transform((axis.get_xlim()[1], y)))
    return float(at)
