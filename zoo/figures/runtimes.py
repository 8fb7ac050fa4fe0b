"""Runtimes to targets: their empirical distributions, and data profiles."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from zoo.figures.curves import top_labels
from zoo.figures.labels import name_lines
from zoo.figures.style import OTHERS, add_caption, dress, line_styles, make_figure
from zoo.statistics.runtimes import hardest_targets, select_targets, solved_curves


def plot_ecdf(runtimes: pd.DataFrame, num_dims: pd.Series, order: Sequence[str], *, top: int = 10) -> Figure:
    """Draws runtime distributions; see `Results.plot_ecdf`.

    Args:
        runtimes: `Results.runtimes`.
        num_dims: The number of dimensions of each problem, by its label.
        order: The strategies in the order in which they get their colours.
        top: How many strategies are drawn in colour, if there are many.
    """
    what = "fraction of (problem, target, seed) reached"
    return _plot_solved(runtimes, num_dims, order, top, "problem steps / dimension", what)


def plot_data_profile(
    runtimes: pd.DataFrame,
    num_dims: pd.Series,
    order: Sequence[str],
    target: float | Iterable[float] | None,
    *,
    top: int = 10,
) -> Figure:
    """Draws data profiles; see `Results.plot_data_profile`. The other arguments are those of `plot_ecdf`."""
    if target is None:
        runtimes = hardest_targets(runtimes)
    else:
        runtimes = select_targets(runtimes, target if isinstance(target, Iterable) else [target])
    targets = [f"{each:.3g}" for each in runtimes.target.unique()]
    what = f"fraction of problems and seeds solved\nto {', '.join(targets) if len(targets) <= 4 else 'their targets'}"
    return _plot_solved(runtimes, num_dims + 1, order, top, "simplex gradients (n + 1 problem steps)", what)


def _plot_solved(
    runtimes: pd.DataFrame, unit: pd.Series, order: Sequence[str], top: int, time: str, what: str
) -> Figure:
    figure = make_figure(3.8)
    axis = figure.subplots()
    dress(axis, x=time, y=what)
    curves = solved_curves(runtimes, unit)
    # The area between a curve and the axis, as drawn.
    areas = {name: float(np.sum(y[:-1] * np.diff(np.log(x)))) for name, (x, y, _) in curves.items()}
    shown = top_labels({strategy: -area for strategy, area in areas.items()}, top)
    styles, named, others = line_styles(order), {}, []
    for strategy, (x, y, end) in curves.items():
        style = styles[strategy] if strategy in shown else OTHERS
        (line,) = axis.plot(x, y, drawstyle="steps-post", label=strategy, clip_on=False, **style)
        axis.set_xlim(x[0], x[-1])  # the same for all
        if strategy not in shown:
            others.append(line)
            continue
        named[strategy] = line
        axis.plot(*end, "x", color=style["color"], markersize=8, markeredgewidth=2, clip_on=False)
    axis.set_xscale("log")
    axis.set_ylim(0, 1)
    add_caption(figure, "cross: the first run ended")
    name_lines(figure, [axis], [named | ({f"{len(others)} others": others[0]} if others else {})])
    return figure
