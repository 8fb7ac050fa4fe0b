"""The figure of a comparison: mean ranks, performance profiles, and differences between two strategies.

References: Demšar 2006, JMLR 7 (diagram of mean ranks with a critical difference); Agarwal et al. 2021,
arXiv 2108.13264 (performance profiles).
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from zoo.figures.labels import add_legend
from zoo.figures.style import INK, SMALL, add_caption, dress, line_styles, make_figure, plain

_WIDTH = 9.0  # inches
_LONGEST = 24  # characters of a name beside an axis
_MOST_ROWS = 10  # pairs in a panel; if each strategy is compared with each and there are more, those with the best one


def plot_comparison(
    table: Any,
    ranks: Any,
    critical_difference: float,
    profiles: Any,
    strategies: Iterable[str],
    maximize: Mapping[str, bool],
) -> Figure:
    """Draws a comparison; see `Comparison.plot`.

    Args:
        table: `Comparison.table`.
        ranks: `Comparison.ranks`.
        critical_difference: `Comparison.critical_difference`.
        profiles: `Comparison.profiles()`.
        strategies: Labels of the strategies, in the order of the other figures, whose colours they have.
        maximize: Whether higher is better, by problem.
    """
    panels = {problem: _rows_to_draw(table[table.problem == problem]) for problem in table.problem.unique()}
    num_rows = -(-len(panels) // 2)
    tallest = max(map(len, panels.values()))
    heights = [2.6 + 0.12 * len(ranks), num_rows * (1.2 + 0.26 * tallest)]
    figure = make_figure(0.4 + sum(heights), width=_WIDTH)
    top, bottom = figure.subfigures(2, 1, height_ratios=heights, squeeze=False).ravel()
    of_ranks, of_profiles = top.subplots(1, 2)
    styles = line_styles(strategies)
    _plot_ranks(of_ranks, ranks, critical_difference, styles)
    handles = _plot_profiles(of_profiles, profiles, styles)
    axes = bottom.subplots(num_rows, min(len(panels), 2), squeeze=False).ravel()
    for axis, (problem, rows) in zip(axes, panels.items(), strict=False):
        _plot_differences(axis, rows, problem, maximize=maximize[problem])
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    add_caption(figure, "bars: 95 % confidence intervals", "filled: significant after the correction")
    add_legend(figure, {strategy: handles[strategy] for strategy in styles})
    return figure


def _rows_to_draw(rows: Any) -> Any:
    if len(rows) <= _MOST_ROWS or rows.against.nunique() == 1:
        return rows
    best = rows.strategy.iloc[0]
    return rows[(rows.strategy == best) | (rows.against == best)]


def _plot_ranks(axis: Axes, ranks: Any, critical_difference: float, styles: Mapping[str, Any]) -> None:
    """Draws mean ranks, a row per strategy. A bar joins the strategies that do not differ significantly."""
    heights = np.arange(len(ranks))
    for height, strategy, rank in zip(heights, ranks.strategy, ranks.mean_rank, strict=True):
        axis.plot(rank, height, **{**styles[strategy], "markevery": None, "zorder": 3})
    axis.set_ylim(len(ranks) - 0.4, -0.6)
    letters = sorted({letter for group in ranks.groups for letter in group})
    width = 0.05 * max(len(ranks) - 1, 1)
    for number, letter in enumerate(letters):
        members = heights[[letter in group for group in ranks.groups]]
        x = len(ranks) + (number + 1) * width
        axis.plot([x, x], [members[0] - 0.2, members[-1] + 0.2], color=INK, linewidth=3, solid_capstyle="butt")
    axis.set_xlim(0.8, len(ranks) + (len(letters) + 1) * width)
    axis.set_xticks(range(1, len(ranks) + 1))
    what = f"critical difference {critical_difference:.2f}; bars join what does not differ"
    dress(axis, title=what if letters else what.partition(";")[0], x="mean rank over problems")
    axis.set_yticks(heights, [plain(name, _LONGEST) for name in ranks.strategy], parse_math=False, fontsize=SMALL)


def _plot_profiles(axis: Axes, profiles: Any, styles: Mapping[str, Any]) -> dict[str, Any]:
    handles = {}
    for strategy, rows in profiles.groupby("strategy", sort=False):
        style = styles[strategy]
        (handles[str(strategy)],) = axis.plot(rows.score, rows.fraction, label=strategy, **style)
        axis.fill_between(rows.score, rows.low, rows.high, color=style["color"], alpha=0.15, linewidth=0)
    axis.set_ylim(-0.02, 1.02)
    dress(axis, title="performance profiles; band: 95 %", x="normalised score", y="fraction of runs above")
    return handles


def _plot_differences(axis: Axes, rows: Any, problem: str, *, maximize: bool) -> None:
    heights = np.arange(len(rows))
    for height, row in zip(heights, rows.to_dict("records"), strict=True):
        if not np.isfinite(row["difference"]):
            axis.plot(0.98, height, "x", color=INK, transform=axis.get_yaxis_transform())
            continue
        if np.isfinite(row["low"]):
            axis.plot([row["low"], row["high"]], [height, height], color=INK, linewidth=1)
        axis.plot(row["difference"], height, "o", color=INK, markerfacecolor=INK if row["winner"] else "white")
    axis.axvline(0, color=INK, linewidth=0.8)
    pairs = zip(rows.strategy, rows.against, strict=True)
    labels = [f"{plain(one, _LONGEST)} - {plain(other, _LONGEST)}" for one, other in pairs]
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.ticklabel_format(axis="x", style="sci", scilimits=(-3, 4))
    direction = "right" if maximize else "left"
    dress(axis, title=plain(problem, 2 * _LONGEST), x=f"difference ({direction}: the first is better)")
    axis.set_yticks(heights, labels, parse_math=False, fontsize=SMALL)
