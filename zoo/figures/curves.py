"""Learning curves: scores against problem steps and against seconds."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from zoo.figures.labels import name_lines
from zoo.figures.scales import Scale, choose_scale
from zoo.figures.style import FONT, INK, OTHERS, SMALL, add_caption, dress, line_styles, make_figure, plain
from zoo.statistics.aggregates import interquartile_mean
from zoo.statistics.curves import band_of, curve_on_grid

_AXES = (("steps", "problem steps"), ("seconds", "wall-clock seconds, all seeds"))
_MANY = 12  # up to so many strategies are all drawn in colour
_ROW, _PANEL = 2.7, 1.25  # inches: the height of a problem, and of a small multiple
_COLUMNS = 5  # of small multiples
_LONGER = 20  # times: a curve that is so much longer than another one needs a log axis


@dataclasses.dataclass(frozen=True)
class _Curve:
    """A curve on a grid that all seeds share: `x` is `[num_points]`, and `values` `[num_seeds, num_points]`."""

    x: np.ndarray
    values: np.ndarray

    @functools.cached_property
    def middle(self) -> np.ndarray:
        """The interquartile mean over seeds."""
        return interquartile_mean(self.values)

    @functools.cached_property
    def band(self) -> tuple[np.ndarray, np.ndarray]:
        """The bounds of its interval. They take time, so curves in grey have none."""
        return band_of(self.values)


def plot_curves(
    curves: pd.DataFrame,
    pairs: pd.DataFrame,
    order: Sequence[str],
    problem: str | None = None,
    *,
    top: int = 10,
    small_multiples: bool = False,
) -> Figure:
    """Draws learning curves, one row per problem; see `Results.plot`.

    Args:
        curves: `Results.curves`.
        pairs: A row per pair: `strategy`, `problem`, `headline`, `maximize`, `num_seeds` and `failed`.
        order: The strategies in the order in which they get their colours.
        problem: The problem to draw. Defaults to all problems.
        top: How many strategies of each problem are drawn in colour, if there are many.
        small_multiples: Whether each strategy has a panel of its own.

    Raises:
        KeyError: If the results have no such problem.
    """
    problems = list(dict.fromkeys(pairs.problem))
    if problem is not None and problem not in problems:
        raise KeyError(f"No problem {problem!r} in these results. They have {problems}.")
    problems = [problem] if problem is not None else problems
    styles = line_styles(order)
    figures = [(name, pairs.loc[pairs.problem == name]) for name in problems]
    notes = [_describe_seeds(pairs)]
    if small_multiples:
        sizes = [max(1, -(-(~rows.failed).sum() // _COLUMNS)) for _, rows in figures]
        figure = make_figure(0.5 + _PANEL * sum(sizes) + 0.3 * len(sizes))
        parts = np.ravel(figure.subfigures(len(sizes), 1, height_ratios=sizes, squeeze=False))
        for part, size, (name, rows) in zip(parts, sizes, figures, strict=True):
            notes += _draw_multiples(part, size, name, _problem_curves(curves, rows, "steps"), rows, styles)
        add_caption(figure, *notes)
        return figure
    figure = make_figure(0.5 + _ROW * len(problems))
    axes = figure.subplots(len(problems), len(_AXES), squeeze=False, sharey="row")
    named = []
    for row, (name, rows) in zip(axes, figures, strict=True):
        lines, said = _draw_problem(row, name, curves, rows, styles, top)
        named.append(lines)
        notes += [f"{plain(name, 30)}: {note}" if len(problems) > 1 else note for note in said if note]
    add_caption(figure, *notes)
    name_lines(figure, [row[0] for row in axes], named)
    return figure


def top_labels(values: Mapping[str, float], top: int) -> list[str]:
    """Returns the labels to draw in colour, those with the lowest values: all if there are few."""
    best = sorted(values, key=lambda label: (np.isnan(values[label]), values[label]))
    kept = set(best if len(best) <= max(_MANY, top) else best[:top])
    return [label for label in values if label in kept]


def by_rank(finals: pd.DataFrame, pairs: pd.DataFrame) -> list[str]:
    """Returns the strategies in the order in which they get their colours.

    It is that of the results if they are few. Else those come first that are best on some problem, so that the lines
    that stand out look most different.

    Args:
        finals: `Results.final`.
        pairs: A row per pair, as in `plot_curves`.
    """
    labels = list(dict.fromkeys(pairs.strategy))
    if len(labels) <= _MANY:
        return labels
    finals = finals.merge(pairs, on=["strategy", "problem"])
    groups = finals.loc[finals.metric == finals.headline].groupby(["strategy", "problem"], sort=False)
    ranks = groups.agg(score=("value", interquartile_mean), maximize=("maximize", "first")).reset_index()
    ranks["score"] *= np.where(ranks.maximize.astype(bool), -1, 1)
    ranks["rank"] = ranks.groupby("problem").score.rank(na_option="bottom")
    ranks = ranks.groupby("strategy")["rank"].agg(["min", "mean"]).reindex(labels).fillna(np.inf)
    return sorted(labels, key=lambda label: tuple(ranks.loc[label]))


def _draw_problem(
    row: Sequence[Axes],
    name: str,
    curves: pd.DataFrame,
    rows: pd.DataFrame,
    styles: Mapping[str, Mapping[str, Any]],
    top: int,
) -> tuple[dict[str, Line2D], tuple[str, ...]]:
    """Draws a problem against steps and seconds, and returns the lines to be named and notes."""
    named: dict[str, Line2D] = {}
    notes: tuple[str, ...] = ()
    for axis, (column, label) in zip(row, _AXES, strict=True):
        dress(axis, title=plain(name, 48), x=label, y=_metric_label(rows) if axis is row[0] else None)
        drawn = _problem_curves(curves, rows, column)
        if not drawn:
            axis.text(0.5, 0.5, "all strategies failed", ha="center", va="center", transform=axis.transAxes)
            continue
        maximize = bool(rows.maximize.iloc[0])
        sign = -1 if maximize else 1
        shown = top_labels({label: sign * float(curve.middle[-1]) for label, curve in drawn.items()}, top)
        if spread := _spread_time(drawn, shown):
            drawn = spread
            axis.set_xscale("log")
        else:
            axis.ticklabel_format(axis="x", style="sci", scilimits=(-3, 4))
        scale = _set_scale(axis, drawn, shown, maximize=maximize)
        others = [_draw(axis, drawn[label], scale, OTHERS) for label in drawn if label not in shown]
        lines = {label: _draw(axis, drawn[label], scale, styles[label], label=label) for label in shown}
        axis.set_xlim(min(drawn[label].x[0] for label in shown), max(curve.x[-1] for curve in drawn.values()) or 1)
        if axis is row[0]:
            named = lines | ({f"{len(others)} others": others[0]} if others else {})
            notes = scale.notes(_values(drawn, shown))
    return named, notes


def _draw_multiples(
    part: Any,
    num_rows: int,
    name: str,
    drawn: Mapping[str, _Curve],
    rows: pd.DataFrame,
    styles: Mapping[str, Mapping[str, Any]],
) -> list[str]:
    """Draws a panel per strategy, in which all others are grey. Returns notes."""
    title = f"{plain(name, 48)}: {_metric_label(rows)}, against problem steps"
    part.suptitle(title, fontsize=FONT, color=INK, parse_math=False)
    axes = part.subplots(num_rows, _COLUMNS, sharex=True, sharey=True, squeeze=False)
    maximize = bool(rows.maximize.iloc[0])
    notes: tuple[str, ...] = ()
    for axis in axes.ravel()[max(1, len(drawn)) :]:
        axis.set_axis_off()
    if not drawn:
        axes[0, 0].text(0, 0.5, "all strategies failed", va="center", transform=axes[0, 0].transAxes)
    for axis, label in zip(axes.ravel(), drawn, strict=False):
        dress(axis, title=plain(label, 30))
        axis.title.set_fontsize(min(SMALL, SMALL * 21 / max(1, len(axis.get_title()))))
        scale = _set_scale(axis, drawn, list(drawn), maximize=maximize)
        notes = scale.notes(_values(drawn, list(drawn)))
        for other in drawn:
            if other != label:
                _draw(axis, drawn[other], scale, OTHERS)
        _draw(axis, drawn[label], scale, {**styles[label], "linestyle": "-", "marker": "None"}, label=label)
        axis.set_xlim(0, max(curve.x[-1] for curve in drawn.values()) or 1)
        axis.ticklabel_format(axis="x", style="sci", scilimits=(-3, 4))
    return [f"{plain(name, 30)}: {note}" for note in notes if note]


def _problem_curves(curves: pd.DataFrame, rows: pd.DataFrame, column: str) -> dict[str, _Curve]:
    """Returns the curve of each strategy that did not fail on a problem."""
    found = {}
    done = rows.loc[~rows.failed]
    for strategy, problem, headline in zip(done.strategy, done.problem, done.headline, strict=True):
        mine = (curves.strategy == strategy) & (curves.problem == problem) & (curves.metric == headline)
        found[strategy] = _Curve(*curve_on_grid(curves.loc[mine], column))
    return found


def _set_scale(axis: Axes, drawn: Mapping[str, _Curve], shown: Sequence[str], *, maximize: bool) -> Scale:
    """Sets the scale of the scores, so that all curves and the bands of those in colour can be seen, and returns it."""
    middles = [curve.middle for curve in drawn.values()]
    bounds = [bound for label in shown for bound in drawn[label].band]
    scale = choose_scale(middles, [middle[0] for middle in middles], maximize=maximize, bounds=bounds)
    scale.apply(axis, np.concatenate(middles + bounds))
    return scale


def _spread_time(drawn: Mapping[str, _Curve], shown: Sequence[str]) -> dict[str, _Curve] | None:
    """Returns the curves on logarithmic grids if one is much longer than another one in colour, else `None`."""
    end = max(curve.x[-1] for curve in drawn.values())
    if end <= _LONGER * min(drawn[label].x[-1] for label in shown) or not all(c.x[-1] for c in drawn.values()):
        return None
    start = min(drawn[label].x[1] for label in shown)  # a log axis cannot show the start
    found = {}
    for label, curve in drawn.items():
        grid = np.geomspace(min(start, curve.x[1]), curve.x[-1], len(curve.x))
        found[label] = _Curve(grid, np.stack([np.interp(grid, curve.x, values) for values in curve.values]))
    return found


def _values(drawn: Mapping[str, _Curve], shown: Sequence[str]) -> np.ndarray:
    return np.concatenate([*(curve.middle for curve in drawn.values()), *(x for y in shown for x in drawn[y].band)])


def _draw(axis: Axes, curve: _Curve, scale: Scale, style: Mapping[str, Any], **more: Any) -> Line2D:
    middle = scale.clip(curve.middle)
    (line,) = axis.plot(curve.x, middle, **{**style, **more})
    if not np.isfinite(middle).any():
        line.set_markevery(None)  # matplotlib cannot place marks on a line without points
    if style is not OTHERS:
        low, high = map(scale.clip, curve.band)
        axis.fill_between(curve.x, low, high, color=style["color"], alpha=0.18, linewidth=0)
    return line


def _metric_label(rows: pd.DataFrame) -> str:
    rows = rows.loc[~rows.failed]
    if not len(rows):
        return ""
    return f"{plain(rows.headline.iloc[0], 40)} ({'higher' if rows.maximize.iloc[0] else 'lower'} is better)"


def _describe_seeds(pairs: pd.DataFrame) -> str:
    num_seeds = pairs.num_seeds[~pairs.failed].max() if (~pairs.failed).any() else 0
    return f"interquartile mean over {num_seeds} seeds; band: 95 % confidence interval, as far as seeds reach"
