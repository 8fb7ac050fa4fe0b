"""The figure of a sweep: the score against each setting, and over the two settings that matter most."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.stats
from matplotlib.figure import Figure

_COLUMNS = 3


def plot_sweep(frame: Any, names: Sequence[str], facts: Mapping[str, Any]) -> Figure:
    """Draws a sweep; see `Sweep.plot`.

    Args:
        frame: `Sweep.frame`.
        names: Names of the settings that were swept.
        facts: `Sweep.metadata`.
    """
    maximize = facts["maximize"]
    bad = frame[frame["rank"].isna() & frame.score.isna()]  # nothing but failures: crosses at the edge
    frame = frame[frame["rank"].notna()]
    logs = {name for name, text in facts["space"].items() if text.startswith("log_") or "log=True" in text}
    names = sorted(names, key=lambda name: -_importance(frame, name))
    num_panels = len(names) + (len(names) > 1)
    rows = -(-num_panels // _COLUMNS)
    figure = Figure(figsize=(4 * min(num_panels, _COLUMNS), 0.6 + 3.4 * rows), layout="constrained")
    axes = figure.subplots(rows, min(num_panels, _COLUMNS), squeeze=False).ravel()
    for axis, name in zip(axes, names, strict=False):
        _plot_marginal(axis, frame, bad, name, is_log=name in logs)
        axis.set_ylabel(f"{facts['headline']} ({'higher' if maximize else 'lower'} is better)", fontsize="small")
    if len(names) > 1:
        _plot_pair(figure, axes[len(names)], frame, names[:2], logs, maximize=maximize, label=facts["headline"])
    for axis in axes[num_panels:]:
        axis.set_axis_off()
    num_settings, num_seeds = len(frame) + len(bad), facts["num_seeds"]
    title = f"{facts['strategy']} on {facts['problem']}: {num_settings} settings x {num_seeds} tuning seeds"
    crosses = "; crosses: no score" if len(bad) else ""
    figure.suptitle(f"{title}; star: the choice{crosses}", fontsize="medium", parse_math=False)
    return figure


def _importance(frame: Any, name: str) -> float:
    """Returns how much of the ranks of the scores a setting explains: between groups of similar values, from 0 to 1."""
    frame = frame[frame.score.notna()]
    values = frame[name]
    groups = values.map(repr) if _is_category(values) else values.rank(method="first") * 4 // (len(values) + 1)
    ranks = frame.score.rank()
    total = ((ranks - ranks.mean()) ** 2).sum()
    means = ranks.groupby(groups).transform("mean")
    return float(((means - ranks.mean()) ** 2).sum() / total) if total > 0 else 0.0


def _is_category(values: Any) -> bool:
    return not all(isinstance(x, (int, float, np.number)) and not isinstance(x, bool) for x in values)


def _positions(values: Any) -> tuple[np.ndarray, list[str] | None]:
    """Returns where values lie on an axis, and the labels of an axis of categories."""
    if not _is_category(values):
        return values.to_numpy(float), None
    labels = list(dict.fromkeys(map(str, values)))
    return np.array([labels.index(str(x)) for x in values], float), labels


def _dress(axis: Any, values: Any, name: str, *, is_x: bool, is_log: bool) -> None:
    _, labels = _positions(values)
    which = "x" if is_x else "y"
    getattr(axis, f"set_{which}label")(name, parse_math=False)
    if labels is not None:
        getattr(axis, f"set_{which}ticks")(range(len(labels)), labels, parse_math=False, fontsize="small")
    elif is_log:
        getattr(axis, f"set_{which}scale")("log")


def _plot_marginal(axis: Any, frame: Any, bad: Any, name: str, *, is_log: bool) -> None:
    x, labels = _positions(frame[name])
    rng = np.random.default_rng(0)
    shown = x + (rng.uniform(-0.15, 0.15, len(x)) if labels is not None else 0)
    low, high = frame.score - frame.low, frame.high - frame.score
    axis.errorbar(shown, frame.score, yerr=np.stack([low, high]), fmt="o", color="C0", alpha=0.5, linewidth=1)
    if len(bad) and labels is None:
        edge = np.full(len(bad), 0.98)
        axis.plot(bad[name].to_numpy(float), edge, "x", color="C3", transform=axis.get_xaxis_transform())
    axis.plot(shown[0], frame.score.iloc[0], "*", color="C1", markersize=16, markeredgecolor="black", zorder=3)
    scores = frame.score[frame.score.notna()]
    if len(scores) and scores.min() > 0 and scores.max() / scores.min() > 1e3:
        axis.set_yscale("log")
    _dress(axis, frame[name], name, is_x=True, is_log=is_log)
    axis.grid(alpha=0.3)


def _plot_pair(
    figure: Figure, axis: Any, frame: Any, names: list[str], logs: set[str], *, maximize: bool, label: str
) -> None:
    """Draws the rank of each setting over two of its values."""
    (x, _), (y, _) = (_positions(frame[name]) for name in names)
    rank = scipy.stats.rankdata(frame.score * (-1 if maximize else 1), nan_policy="omit")
    colors = axis.scatter(x, y, c=rank, cmap="viridis_r", s=90, edgecolor="black", linewidth=0.5)
    axis.plot(x[0], y[0], "*", color="C1", markersize=18, markeredgecolor="black", zorder=3)
    _dress(axis, frame[names[0]], names[0], is_x=True, is_log=names[0] in logs)
    _dress(axis, frame[names[1]], names[1], is_x=False, is_log=names[1] in logs)
    figure.colorbar(colors, ax=axis, label=f"rank by {label}")
    axis.grid(alpha=0.3)
