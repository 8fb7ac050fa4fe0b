"""Figures of benchmark results."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from zoo.benchmarking.estimators import EstimatorStatistics
from zoo.benchmarking.pair import Pair
from zoo.figures.style import add_legend, line_styles, spans_decades
from zoo.statistics.curves import mean_curve
from zoo.statistics.runtimes import hardest_targets, select_targets, solved_curves

_AXES = (("steps", "problem steps"), ("seconds", "wall-clock seconds (all seeds together)"))


def plot_curves(pairs: Sequence[Pair], problem: str | None = None) -> Figure:
    """Draws learning curves, one row per problem; see `Results.plot`.

    Raises:
        KeyError: If the results have no such problem.
    """
    problems = list(dict.fromkeys(pair.problem for pair in pairs))
    if problem is not None and problem not in problems:
        raise KeyError(f"No problem {problem!r} in these results. They have {problems}.")
    problems = [problem] if problem is not None else problems
    styles = line_styles(pair.strategy for pair in pairs)
    figure = Figure(figsize=(10, 0.6 + 3.2 * len(problems)), layout="constrained")
    axes = figure.subplots(len(problems), len(_AXES), squeeze=False)
    handles = {}
    for row, name in zip(axes, problems, strict=True):
        finished = [pair for pair in pairs if pair.problem == name and not pair.info["error"]]
        for axis, (column, label) in zip(row, _AXES, strict=True):
            for pair in finished:
                x, middle, low, high = mean_curve(pair.curve, pair.info["headline"], column)
                style = styles[pair.strategy]
                (handles[pair.strategy],) = axis.plot(x, middle, label=pair.strategy, **style)
                axis.fill_between(x, low, high, color=style["color"], alpha=0.2, linewidth=0)
            axis.set_xlabel(label)
            axis.set_xlim(left=0)
            axis.ticklabel_format(axis="x", style="sci", scilimits=(0, 4))
            axis.set_title(name, fontsize="medium", parse_math=False)
            axis.grid(alpha=0.3)
            if finished:
                direction = "higher is better" if finished[0].info["maximize"] else "lower is better"
                label = f"{finished[0].info['headline']} ({direction})"
                axis.set_ylabel(label, fontsize="small", parse_math=False)
                if not finished[0].info["maximize"] and spans_decades(axis):
                    axis.set_yscale("log")
            else:
                axis.text(0.5, 0.5, "all strategies failed", ha="center", va="center", transform=axis.transAxes)
    add_legend(figure, handles)
    num_seeds = max((pair.info["num_seeds"] for pair in pairs if not pair.info["error"]), default=0)
    figure.supxlabel(
        f"interquartile mean over {num_seeds} seeds; band: bootstrap 95 % confidence interval",
        fontsize="small",
    )
    return figure


def plot_ecdf(pairs: Sequence[Pair], runtimes: pd.DataFrame) -> Figure:
    """Draws runtime distributions; see `Results.plot_ecdf`."""
    unit = {pair.problem: pair.info["num_dims"] for pair in pairs if len(pair.runtimes)}
    what = "fraction of (problem, target, seed) reached"
    return _plot_solved(pairs, runtimes, pd.Series(unit, dtype=float), "problem steps / dimension", what)


def plot_data_profile(pairs: Sequence[Pair], runtimes: pd.DataFrame, target: float | Iterable[float] | None) -> Figure:
    """Draws data profiles; see `Results.plot_data_profile`."""
    if target is None:
        runtimes = hardest_targets(runtimes)
    else:
        runtimes = select_targets(runtimes, target if isinstance(target, Iterable) else [target])
    targets = [f"{each:.3g}" for each in runtimes.target.unique()]
    unit = {pair.problem: pair.info["num_dims"] + 1 for pair in pairs if len(pair.runtimes)}
    what = f"fraction of problems and seeds solved\nto {', '.join(targets) if len(targets) <= 4 else 'their targets'}"
    return _plot_solved(pairs, runtimes, pd.Series(unit, dtype=float), "simplex gradients (n + 1 problem steps)", what)


def _plot_solved(pairs: Sequence[Pair], runtimes: pd.DataFrame, unit: pd.Series, time: str, what: str) -> Figure:
    figure = Figure(figsize=(7, 4.6), layout="constrained")
    axis = figure.subplots()
    styles = line_styles(pair.strategy for pair in pairs)
    handles = {}
    for strategy, (x, y, end) in solved_curves(runtimes, unit).items():
        style = styles[strategy]
        (handles[strategy],) = axis.plot(x, y, drawstyle="steps-post", label=strategy, **style)
        axis.plot(*end, "x", color=style["color"], markersize=9, markeredgewidth=2, clip_on=False)
        axis.set_xlim(x[0], x[-1])  # the same for all
    axis.set_xscale("log")
    axis.set_ylim(0, 1)
    axis.set_xlabel(f"{time}; cross: the first run ended")
    axis.set_ylabel(what)
    axis.grid(alpha=0.3)
    add_legend(figure, handles)
    return figure


def plot_estimators(statistics: Mapping[str, EstimatorStatistics]) -> Figure:
    """Draws bias, cosine and variance of several gradient estimators side by side.

    Args:
        statistics: What `zoo.estimator_statistics` returned for one problem and solution, by name. If the references
            differ, each name in the figure also says which reference was used.

    Raises:
        ValueError: If `statistics` is empty.
    """
    if not statistics:
        raise ValueError("plot_estimators expects the statistics of at least one estimator.")
    names, rows = list(statistics), list(statistics.values())
    if len({row.reference_sigma for row in rows}) > 1:  # bias and cosine cannot be compared
        of = [r.reference_sigma for r in rows]
        references = ["exact gradient" if sigma is None else f"smoothed by {sigma:g}" for sigma in of]
        names = [f"{name}\n(beside: {reference})" for name, reference in zip(names, references, strict=True)]
    panels = (
        ("bias (norm); tick: by chance", [row.bias for row in rows], None, "log"),
        ("cosine to the reference, mean", [row.cosine for row in rows], None, "linear"),
        ("total variance", [row.total_variance for row in rows], [row.total_variance_error for row in rows], "log"),
        ("total variance x problem steps", [row.variance_per_step for row in rows], None, "log"),
        ("total variance x seconds", [row.variance_per_second for row in rows], None, "log"),
    )
    figure = Figure(figsize=(3.2 * len(panels), 1.2 + 0.45 * len(names)), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True)
    heights = np.arange(len(names))
    colors = [f"C{i % 10}" for i in range(len(names))]
    for axis, (title, values, errors, scale) in zip(axes, panels, strict=True):
        axis.set_xscale(scale)  # a log scale leaves out zeros
        for height, value, error, color in zip(heights, values, errors or [None] * len(names), colors, strict=True):
            axis.errorbar(value, height, xerr=error, fmt="o", color=color, capsize=4)
        if scale == "linear":
            axis.axvline(0, color="black", linewidth=0.8)
        axis.set_title(title, fontsize="medium")
        axis.grid(alpha=0.3)
    axes[0].plot([row.bias_by_chance for row in rows], heights, "k|", markersize=18, markeredgewidth=2)
    axes[0].set_yticks(heights, names, parse_math=False)
    axes[0].invert_yaxis()
    return figure
