"""The figure of a sweep: the score against each setting, and over the two settings that matter most."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from zoo.figures.scales import Scale, robust_scale
from zoo.figures.style import INK, PALETTE, SMALL, add_caption, add_title, dress, make_figure, plain
from zoo.statistics.aggregates import interquartile_mean

_COLUMNS = 3
_FEW = 8  # distinct values of a setting, each of which has a mean of its own
_MUCH = 20  # few values that span more than this are on a log axis
_CELLS = 80  # of the background along each axis
_STAR: dict[str, Any] = {
    "marker": "*",
    "color": "#EE7733",
    "markersize": 15,
    "markeredgecolor": INK,
    "zorder": 5,
    "clip_on": False,
}


@dataclasses.dataclass(frozen=True)
class _Axis:
    """Where the values of a setting lie on an axis. Categories lie at 0, 1, 2, ..., and have labels."""

    name: str
    at: np.ndarray
    is_log: bool
    labels: list[str] | None

    @property
    def unit(self) -> np.ndarray:
        """The positions on the scale of the axis."""
        return np.log10(self.at) if self.is_log else self.at


def plot_sweep(frame: pd.DataFrame, names: Sequence[str], facts: Mapping[str, Any]) -> Figure:
    """Draws a sweep; see `Sweep.plot`.

    Args:
        frame: `Sweep.frame`.
        names: Names of the settings that were swept.
        facts: `Sweep.metadata`.
    """
    maximize = facts["maximize"]
    is_ranked = frame["rank"].notna()
    frame = frame.loc[is_ranked | frame.score.isna()]  # those that halving dropped had a smaller budget
    scores = frame.score.to_numpy(float)
    scale = robust_scale(scores, maximize=maximize)
    axes_of = {name: _axis_of(list(frame[name]), name, name in facts.get("log", ())) for name in names}
    names = sorted(names, key=lambda name: -_importance(axes_of[name], scores))
    num_panels = len(names) + (len(names) > 1)
    num_columns = 2 if num_panels == 4 else min(num_panels, _COLUMNS)
    rows = -(-num_panels // num_columns)
    figure = make_figure(0.8 + 2.4 * rows, width=3.8 if num_columns == 1 else 7.0)
    axes = figure.subplots(rows, num_columns, squeeze=False).ravel()
    for number, (axis, name) in enumerate(zip(axes, names, strict=False)):
        _draw_marginal(axis, axes_of[name], frame, scale, maximize=maximize)
        if number % num_columns == 0:
            dress(axis, y=f"{plain(facts['headline'], 40)} ({'higher' if maximize else 'lower'} is better)")
    if len(names) > 1:
        x, y = (axes_of[name] for name in names[:2])
        _draw_pair(figure, axes[len(names)], x, y, scores, scale, maximize=maximize, label=facts["headline"])
    for axis in axes[num_panels:]:
        axis.set_axis_off()
    add_title(
        figure,
        f"{plain(facts['strategy'], 60)} on {plain(facts['problem'], 40)}: "
        f"{len(frame)} settings x {facts['num_seeds']} tuning seeds",
    )
    beyond = (scores < scale.low) | (scores > scale.high)
    add_caption(
        figure,
        "star: the choice",
        "line: interquartile mean over the settings with similar values",
        f"triangles: {beyond.sum()} settings beyond the axis" if beyond.any() else "",
        "crosses: no score" if np.isnan(scores).any() else "",
        *(scale.notes(scores[np.isfinite(scores) & ~beyond]) if scale.is_log else ()),
    )
    return figure


def _axis_of(values: list[Any], name: str, is_log: bool) -> _Axis:
    if all(isinstance(x, (int, float, np.number)) and not isinstance(x, bool) for x in values):
        at = np.array(values, float)
        # A list of few numbers, such as 0.01, 0.1 and 1, does not say that it is on a log scale.
        is_log = is_log or (len(set(at)) <= _FEW and min(at) > 0 and max(at) >= _MUCH * min(at))
        return _Axis(name, at, bool(is_log), None)
    labels = list(dict.fromkeys(map(str, values)))
    return _Axis(name, np.array([labels.index(str(x)) for x in values], float), False, labels)


def _importance(axis: _Axis, scores: np.ndarray) -> float:
    """Returns how much of the ranks of the scores a setting explains: between groups of similar values, from 0 to 1."""
    has_score = np.isfinite(scores)
    values, ranks = pd.Series(axis.at[has_score]), pd.Series(scores[has_score]).rank()
    # Equal values are of one group: the settings are sorted by score, so that any other order would explain the ranks.
    is_few = axis.labels is not None or values.nunique() <= _FEW
    groups = values if is_few else values.rank(method="first") * 4 // (len(values) + 1)
    total = ((ranks - ranks.mean()) ** 2).sum()
    means = ranks.groupby(groups).transform("mean")
    return float(((means - ranks.mean()) ** 2).sum() / total) if total > 0 else 0.0


def _draw_marginal(axis: Axes, setting: _Axis, frame: pd.DataFrame, scale: Scale, *, maximize: bool) -> None:
    """Draws the scores against one setting."""
    scores, low, high = (frame[name].to_numpy(float) for name in ("score", "low", "high"))
    dress(axis)
    shown = scale.clip(scores)
    scale.apply(axis, scores)
    x = setting.at
    if setting.labels is not None:
        x = x + np.random.default_rng(0).uniform(-0.18, 0.18, len(x))
    beyond, failed = (scores < scale.low) | (scores > scale.high), np.isnan(scores)
    inside = ~beyond & ~failed
    errors = np.abs(np.stack([scale.clip(low), scale.clip(high)]) - shown)
    axis.errorbar(
        x[inside], shown[inside], yerr=errors[:, inside], fmt="o", color=PALETTE[0], markersize=3.5, linewidth=0.8,
        alpha=0.5,
    )  # fmt: skip
    if beyond.any():  # a line without points would have its extent at the corner of the figure
        axis.plot(x[beyond], shown[beyond], "v" if maximize else "^", color=PALETTE[1], markersize=6, clip_on=False)
    if failed.any():
        edge = np.full(failed.sum(), 0.02 if maximize else 0.98)
        axis.plot(x[failed], edge, "x", color=PALETTE[1], markersize=5, transform=axis.get_xaxis_transform())
    at, means = _running_mean(setting, scores)
    if setting.labels is None:
        axis.plot(at, scale.clip(means), "-", color=INK, linewidth=1.2, zorder=4)
    else:
        axis.hlines(scale.clip(means), at - 0.3, at + 0.3, color=INK, linewidth=1.2, zorder=4)
    if len(frame) and not failed[0]:  # the best comes first
        axis.plot(setting.at[0], shown[0], **_STAR)
    _label(axis, setting, "x")


def _running_mean(setting: _Axis, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the interquartile mean of the scores of settings with similar values, and these values.

    With few distinct values or with categories, these are the settings that share a value, else a quarter of all.
    """
    order = np.argsort(setting.at, kind="stable")
    order = order[np.isfinite(scores[order])]
    at, scores = setting.at[order], scores[order]
    values = np.unique(at)
    if setting.labels is not None or (len(values) <= _FEW and len(at) > len(values)):
        return values, np.array([interquartile_mean(scores[at == value]) for value in values])
    width = min(len(at), max(3, len(at) // 4))
    windows = [slice(i, i + width) for i in range(len(at) - width + 1)]
    centres = [float(np.mean(setting.unit[order][window])) for window in windows] if len(at) else []
    return (
        10 ** np.array(centres) if setting.is_log else np.array(centres),
        np.array([interquartile_mean(scores[window]) for window in windows] if len(at) else []),
    )


def _draw_pair(
    figure: Figure, axis: Axes, x: _Axis, y: _Axis, scores: np.ndarray, scale: Scale, *, maximize: bool, label: str
) -> None:
    """Draws the score over two settings: a heat map of a grid, else points over the nearest point's colour."""
    dress(axis)
    finite = np.isfinite(scores)
    shown = scale.clip(scores)
    colours = matplotlib.colormaps["viridis" if maximize else "viridis_r"]
    low, high = (shown[finite].min(), shown[finite].max()) if finite.any() else (0.0, 1.0)
    norm = LogNorm(low, high) if scale.is_log and low < high else Normalize(low, high)
    columns, rows = np.unique(x.at), np.unique(y.at)
    cells = pd.Series(scores).groupby([y.at, x.at]).agg(_mean_of_scores)
    if len(columns) > 1 and len(rows) > 1 and len(cells) == len(columns) * len(rows):
        table = scale.clip(cells.unstack().to_numpy())
        mesh = axis.pcolormesh(_edges(columns, x), _edges(rows, y), table, cmap=colours, norm=norm)
        for i, j in zip(*np.nonzero(np.isnan(table)), strict=True):
            axis.plot(columns[j], rows[i], "x", color=PALETTE[1], markersize=6)
    else:
        _set_scale(axis, x, y)
        left, right = _padded(x)
        bottom, top = _padded(y)
        xs, ys = np.linspace(left, right, _CELLS), np.linspace(bottom, top, _CELLS)
        points = np.stack([(x.unit - left) / (right - left), (y.unit - bottom) / (top - bottom)], axis=1)[finite]
        grid = np.stack(np.meshgrid(np.linspace(0, 1, _CELLS), np.linspace(0, 1, _CELLS)), axis=-1)
        if len(points):
            nearest = np.argmin(((grid[:, :, None] - points) ** 2).sum(axis=-1), axis=-1)
            xs, ys = (10**v if each.is_log else v for v, each in ((xs, x), (ys, y)))
            mesh = axis.pcolormesh(
                xs, ys, shown[finite][nearest], cmap=colours, norm=norm, alpha=0.45, shading="nearest"
            )
            mesh.set_rasterized(True)
        mesh = axis.scatter(
            x.at[finite],
            y.at[finite],
            c=shown[finite],
            cmap=colours,
            norm=norm,
            s=26,
            edgecolor=INK,
            linewidth=0.5,
            zorder=3,
        )
        if not finite.all():
            axis.plot(x.at[~finite], y.at[~finite], "x", color=PALETTE[1], markersize=5)
        axis.set_xlim(xs[0], xs[-1])
        axis.set_ylim(ys[0], ys[-1])
    if finite.any() and finite[0]:
        axis.plot(x.at[0], y.at[0], **_STAR)
    _label(axis, x, "x")
    _label(axis, y, "y")
    extend = (
        "max" if (scores[finite] > scale.high).any() else "min" if (scores[finite] < scale.low).any() else "neither"
    )
    bar = figure.colorbar(mesh, ax=axis, extend=extend)
    bar.ax.tick_params(labelsize=SMALL, colors=INK, length=3, width=0.6)
    bar.set_label(plain(label, 40), fontsize=SMALL, color=INK, parse_math=False)


def _mean_of_scores(scores: pd.Series) -> float:
    return float(interquartile_mean(scores.dropna().to_numpy(float))) if scores.notna().any() else np.nan


def _padded(axis: _Axis) -> tuple[float, float]:
    low, high = (float(axis.unit.min()), float(axis.unit.max())) if len(axis.at) else (0.0, 1.0)
    margin = 0.06 * (high - low) or 0.5
    return low - margin, high + margin


def _edges(values: np.ndarray, axis: _Axis) -> np.ndarray:
    """Returns the edges of the cells around values, halfway between them on the scale of the axis."""
    unit = np.log10(values) if axis.is_log else values
    middles = (unit[1:] + unit[:-1]) / 2
    edges = np.concatenate([[2 * unit[0] - middles[0]], middles, [2 * unit[-1] - middles[-1]]])
    return 10**edges if axis.is_log else edges


def _set_scale(axis: Axes, x: _Axis, y: _Axis) -> None:
    if x.is_log:
        axis.set_xscale("log")
    if y.is_log:
        axis.set_yscale("log")


def _label(axis: Axes, setting: _Axis, which: str) -> None:
    """Names an axis, and sets its scale or the names of its categories."""
    dress(axis, **{which: plain(setting.name, 36)})
    if setting.labels is not None:
        names = [plain(name, 14) for name in setting.labels]
        slant = 30 if which == "x" and sum(map(len, names)) > 22 else 0
        ticks: dict[str, Any] = {"fontsize": SMALL, "parse_math": False, "rotation": slant}
        ticks |= {"ha": "right", "rotation_mode": "anchor"} if slant else {}
        getattr(axis, f"set_{which}ticks")(range(len(names)), names, **ticks)
    elif setting.is_log:
        getattr(axis, f"set_{which}scale")("log")
