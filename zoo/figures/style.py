"""How figures look: lines, legends and axes that all of them share."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.figure import Figure


def line_styles(labels: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Returns how to draw each label, the same in all figures."""
    lines = ("-", "--", ":", "-.")
    names = dict.fromkeys(labels)
    return {name: {"color": f"C{i % 10}", "linestyle": lines[i // 10 % 4]} for i, name in enumerate(names)}


def add_legend(figure: Figure, handles: dict[str, Any]) -> None:
    """Adds a legend by label above the axes, or beside them if it is long."""
    if handles:
        is_long = len(handles) > 12  # above the axes it would take more room than the axes
        legend = figure.legend(
            handles.values(),
            handles.keys(),
            loc="outside right upper" if is_long else "outside upper center",
            ncols=1 if is_long else min(len(handles), 6),
            frameon=False,
            fontsize="small" if is_long else None,
        )
        for text in legend.get_texts():
            text.set_parse_math(False)  # a label may contain dollar signs


def spans_decades(axis) -> bool:
    """Whether all lines of an axis are positive and span more than three decades, so that a log scale shows more."""
    values = np.concatenate([line.get_ydata() for line in axis.lines])
    values = values[np.isfinite(values)]
    return len(values) > 0 and values.min() > 0 and values.max() / values.min() > 1e3
