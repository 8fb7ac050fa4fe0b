"""Runtimes to targets: their empirical distributions, and data profiles."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from zoo.figures.curves import top_labels
from zoo.figures.labels import name_lines
from zoo.figures.style import OTHERS, add_caption, dress, line_styles, make_figure
from zoo.statistics.runtimes import hardest_targets, select_targets, solved_fraction


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
    first_step = (1 / runtimes.problem.map(unit)).min()  # a log axis cannot show anything before it
    end = (runtimes.budget / runtimes.problem.map(unit)).max()
    curves, areas = {}, {}
    for strategy in runtimes.strategy.unique():
        times, fractions, budget = solved_fraction(runtimes, strategy, unit)
        x = np.concatenate([[first_step], np.maximum(times, first_step), [end]])
        y = np.concatenate([[0], fractions, fractions[-1:] if len(fractions) else [0]])
        at_budget = np.searchsorted(times, budget, side="right") / len(times) * fractions[-1] if len(times) else 0
        curves[strategy] = x, y, budget, at_budget
        areas[strategy] = float(np.sum(y[:-1] * np.diff(np.log(x))))  # between the curve and the axis, as drawn
    shown = top_labels({strategy: -area for strategy, area in areas.items()}, top)
    styles, named, others = line_styles(order), {}, []
    for strategy, (x, y, budget, at_budget) in curves.items():
        style = styles[strategy] if strategy in shown else OTHERS
        (line,) = axis.plot(x, y, drawstyle="steps-post", label=strategy, clip_on=False, **style)
        if strategy not in shown:
            others.append(line)
            continue
        named[strategy] = line
        axis.plot(budget, at_budget, "x", color=style["color"], markersize=8, markeredgewidth=2, clip_on=False)
    axis.set_xscale("log")
    axis.set_xlim(first_step, end)
    axis.set_ylim(0, 1)
    add_caption(figure, "cross: the first run ended")
    name_lines(figure, [axis], [named | ({f"{len(others)} others": others[0]} if others else {})])
    return figure
