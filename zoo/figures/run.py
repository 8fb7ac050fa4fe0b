"""The figure of one run: fitness in each generation, the score, and the state of the search."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from zoo.figures.scales import choose_scale
from zoo.figures.style import INK, PALETTE, SMALL, add_caption, add_title, dress, make_figure, plain

_COLUMNS = 3
_FEW = 20  # up to so many points are marked
_DIAGNOSIS = {"sigma": "sigma", "step_norm": "step of the mean", "condition_number": "condition number"}


def plot_run(
    history: Mapping[str, Any], scores: Mapping[str, Any], headline: str, *, maximize: bool, title: str, x: str
) -> Figure:
    """Draws a run; see `RunResult.plot`.

    Args:
        history: `RunResult.history`.
        scores: `RunResult.scores`.
        headline: Name of the headline metric.
        maximize: Whether a higher headline score is better.
        title: The title of the figure.
        x: `"steps"`, `"generations"` or `"seconds"`. Against seconds, the fitness of generations is left out.
    """
    label = "problem steps" if x == "steps" else x
    clock = np.asarray(scores["generation" if x == "generations" else x], float)
    direction = "higher" if maximize else "lower"
    panels: list[tuple[str, np.ndarray, np.ndarray, bool]] = [
        (f"{plain(headline, 30)} of the mean\n({direction} is better)", clock, _floats(scores[headline]), maximize)
    ]
    for name, text in _DIAGNOSIS.items():
        first = 1 if name == "step_norm" else 0  # at the first scoring, no step was done
        panels.append((text, clock[first:], _floats(scores[name])[first:], False))
    failed = _floats(history["failed"])
    generations = np.arange(1, len(failed) + 1) if x == "generations" else _floats(history["steps"])
    if x != "seconds" and failed.any():
        panels.append(("share of members\nwhose fitness failed", generations, failed, True))
    panels = [panel for panel in panels if np.isfinite(panel[2]).any() or panel is panels[0]]
    num_panels = len(panels) + (x != "seconds")
    rows = -(-num_panels // _COLUMNS)
    figure = make_figure(0.7 + 2.0 * rows)
    axes = list(figure.subplots(rows, min(num_panels, _COLUMNS), squeeze=False).ravel())
    for axis in axes[num_panels:]:
        axis.set_axis_off()
    notes: list[str] = []
    if x != "seconds":
        notes = _draw_fitness(axes[0], generations, history)
    for axis, (name, at, values, is_maximized) in zip(axes[x != "seconds" :], panels, strict=False):
        dress(axis, title=name)
        scale = choose_scale(values, values[:1], maximize=is_maximized)
        scale.apply(axis, values)
        _draw(axis, at, scale.clip(values), color=PALETTE[0])
        notes += [f"{name.partition(chr(10))[0]}: {note}" for note in scale.notes(values) if note]
    for axis in axes[:num_panels]:
        axis.set_xlim(0, 1.02 * float(np.max([clock[-1], *(generations[-1:] if x != "seconds" else [])])) or 1)
        axis.ticklabel_format(axis="x", style="sci", scilimits=(-3, 4))
        dress(axis, x=label)
    add_title(figure, title)
    add_caption(figure, *notes)
    return figure


def _draw_fitness(axis: Axes, at: np.ndarray, history: Mapping[str, Any]) -> list[str]:
    """Draws best, mean and worst fitness against generations or steps, and returns notes."""
    dress(axis, title="fitness of the members\n(lower is better)")
    if not len(at):
        axis.text(0.5, 0.5, "no generation was done", ha="center", transform=axis.transAxes, fontsize=SMALL)
        return []
    best, mean, worst = (_floats(history[f"{name}_fitness"]) for name in ("best", "mean", "worst"))
    values = np.concatenate([best, mean, worst])
    scale = choose_scale(values, [*mean[:1], *worst[:1]], maximize=False)
    scale.apply(axis, values)
    best, mean, worst = map(scale.clip, (best, mean, worst))
    axis.fill_between(at, best, worst, color=PALETTE[0], alpha=0.15, linewidth=0)
    _draw(axis, at, worst, color=PALETTE[0], linewidth=0.6, label="worst")
    _draw(axis, at, mean, color=INK, linewidth=1.2, label="mean")
    _draw(axis, at, best, color=PALETTE[0], linewidth=1.5, label="best")
    handles, names = axis.get_legend_handles_labels()
    axis.legend(handles, names, fontsize=SMALL, frameon=False, labelcolor=INK, labelspacing=0.2, handlelength=1.5)
    return [f"fitness: {note}" for note in scale.notes(values) if note]


def _draw(axis: Axes, x: np.ndarray, y: np.ndarray, **style: Any) -> None:
    axis.plot(x, y, marker="." if len(x) <= _FEW else "None", markersize=4, **{"linewidth": 1.3, **style})


def _floats(values: Any) -> np.ndarray:
    return np.asarray(values, float)
