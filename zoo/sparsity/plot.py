"""Figures of lottery tickets: scores and layers along a ladder, and the loss landscape around solutions."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator, SymmetricalLogLocator

from zoo.figures.labels import add_legend, name_lines
from zoo.figures.scales import choose_scale
from zoo.figures.style import add_caption, dress, line_styles, make_figure, plain
from zoo.sparsity.landscape import barrier, check_columns, metric_rows
from zoo.statistics.aggregates import confidence_interval, interquartile_mean

_FEWEST_FOR_INTERVAL = 3  # the interval of two seeds is so wide that all lines would look flat
_COLUMNS = 3  # panels beside each other


def plot_ladder(frame: pd.DataFrame, *, metric: str, maximize: bool, labels: Mapping[str, str] | None = None) -> Figure:
    """Draws the score of tickets against the fraction of weights that they keep, one line per criterion.

    Lines are interquartile means over seeds with 95 % confidence intervals. With fewer than three seeds they are
    means, with bands from the lowest to the highest value. The figure says which.

    Args:
        frame: A row per criterion, seed, round and metric, with the columns `criterion`, `seed`, `round`, `kept`,
            `metric` and `value`.
        metric: Name of the metric.
        maximize: Whether larger is better.
        labels: Labels of the criteria, by name. Default to the names.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: If the frame lacks a column or the metric, or has several rows for a seed.
        TypeError: If `frame` is not a `pandas.DataFrame`, or `metric` is not a string.
    """
    rows = metric_rows(frame, metric, ("criterion", "seed", "round", "kept"))
    num_seeds = _num_seeds(rows, ["criterion", "round"])
    figure = make_figure(3.8)
    axis = figure.subplots()
    dress(axis)
    handles, styles = {}, line_styles(map(str, rows.criterion.unique()))
    for criterion, group in rows.groupby("criterion", sort=False):
        label = (labels or {}).get(str(criterion), str(criterion))
        style = styles[str(criterion)]
        handles[label] = _draw_over_seeds(axis, group, "value", num_seeds, label=label, **style)
    _label_kept(axis, rows.kept)
    note = _label_metric(axis, metric, maximize)
    add_caption(figure, _describe_seeds(num_seeds), note)
    name_lines(figure, [axis], [handles])
    return figure


def plot_layers(frame: pd.DataFrame) -> Figure:
    """Draws the fraction that each layer keeps against the fraction of the network, one panel per criterion.

    The dashed line is the fraction if all layers were pruned equally. Lines and bands are as in `plot_ladder`.

    Args:
        frame: A row per criterion, seed, round and layer, with the columns `criterion`, `seed`, `round`, `kept`,
            `layer` and `layer_kept`.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: If the frame lacks a column, has no rows, or has several for a seed.
    """
    check_columns(frame, ("criterion", "seed", "round", "kept", "layer", "layer_kept"))
    if not len(frame):
        raise ValueError("plot_layers expects a frame with at least one row.")
    num_seeds = _num_seeds(frame, ["criterion", "round", "layer"])
    criteria, layers = frame.criterion.unique(), frame.layer.unique()
    # In the order of the network: deeper layers are lighter.
    colors = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, len(layers)))
    num_columns = min(len(criteria), _COLUMNS)
    num_rows = -(-len(criteria) // num_columns)
    figure = make_figure(0.6 + 2.8 * num_rows)
    axes = figure.subplots(num_rows, num_columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axis in axes[len(criteria) :]:
        axis.set_axis_off()
    handles, styles = {}, line_styles(map(str, layers))
    for number, (axis, criterion) in enumerate(zip(axes, criteria, strict=False)):
        dress(axis, title=plain(criterion, 40))
        rows = frame.loc[frame.criterion == criterion]
        for layer, color in zip(layers, colors, strict=True):
            group = rows.loc[rows.layer == layer]
            if len(group):
                style = {**styles[str(layer)], "color": color, "linestyle": "-"}
                handles[str(layer)] = _draw_over_seeds(axis, group, "layer_kept", num_seeds, **style)
        ends = [rows.kept.min(), rows.kept.max()]
        (handles["all layers equal"],) = axis.plot(ends, ends, "--", color="gray", linewidth=1, zorder=1)
        _label_kept(axis, rows.kept, has_label=number + num_columns >= len(criteria))
        if number % num_columns == 0:
            dress(axis, y="weights kept in the layer (%)")
    _scale_log(axes[0], "y", frame.layer_kept, unit=0.01)  # the other panels share this axis
    add_caption(figure, _describe_seeds(num_seeds))
    add_legend(figure, handles)
    return figure


def plot_interpolation(frames: Mapping[str, pd.DataFrame], *, metric: str, maximize: bool) -> Figure:
    """Draws scores between pairs of solutions, one curve per pair, with the straight line that barriers start from.

    Args:
        frames: Frames of `zoo.interpolate`, by label.
        metric: Name of the metric.
        maximize: Whether larger is better.

    Returns:
        A matplotlib figure. The legend shows the barriers.

    Raises:
        ValueError: If there is no frame, or a frame is not from `zoo.interpolate` or lacks the metric.
    """
    _check_any(frames, "plot_interpolation")
    figure = make_figure(3.8)
    axis = figure.subplots()
    dress(axis)
    handles, styles = {}, line_styles(frames)
    for label, frame in frames.items():
        rows = metric_rows(frame, metric, ("alpha",)).sort_values("alpha")
        (line,) = axis.plot(
            rows.alpha, rows.value, label=label, **{**styles[label], "markersize": 4, "markevery": None}
        )
        handles[f"{label} (barrier {barrier(frame, metric, maximize):.3g})"] = line
        axis.plot([0, 1], rows.value.iloc[[0, -1]], ":", color=line.get_color(), linewidth=1, alpha=0.7)
    dress(axis, x="alpha: from one solution (0) to the other (1)")
    _label_metric(axis, metric, maximize, scale="linear")  # the dotted lines are straight on this scale only
    add_legend(figure, handles)
    return figure


def plot_flatness(frames: Mapping[str, pd.DataFrame], *, metric: str, maximize: bool) -> Figure:
    """Draws scores under a perturbation against its standard deviation, one curve per solution.

    Lines are interquartile means over the samples. Bands are their quartiles: they show how much directions differ, not
    how well the mean is known.

    Args:
        frames: Frames of `zoo.flatness`, by label.
        metric: Name of the metric.
        maximize: Whether larger is better.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: If there is no frame, or a frame is not from `zoo.flatness` or lacks the metric.
    """
    _check_any(frames, "plot_flatness")
    figure = make_figure(3.8)
    axis = figure.subplots()
    dress(axis)
    handles, sigmas, num_samples, styles = {}, [], [], line_styles(frames)
    for label, frame in frames.items():
        groups = metric_rows(frame, metric, ("sigma", "sample")).groupby("sigma").value
        x, values = zip(*((sigma, group.to_numpy(float)) for sigma, group in groups), strict=True)
        middle = [interquartile_mean(each) for each in values]
        low, high = ([np.quantile(each, q) for each in values] for q in (0.25, 0.75))
        handles[label] = _draw(axis, x, middle, low, high, label=label, **styles[label])
        sigmas += x
        num_samples += [len(each) for each in values]
    _scale_log(axis, "x", sigmas)
    dress(axis, x="standard deviation of the perturbation")
    note = _label_metric(axis, metric, maximize)
    said = f"interquartile mean over {_span(num_samples)} perturbations; band: their quartiles"
    add_caption(figure, said, note)
    name_lines(figure, [axis], [handles])
    return figure


def _draw_over_seeds(axis: Axes, rows: pd.DataFrame, column: str, num_seeds: Sequence[int], **style: Any) -> Any:
    """Draws a column against the kept fraction: one point per round, the mean over seeds, and a band."""
    x, middle, low, high = [], [], [], []
    for _, of_round in rows.sort_values("seed").groupby("round"):  # the bootstrap depends on the order
        values = of_round[column].to_numpy(float)
        x.append(of_round.kept.mean())
        if min(num_seeds) >= _FEWEST_FOR_INTERVAL:
            middle.append(interquartile_mean(values))
            interval = confidence_interval(values)
        else:
            middle.append(values.mean())
            interval = values.min(), values.max()
        low.append(interval[0])
        high.append(interval[1])
    return _draw(axis, x, middle, low, high, **style)


def _draw(axis: Axes, x: Sequence[float], middle: Any, low: Any, high: Any, **style: Any) -> Any:
    (line,) = axis.plot(x, middle, **{**style, "markersize": 4, "markevery": None})
    axis.fill_between(x, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    return line


def _num_seeds(rows: pd.DataFrame, by: list[str]) -> list[int]:
    seeds = rows.groupby(by).seed
    if (seeds.size() != seeds.nunique()).any():
        raise ValueError(
            f"Expected one row per seed, {', '.join(by)}, got several. Pass one problem and one strategy at a time."
        )
    return seeds.nunique().tolist()


def _describe_seeds(num_seeds: Sequence[int]) -> str:
    if max(num_seeds) == 1:
        return "one seed"
    if min(num_seeds) >= _FEWEST_FOR_INTERVAL:
        return f"interquartile mean over {_span(num_seeds)} seeds; band: 95 % confidence interval"
    return f"mean over {_span(num_seeds)} seeds; band: from the lowest to the highest"


def _span(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"


def _label_kept(axis: Axes, kept: pd.Series, *, has_label: bool = True) -> None:
    _scale_log(axis, "x", kept, unit=0.01)
    axis.set_xlim(kept.max() * 1.05, kept.min() / 1.05)  # sparser networks are further to the right
    if has_label:
        dress(axis, x="weights kept (%)")


def _scale_log(axes: Axes, which: Literal["x", "y"], values: Iterable[float], *, unit: float = 1) -> None:
    """Makes an axis logarithmic. If there are zeros, it is linear below the smallest positive value."""
    values = np.asarray(list(values), float)
    positive = values[values > 0]
    if not len(positive):
        return
    low, high = positive.min(), positive.max()
    subs = range(1, 10) if high < 4 * low else (1, 2, 5)
    axis, set_scale = (axes.xaxis, axes.set_xscale) if which == "x" else (axes.yaxis, axes.set_yscale)
    if low <= values.min():
        set_scale("log")
        axis.set_major_locator(LogLocator(subs=subs))
    else:
        set_scale("symlog", linthresh=low, linscale=0.3)
        axis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=low, subs=subs))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / unit:.3g}"))


def _label_metric(axis: Axes, metric: str, maximize: bool, *, scale: str | None = None) -> str:
    """Names the axis of a metric, chooses its scale, and returns what has to be said of it."""
    dress(axis, y=f"{plain(metric, 40)} ({'higher' if maximize else 'lower'} is better)")
    if scale is not None:
        return ""
    lines = [np.asarray(line.get_ydata(), float) for line in axis.lines]
    chosen = choose_scale(np.concatenate(lines), [y[0] for y in lines], maximize=maximize)
    if not chosen.is_log:
        return ""
    for line, values in zip(axis.lines, lines, strict=True):
        line.set_ydata(chosen.clip(values))
    bands = [np.asarray(path.vertices)[:, 1] for area in axis.collections for path in area.get_paths()]
    chosen.apply(axis, np.concatenate(lines + bands))
    return "; ".join(note for note in chosen.notes(np.concatenate(lines + bands)) if note)


def _check_any(frames: Mapping[str, pd.DataFrame], name: str) -> None:
    if not frames:
        raise ValueError(f"{name} expects a dictionary of at least one frame by label, got none.")
