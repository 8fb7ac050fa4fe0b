"""Gradient estimators side by side: bias, cosine, variance, and variance at equal cost."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from matplotlib.figure import Figure

from zoo.figures.style import INK, SMALL, add_caption, dress, line_styles, make_figure, plain

_WIDTH = 8.0  # inches
_LONGEST = 28  # characters of a line of a name


class _Statistics(Protocol):
    """The statistics that are drawn; see `zoo.EstimatorStatistics`."""

    @property
    def bias(self) -> float: ...
    @property
    def bias_by_chance(self) -> float: ...
    @property
    def cosine(self) -> float: ...
    @property
    def reference_sigma(self) -> float | None: ...
    @property
    def total_variance(self) -> float: ...
    @property
    def total_variance_error(self) -> float: ...
    @property
    def variance_per_step(self) -> float: ...
    @property
    def variance_per_second(self) -> float: ...


def plot_estimators(statistics: Mapping[str, _Statistics]) -> Figure:
    """Draws bias, cosine and variance of several gradient estimators side by side.

    Args:
        statistics: What `zoo.estimator_statistics` returned for one problem and solution, by name. If the references
            differ, each name in the figure also says which reference was used.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: If `statistics` is empty.
    """
    if not statistics:
        raise ValueError("plot_estimators expects the statistics of at least one estimator.")
    names, rows = [plain(name, _LONGEST) for name in statistics], list(statistics.values())
    line_height = 0.3
    if len({row.reference_sigma for row in rows}) > 1:  # bias and cosine cannot be compared
        of = [r.reference_sigma for r in rows]
        references = ["exact gradient" if sigma is None else f"smoothed by {sigma:g}" for sigma in of]
        names = [f"{name}\n(beside: {reference})" for name, reference in zip(names, references, strict=True)]
        line_height = 0.36
    panels = (
        ("bias (norm)", [row.bias for row in rows], None, "log"),
        ("cosine to the\nreference, mean", [row.cosine for row in rows], None, "linear"),
        ("total variance", [row.total_variance for row in rows], [row.total_variance_error for row in rows], "log"),
        ("total variance\nx problem steps", [row.variance_per_step for row in rows], None, "log"),
        ("total variance\nx seconds", [row.variance_per_second for row in rows], None, "log"),
    )
    figure = make_figure(max(1.9, 1.2 + line_height * len(names)), width=_WIDTH)
    axes = figure.subplots(1, len(panels), sharey=True)
    heights = np.arange(len(names))
    styles = [
        {**style, "linestyle": "none", "markersize": 6, "markevery": None}
        for style in line_styles(map(str, heights)).values()
    ]
    for axis, (title, values, errors, scale) in zip(axes, panels, strict=True):
        dress(axis, title=title)
        axis.set_xscale(scale)  # a log scale leaves out zeros
        for height, value, error, style in zip(heights, values, errors or [None] * len(names), styles, strict=True):
            axis.errorbar(value, height, xerr=error, capsize=3, **style)
        if scale == "linear":
            axis.axvline(0, color=INK, linewidth=0.8)
    axes[0].plot([row.bias_by_chance for row in rows], heights, "|", color=INK, markersize=14, markeredgewidth=1.5)
    axes[0].set_yticks(heights, names, parse_math=False, fontsize=SMALL)
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    has_zeros = any(value <= 0 for _, values, _, scale in panels if scale == "log" for value in values)
    note = "values of zero or below have no point on a log axis" if has_zeros else ""
    add_caption(figure, "tick: the bias of an unbiased estimator by chance", note)
    return figure
